"""A schedule of one's own is a pure function of progress; what fills a short run is shortened, and said."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from lehr.cli.main import app
from lehr.durations import RunLength
from lehr.errors import JobError, LehrError
from lehr.job import TrainJob, from_dict, to_dict
from lehr.job.search import SearchJob
from lehr.kinds import run_job
from lehr.schedules import SCHEDULES
from lehr.search.space import Space
from lehr.training.setup import check_schedule, learning_rate
from lehr.trust import give

LENGTH = RunLength(10, 100)
MINE = """
import random

def triangle(progress, *, peak: float = 0.5):
    return progress / peak if progress < peak else (1 - progress) / (1 - peak)

def stairs(step, total):
    return 1 - step // 10 * 10 / total

def everything(progress, step, total):
    assert abs(progress * total - step) < 1e-9
    return 1.0

def number():
    return 1.0

def chance(progress):
    return random.random()

def negative(progress):
    return 0.5 - progress

def infinite(progress):
    return float("inf")

def text(progress):
    return "fast"

def fails(progress):
    return 1 / (progress - progress)

late = lambda progress: 1.0 if progress < 0.985 else -1.0
"""


@pytest.fixture(autouse=True)
def _mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("mine", None)


def job_of(schedule: Any, **sections: Any) -> TrainJob:
    job = from_dict({"schedule": schedule, "optimizer": {"lr": 1.0}, **sections})
    assert isinstance(job, TrainJob)
    give(to_dict(job))
    return job


def rates(schedule: Any, length: RunLength = LENGTH, **sections: Any) -> list[float]:
    job = job_of(schedule, **sections)
    check_schedule(job)
    rate = learning_rate(job, length)
    return [rate(step) for step in range(length.total_steps)]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("mine:triangle", {0: 0, 25: 0.5, 50: 1, 75: 0.5}),
        ({"name": "mine:triangle", "peak": 0.25}, {0: 0, 25: 1, 75: 1 / 3}),
        ({"name": "mine:triangle", "warmup": "20step", "cooldown": "10step"}, {20: 0, 60: 1, 80: 0.5, 99: 0.0025}),
        ("mine:stairs", {0: 1, 9: 1, 10: 0.9, 99: 0.1}),
        ("mine:everything", {0: 1, 99: 1}),
    ],
)
def test_the_rate_is_what_the_function_says(schedule: Any, expected: dict[int, float]) -> None:
    found = rates(schedule)
    assert {step: found[step] for step in expected} == pytest.approx(expected, abs=1e-12)
    job = job_of(schedule)
    assert from_dict(to_dict(job)) == job


@pytest.mark.parametrize(
    ("schedule", "sentence"),
    [
        ("mine:nothing", 'schedule.name: "mine:nothing" is not a schedule: mine has no nothing; it has triangle'),
        ("mine:number", 'schedule.name: "mine:number" is not a function of progress, step or total; allowed: def name'),
        ("no where:x", 'schedule: "no where:x" is not an import path; allowed: my_package.module:name'),
        ({"name": "mine:triangle", "peek": 1}, "schedule.peek: unknown option; did you mean peak? allowed: peak"),
        ({"name": "mine:triangle", "peak": "a"}, 'schedule.peak: "a" is not a number'),
        ({"name": "mine:triangle", "progress": 1}, "schedule.progress: unknown option; allowed: peak, warmup"),
        ("mine:chance", "schedule: mine:chance returned 0."),
        ("mine:negative", "mine:negative returned -0.01 at step 51; allowed: a finite number from 0"),
        ("mine:infinite", "mine:infinite returned inf at step 0; allowed: a finite number from 0"),
        ("mine:text", "mine:text returned 'fast' at step 0; allowed: a number"),
        ("mine:late", "mine:late returned -1 at step 99"),
        ("mine:fails", "mine:fails failed: ZeroDivisionError: float division by zero at "),
    ],
)  # fmt: skip
def test_what_is_no_schedule_gets_one_sentence_before_the_run(schedule: Any, sentence: str) -> None:
    with pytest.raises(LehrError) as caught:
        rates(schedule)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_a_search_may_vary_it() -> None:
    search = from_dict(
        {
            "kind": "search",
            "space": {
                "schedule.name": {"choice": ["mine:triangle"]},
                "schedule.peak": {"uniform": [0.1, 0.9]},
            },
        }
    )
    assert isinstance(search, SearchJob)
    give(to_dict(search))
    job, values = Space(search).trial({"schedule.name": "mine:triangle", "schedule.peak": 0.25}, "trial")
    assert values["schedule.peak"] == 0.25
    assert learning_rate(job, LENGTH)(25) == pytest.approx(job.optimizer.rate)


def test_the_command_line_draws_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    app(["schedule", "mine:triangle", "peak=0.25", "--warmup", "1ep"], standalone_mode=False, prog_name="lehr")
    assert "mine:triangle  warmup 1ep, peak 0.25" in capsys.readouterr().out
    with pytest.raises(JobError, match=r"schedule\.pick: unknown option; allowed: peak, warmup"):
        app(["schedule", "mine:triangle", "pick=0.25"], standalone_mode=False, prog_name="lehr")


# ── a run shorter than the file expected ────────────────────────────────────────────────────────────────────────────

SHORT = RunLength(20, 20)  # one epoch


@pytest.mark.parametrize("warmup", ["1ep", "5ep"])
@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_a_run_of_one_epoch_trains_at_every_schedule(name: str, warmup: str) -> None:
    """Before, a warmup of one epoch left the decaying schedules at rate 0 throughout."""
    options = {"step": {"every": "50%"}}.get(name, {})
    found = rates({"name": name, "warmup": warmup, **options}, SHORT)
    assert max(found) > 0.5
    assert sum(found) > 0.1 * len(found)
    assert found == rates({"name": name, "warmup": "10%", **options}, SHORT)


@pytest.mark.parametrize(
    ("schedule", "sentences"),
    [
        ({"warmup": "1ep"}, ["schedule.warmup is 1ep, as long as the run of 20 steps; it becomes 10%, 2 steps"]),
        ({"warmup": "5ep"}, ["schedule.warmup is 5ep, longer than the run of 20 steps; it becomes 10%, 2 steps"]),
        ({"warmup": "0.9ep"}, []),
        (
            {"name": "wsd", "decay": "2ep"},
            ["schedule.decay is 2ep, longer than the run of 20 steps; it becomes 20%, 4 steps"],
        ),
        (
            {"name": "one_cycle", "rise": "1ep", "cooldown": "1ep"},
            [
                "schedule.cooldown is 1ep, as long as the run of 20 steps; it becomes 10%, 2 steps",
                "schedule.rise is 1ep, as long as the run of 20 steps; it becomes 30%, 6 steps",
            ],
        ),
        ("cosine", []),
    ],
)  # fmt: skip
def test_what_is_shortened_is_said(schedule: Any, sentences: list[str]) -> None:
    said = job_of(schedule).schedule
    assert sorted(said.notes(SHORT)) == sorted(sentences)
    assert said.notes(RunLength(20, 2000)) == []
    said.bind(SHORT)


def test_the_warmup_of_the_linear_rule_is_shortened_too() -> None:
    rule = {"lr": 1.0, "scale_lr": {"base_batch": 32}}  # five epochs by default
    found = rates("constant", SHORT, optimizer=rule, train={"batch_size": 128})
    assert found == [1.0, 2.5, *[4.0] * 18]


def test_a_quick_try_of_one_epoch_trains_and_says_what_was_shortened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The training of the README with train.epochs=1, on fewer rows."""
    sections: dict[str, Any] = {
        "data": {"source": "digits", "limit": 320, "augment": ["shift"]},
        "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "scale_lr": {"base_batch": 32}},
        "train": {"epochs": 1, "batch_size": 32, "averaging": {"kind": "swa", "start": "3ep", "every": "1step"}},
    }
    job = from_dict(
        {**sections, "name": "try", "storage": str(tmp_path), "schedule": {"name": "cosine", "warmup": "1ep"}}
    )
    run = run_job(job, debug=True)
    said = {
        "schedule.warmup is 1ep, as long as the run of 10 steps; it becomes 10%, 1 step",
        "optimizer.scale_lr.warmup is 5ep, longer than the run of 10 steps; it becomes 10%, 1 step",
        "train.averaging.start is 3ep, longer than the run of 10 steps; it becomes 75%, 8 steps",
    }
    assert {event["message"] for event in run.events() if event["kind"] == "shortened"} == said
    shown = capsys.readouterr().out
    assert all(f"{sentence}." in shown for sentence in said)
    assert run.steps()["learning_rate"].to_numpy().min() > 0
    losses = run.steps()["loss"].to_numpy()
    assert losses[-3:].sum() < losses[:3].sum()


@pytest.mark.parametrize("warmup", ["50%", "99%"])
def test_a_share_of_a_run_of_one_step_leaves_that_step(warmup: str) -> None:
    assert rates({"name": "cosine", "warmup": warmup}, RunLength(1, 1)) == [1.0]
