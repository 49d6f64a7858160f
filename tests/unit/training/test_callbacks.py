"""Callbacks see a training, may ask it to stop, and change nothing else; after a resume they go on exactly."""

from __future__ import annotations

import json
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import Died, records, tiny, train_here, weights
from tests.unit.training.conftest import plan_of

from lehr.errors import JobError, LehrError
from lehr.job import from_dict, job_hash, to_dict
from lehr.own_code import OwnCodeError
from lehr.runs import Folder, RunFolder
from lehr.runs.checkpoints import saved
from lehr.training.group import Group
from lehr.training.loop import train

CODE = '''
import json, os, random, signal
from pathlib import Path
import numpy as np
import torch


class Diary:
    """Writes down every call; keeps how many there were."""

    def __init__(self, file, stop_at=0, die_in="", fail_in=""):
        self.file, self.stop_at, self.die_in, self.fail_in, self.calls = Path(file), stop_at, die_in, fail_in, 0

    def note(self, hook, moment):
        self.calls += 1
        seen = {name: moment.metrics[name] for name in sorted(moment.metrics)}
        entry = [hook, self.calls, moment.step, moment.epoch, seen, moment.status, moment.workers, moment.rank]
        with self.file.open("a") as file:
            print(json.dumps(entry), file=file)
        if self.fail_in == f"{hook} {moment.epoch}" and not Path(f"{self.file}.mended").exists():
            raise KeyError("my mistake")
        if self.die_in == f"{hook} {moment.epoch}" and not Path(f"{self.file}.died").exists():
            Path(f"{self.file}.died").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def run_start(self, moment):
        self.file.with_suffix(".starts").open("a").write(f"{moment.resumed_from}\\n")

    def evaluation_end(self, moment):
        self.note("evaluation_end", moment)

    def epoch_end(self, moment):
        self.note("epoch_end", moment)
        if moment.epoch == self.stop_at:
            return "seen enough"

    def checkpoint(self, moment):
        assert Path(moment.checkpoint, "state.json").exists()
        self.note("checkpoint", moment)

    def run_end(self, moment):
        self.note("run_end", moment)

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


class Vandal:
    """Tries whatever could change a training."""

    def touch(self, moment):
        for value in moment.weights().values():
            value.zero_()
        with torch.no_grad():
            for parameter in moment.model().parameters():
                parameter.fill_(7)
        moment.job["train"]["epochs"] = 99
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        torch.rand(3), torch.set_default_dtype(torch.float64), torch.set_grad_enabled(False)
        try:
            moment.metrics["validation_loss"] = 0.0
        except TypeError:
            return
        raise AssertionError("metrics can be changed")

    epoch_end = evaluation_end = checkpoint = run_start = run_end = touch


class Returns:
    def __init__(self, hook="epoch_end", value=None, exits=False):
        setattr(type(self), hook, lambda self, moment: exit(3) if exits else value)

    def epoch_end(self, moment): ...


class OfLightning:
    def on_train_epoch_end(self, trainer, module): ...


class Nothing:
    def helper(self): ...


class HalfAState:
    def epoch_end(self, moment): ...
    def state_dict(self): return {}


class OddState:
    def epoch_end(self, moment): ...
    def state_dict(self): return {"weights": torch.zeros(2)}
    def load_state_dict(self, state): ...


def made(file):
    return Diary(file)


def made_of_nothing():
    return Nothing()
'''


@pytest.fixture(autouse=True)
def _own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_callbacks.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    yield
    sys.modules.pop("own_callbacks", None)


def diary(tmp_path: Path) -> list[Any]:
    return [json.loads(line) for line in (tmp_path / "diary").read_text().splitlines()]


def with_diary(tmp_path: Path, **options: Any) -> list[Any]:
    return [{"name": "own_callbacks:Diary", "file": str(tmp_path / "diary"), **options}]


def test_a_callback_sees_each_epoch_evaluation_checkpoint_and_the_end(
    train_tiny: Callable[..., RunFolder], tmp_path: Path
) -> None:
    run = train_tiny(callbacks=with_diary(tmp_path))
    told = diary(tmp_path)
    each = ["evaluation_end", "epoch_end", "checkpoint"]
    assert [entry[0] for entry in told] == [*each, *each, "run_end"]
    assert [entry[3] for entry in told] == [1, 1, 1, 2, 2, 2, 2]
    for row, entry in zip(run.epochs().to_pylist(), [told[1], told[4]], strict=True):
        others = ("epoch", "step", "seconds", "examples_per_second")
        assert entry[4] == {key: value for key, value in row.items() if value is not None and key not in others}
    assert set(told[0][4]) == {"validation_loss", "validation_accuracy"}
    assert told[-1][5] == "finished"
    assert (tmp_path / "diary.starts").read_text() == "None\n"


def test_a_callback_that_tampers_changes_nothing(train_tiny: Callable[..., RunFolder]) -> None:
    train_tiny()  # the first of a process differs in nothing, but imports what draws
    drawn = []
    runs = []
    for callbacks in ([], ["own_callbacks:Vandal"]):
        random.seed(5), np.random.seed(5), torch.manual_seed(5)
        runs.append(train_tiny(callbacks=callbacks, model__dropout=0.2))
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item(), torch.get_default_dtype()))
    assert records(runs[0])[1].equals(records(runs[1])[1])
    assert all(torch.equal(value, weights(runs[1])[name]) for name, value in weights(runs[0]).items())
    assert drawn[0] == drawn[1]


def test_a_request_to_stop_ends_the_run_as_early_stopping_does(
    train_tiny: Callable[..., RunFolder], tmp_path: Path
) -> None:
    run = train_tiny(callbacks=with_diary(tmp_path, stop_at=2), train__epochs=5)
    outcome = run.outcome()
    assert outcome
    assert outcome.status == "finished"
    assert outcome.message == "stopped early after epoch 2: own_callbacks:Diary asks to stop: seen enough"
    assert len(run.epochs()) == 2
    assert weights(run)


def test_all_workers_stop_at_the_same_step(tmp_path: Path) -> None:
    runs = []
    for workers in (1, 2):
        job = tiny(callbacks=with_diary(tmp_path, stop_at=2), train__precision="fp64")
        runs.append(train_here(job, tmp_path / f"run{workers}", workers, prepare=_allow))
        assert runs[-1].progress().message.endswith("asks to stop: seen enough")
        assert len(runs[-1].epochs()) == 2
    told = diary(tmp_path)
    one, two = told[: len(told) // 2], told[len(told) // 2 :]
    assert [entry[:4] for entry in one] == [entry[:4] for entry in two]  # the first worker alone calls it
    assert {(entry[6], entry[7]) for entry in two} == {(2, 0)}


def _allow() -> None:
    from lehr import trust

    trust.is_allowed = lambda call: True


@pytest.mark.parametrize("when", ["epoch_end 2", "checkpoint 2"])
def test_a_killed_and_resumed_run_tells_the_same_story(when: str, tmp_path: Path) -> None:
    job = tiny(callbacks=with_diary(tmp_path))
    undisturbed = train_here(job, tmp_path / "undisturbed", prepare=_allow)
    expected = diary(tmp_path)
    (tmp_path / "diary").unlink()
    killed = tiny(callbacks=with_diary(tmp_path, die_in=when))
    with pytest.raises(Died) as died:
        train_here(killed, tmp_path / "run", prepare=_allow)
    assert died.value.args[0] == [-signal.SIGKILL]
    resumed = train_here(killed, tmp_path / "run", prepare=_allow)
    told = {(hook, epoch): rest for hook, calls, step, epoch, *rest in diary(tmp_path)}
    counts = {(hook, epoch): calls for hook, calls, step, epoch, *_ in diary(tmp_path)}
    assert told == {(hook, epoch): rest for hook, calls, step, epoch, *rest in expected}
    assert counts == {(hook, epoch): calls for hook, calls, step, epoch, *_ in expected}
    assert records(resumed)[0].equals(records(undisturbed)[0])
    assert (tmp_path / "diary.starts").read_text().splitlines()[-1] != "None"


@pytest.mark.parametrize("hook", ["evaluation_end 1", "epoch_end 2", "checkpoint 1", "run_end 2"])
def test_a_mistake_in_a_callback_ends_the_run_and_a_resume_repeats_no_step(
    hook: str, train_tiny: Callable[..., RunFolder], tmp_path: Path
) -> None:
    expected = train_tiny(callbacks=with_diary(tmp_path), train__checkpoint__every="2ep")
    (tmp_path / "diary").unlink()
    plan = plan_of(callbacks=with_diary(tmp_path, fail_in=hook), train__checkpoint__every="2ep")
    run = RunFolder.create(Folder.at(tmp_path / "mistaken"), to_dict(plan.job))
    with pytest.raises(OwnCodeError, match=rf"Diary.{hook[:-2]} failed: KeyError: 'my mistake' at .*own_callbacks.py:"):
        train(plan, run, Group())
    step = max(saved(run.folder))
    assert step == int(hook[-1]) * plan.length.steps_per_epoch
    Path(tmp_path, "diary.mended").touch()
    run = RunFolder.open(run.folder)
    assert train(plan, run, Group()) == "finished"
    assert records(run)[0].equals(records(expected)[0])
    starts = (tmp_path / "diary.starts").read_text().split()
    assert starts[-1] == str(step)
    assert [entry[:2] for entry in diary(tmp_path)][-1] == ["run_end", 7]


def test_a_stop_is_remembered_by_the_checkpoint(tmp_path: Path) -> None:
    job = tiny(callbacks=with_diary(tmp_path, stop_at=2, die_in="run_end 2"))
    with pytest.raises(Died):
        train_here(job, tmp_path / "run", prepare=_allow)
    run = train_here(job, tmp_path / "run", prepare=_allow)
    assert run.progress().message == "stopped early after epoch 2: own_callbacks:Diary asks to stop: seen enough"
    assert len(run.epochs()) == 2


@pytest.mark.parametrize(
    ("callback", "sentence"),
    [
        ({"name": "own_callbacks:Diary"}, "needs file"),
        ({"name": "own_callbacks:Diary", "file": "x", "fil": 1}, "unknown option"),
        ("own_callbacks:Gone", "own_callbacks has no Gone"),
        ("nowhere:Gone", "there is no module nowhere"),
        ("own_callbacks:json", "cannot be called"),
        ("own_callbacks:Nothing", "none of the methods of a callback; allowed: run_start"),
        ("own_callbacks:OfLightning", "has a method on_train_epoch_end, which nothing calls; did you mean epoch_end?"),
        ("own_callbacks:HalfAState", "has state_dict alone"),
        ("Diary", "is not a callback; allowed: my_package.module:Name"),
    ],
)
def test_what_is_no_callback_is_refused_before_the_start(callback: Any, sentence: str) -> None:
    with pytest.raises(JobError) as refused:
        plan_of(callbacks=[callback])
    assert sentence in str(refused.value)
    assert "callbacks" in str(refused.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"value": 3}, "epoch_end returns 3; allowed: nothing, or why to stop, as text"),
        ({"value": True}, "epoch_end returns true; allowed"),
        ({"value": ""}, 'epoch_end returns ""; allowed'),
        ({"hook": "checkpoint", "value": "stop"}, "checkpoint returns .*to stop the run, evaluation_end or epoch_end"),
        ({"hook": "run_start", "value": "stop"}, "run_start returns "),
        ({"exits": True}, "epoch_end ends the process; to stop the run"),
    ],
)
def test_only_a_sentence_stops_a_run(
    options: dict[str, Any], sentence: str, train_tiny: Callable[..., RunFolder]
) -> None:
    with pytest.raises(LehrError, match=sentence):
        train_tiny(callbacks=[{"name": "own_callbacks:Returns", **options}])
    sys.modules.pop("own_callbacks")


def test_a_state_that_is_not_plain_is_refused(train_tiny: Callable[..., RunFolder]) -> None:
    with pytest.raises(LehrError, match=r"OddState.state_dict returns .*allowed: a mapping of plain values"):
        train_tiny(callbacks=["own_callbacks:OddState"])


def test_a_function_may_make_the_callback(train_tiny: Callable[..., RunFolder], tmp_path: Path) -> None:
    train_tiny(callbacks=[{"name": "own_callbacks:made", "file": str(tmp_path / "diary")}])
    assert diary(tmp_path)
    with pytest.raises(LehrError, match="made_of_nothing has none of the methods"):
        train_tiny(callbacks=["own_callbacks:made_of_nothing"])


def test_a_job_without_callbacks_keeps_its_name() -> None:
    """The names of run folders of jobs made in Python are hashes of the jobs."""
    assert job_hash(from_dict({"kind": "train"})) == "d4ac82fd9af0f3df"
