"""Ensemble jobs at tiny scale and without Ray: what becomes a member, how weights are chosen, how a job resumes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import weights

import lehr
from lehr import JobError, Run
from lehr.errors import LehrError
from lehr.job import EnsembleJob, from_dict
from lehr.kinds.ensemble import choose_weights, evaluate_run
from lehr.kinds.ensemble_members import plan_ensemble
from lehr.predict import EnsembleDescription
from lehr.predict.outputs import read_outputs
from lehr.runs import RunFolder, all_attempts, has_model
from lehr.runs.checkpoints import load, saved

BASE: dict[str, Any] = {
    "data": {"source": "digits", "limit": 200},
    "model": {"name": "small_cnn", "width": 8},
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
    "train": {"epochs": 4, "batch_size": 64, "evaluated_training_rows": 0, "checkpoint": {"keep": 1}},
    "seed": 3,
}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def ensemble(method: str, **more: Any) -> Run:
    return lehr.run({"kind": "ensemble", "name": method, "method": method, "base": BASE, **more}, debug=True)


def members_of(run: Run) -> dict[str, float]:
    """The weights of an ensemble's members, by run folder."""
    return {member.run: member.weight for member in EnsembleDescription.read(run.record.folder).members}


def verdict_of(run: Run) -> tuple[str, ...]:
    told = run.folder.progress().overview
    assert told is not None
    return told.verdict


def attempts(run: RunFolder) -> int:
    return len(all_attempts(run.folder))


# ── snapshots ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> Run:
    storage = str(tmp_path_factory.mktemp("snapshots"))
    return ensemble("snapshot", cycles=2, restart_rate=0.1, storage=storage)


def test_a_snapshot_is_the_network_at_the_end_of_a_cycle(snapshots: Run) -> None:
    trained = RunFolder.open(snapshots.record.folder.child("trials/snapshots"))
    rates = trained.steps()["learning_rate"].to_pylist()
    # 200 rows in batches of 64 are 4 steps an epoch, so 2 cycles of 8 steps: the paper's formula, with its t from 1.
    assert rates == pytest.approx([0.1 / 2 * (np.cos(np.pi * ((t - 1) % 8) / 8) + 1) for t in range(1, 17)])
    assert list(saved(trained.folder))[-2:] == [8, 16]  # although the job keeps only one
    members = snapshots.folder.children("members")
    for member, step in zip(members, (8, 16), strict=True):
        assert member.status() == "finished"
        for name, value in load(trained.folder, saved(trained.folder)[step]).model.items():
            assert torch.equal(weights(member)[name], value), name


def test_the_single_network_has_the_same_budget_and_one_cosine_schedule(snapshots: Run) -> None:
    single = RunFolder.open(snapshots.record.folder.child("trials/single"))
    assert single.steps().num_rows == 16
    rates = single.steps()["learning_rate"].to_pylist()
    assert rates == pytest.approx([0.05 / 2 * (np.cos(np.pi * t / 16) + 1) for t in range(16)])


def test_weights_are_chosen_on_validation_rows_and_stored_in_the_run(snapshots: Run) -> None:
    folder = snapshots.record.folder
    assert EnsembleDescription.read(folder).selection == "last"
    validation, judged = read_outputs(folder.child("trials/scores"), 2)
    assert judged is validation  # the digits have no test split
    job = from_dict(snapshots.folder.job)
    assert isinstance(job, EnsembleJob)
    chosen = choose_weights(job, validation.logits, validation.labels)
    assert list(members_of(snapshots).values()) == chosen.tolist()
    logits = Run(folder.child("members/02").uri)
    assert len(validation.labels) == 359
    found = evaluate_run(snapshots.folder, job)
    second = logits.record.folder
    assert has_model(second)
    assert found.members[1].error == pytest.approx(1 - _validation_accuracy(folder.child("trials/snapshots"), epoch=4))


def _validation_accuracy(folder: Any, epoch: int) -> float:
    table = RunFolder.open(folder).epochs().to_pylist()
    return next(row["validation_accuracy"] for row in table if row["epoch"] == epoch)


def test_the_run_predicts_and_its_page_says_who_is_better(snapshots: Run) -> None:
    images = np.zeros((2, 8, 8, 1), np.uint8)
    np.testing.assert_allclose(snapshots.predict(images).sum(axis=1), 1, rtol=1e-5)
    page = snapshots.record.folder.read("report.html").decode()
    verdict = verdict_of(snapshots)
    assert re.search(
        r"\d+\.\d+% ± \d+\.\d+ error on 359 validation rows; one network trained for as many epochs", verdict[0]
    )
    for sentence in verdict:
        assert sentence.rstrip(".").replace("'", "&#39;") in page
    assert "There is no test split" in verdict[-1]


def test_test_rows_have_no_influence_on_the_weights(tmp_path: Path) -> None:
    """With wrong labels on all test rows, the weights are the same as with the right ones."""
    from tests.unit.kinds.sets import digits_with_test

    chosen = []
    for number, shift in enumerate((0, 1)):
        data = {**BASE["data"], "source": "parquet", "path": digits_with_test(tmp_path / str(number), shift)}
        run = ensemble("snapshot", name=f"shift-{shift}", cycles=2, base={**BASE, "data": data}, combine="fitted")
        chosen.append(list(members_of(run).values()))
        outcome = run.folder.outcome()
        assert outcome is not None
        assert ((outcome.metrics["test_error"] or 0.0) > 0.9) == (shift == 1)
    assert chosen[0] == chosen[1]


# ── independent networks ────────────────────────────────────────────────────────────────────────────────────────────


def test_members_differ_in_all_randomness_but_hold_out_the_same_rows() -> None:
    run = ensemble("independent", members=2, compare=False)
    one, two = run.folder.children("members")
    assert (one.job["seed"], two.job["seed"]) == (3, 4)
    assert one.job["data"]["split_seed"] == two.job["data"]["split_seed"] == 3
    assert not torch.equal(weights(one)["head.weight"], weights(two)["head.weight"])
    for split in _splits(one), _splits(two):
        assert [ids.tolist() for ids in split] == [ids.tolist() for ids in _splits(one)]


def _splits(run: RunFolder) -> tuple[torch.Tensor, torch.Tensor]:
    from lehr.data.load import OpenedSources, splits

    job = from_dict(run.job)
    found = splits(job, OpenedSources(job).decode())  # type: ignore[arg-type]
    return found.train.ids, found.validation.ids


def test_a_member_that_fails_is_left_out_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    run = ensemble("independent", members=[{"seed": 1}, {"optimizer.lr": 1e20}, {"model.width": 16}], compare=False)
    assert run.status == "finished"
    assert members_of(run) == {"members/01": 0.5, "members/03": 0.5}
    assert "members/02 failed and is left out: the " in capsys.readouterr().out
    assert run.predict(np.zeros((1, 8, 8, 1), np.uint8)).shape == (1, 10)


def test_an_ensemble_without_members_fails_and_says_why() -> None:
    with pytest.raises(LehrError, match=r"no member finished: the .*loss became (nan|inf)"):
        ensemble("independent", members=[{"optimizer.lr": 1e20}, {"optimizer.lr": 1e21}], compare=False)


def test_finished_runs_become_members_without_training() -> None:
    for seed in (1, 2):
        lehr.run({**BASE, "name": f"run-{seed}", "seed": seed, "data": {**BASE["data"], "split_seed": 0}}, debug=True)
    run = ensemble("independent", members=["run:run-1", "run:run-2"], combine={"by": "logits"})
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    alone = [np.log(Run(f"runs/run-{seed}").predict(images)) for seed in (1, 2)]
    together = np.exp(np.mean(alone, axis=0))
    np.testing.assert_allclose(run.predict(images), together / together.sum(axis=1, keepdims=True), atol=1e-5)
    assert not run.record.folder.exists("trials/single")

    other = {"kind": "train", **BASE, "name": "other", "seed": 5}
    lehr.run(other, debug=True)
    with pytest.raises(JobError, match="members: they do not all hold out the same rows"):
        ensemble("independent", name="mixed", members=["run:run-1", "run:other"])


def test_the_best_trials_of_a_search_become_members(tmp_path: Path) -> None:
    """A search leaves run folders in `trials/`, as any job made of trials does; here they come from an ensemble."""
    parent = ensemble("independent", name="search", members=3, compare=False).folder
    shutil.rmtree(parent.folder.local_path / "trials")
    os.rename(parent.folder.local_path / "members", parent.folder.local_path / "trials")
    found = {run.name: Run(run).best["value"] for run in parent.children("trials")}
    best = sorted(found, key=lambda name: -found[name])[:2]
    run = ensemble("independent", name="top", members={"top": 2, "of": "run:search"})
    for member, name in zip(run.folder.children("members"), best, strict=True):
        source = RunFolder.open(parent.folder.child(f"trials/{name}"))
        assert torch.equal(weights(member)["head.weight"], weights(source)["head.weight"])


def test_a_job_killed_in_its_third_member_of_five_resumes_there() -> None:
    job = {"kind": "ensemble", "name": "killed", "method": "independent", "members": 5, "compare": False}
    job["base"] = {**BASE, "train": {**BASE["train"], "epochs": 30}}
    Path("job.yaml").write_text(json.dumps(job))
    words = [sys.executable, "-m", "lehr", "run", "job.yaml", "--debug"]
    first = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    third = Path("runs/killed/members/03/progress.json")
    deadline = time.monotonic() + 120
    while not (third.exists() and json.loads(third.read_text()).get("epochs_done", 0) >= 2):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    before = {
        path: path.stat().st_mtime_ns for n in (1, 2) for path in Path(f"runs/killed/members/{n:02}").rglob("*.*")
    }
    again = subprocess.run(words, capture_output=True, text=True, timeout=200, check=False)
    assert again.returncode == 0, again.stderr
    members = RunFolder.open("runs/killed").children("members")
    assert [attempts(member) for member in members] == [1, 1, 2, 1, 1]
    after = {path: path.stat().st_mtime_ns for n in (1, 2) for path in Path(f"runs/killed/members/{n:02}").rglob("*.*")}
    assert after == before
    assert all(member.epochs()["epoch"].to_pylist() == list(range(1, 31)) for member in members)


# ── averages ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_averages_are_members_along_with_the_raw_weights_of_the_same_run() -> None:
    run = ensemble("average", averages=["ema", {"kind": "swa", "start": "50%"}])
    raw, ema, swa = run.folder.children("members")[1], *(run.folder.children("members")[n] for n in (0, 2))
    assert [raw.name, ema.name, swa.name] == ["raw", "ema", "swa"]
    one, two = (RunFolder.open(run.record.folder.child(f"trials/average-{n}")) for n in (1, 2))
    assert one.steps()["loss"].to_pylist() == two.steps()["loss"].to_pylist()
    last = load(two.folder, saved(two.folder)[16])
    assert torch.equal(weights(raw)["head.weight"], last.model["head.weight"])
    assert last.average is not None
    assert torch.equal(weights(swa)["head.weight"], last.average["head.weight"])
    assert EnsembleDescription.read(run.record.folder).selection == "best"
    assert sorted(members_of(run).values()) == [0, 0, 1]
    assert "the raw weights: " in verdict_of(run)[0]


# ── mistakes ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("job", "sentence"),
    [
        ({"method": "bagging"}, 'method: "bagging" is not a method; allowed: snapshot, independent, average'),
        ({"method": "average", "cycles": 3}, "cycles belongs to method: snapshot, not to average"),
        (
            {"method": "independent", "members": 1},
            "members: 1 does not say what the members are; allowed: a number of seeds",
        ),
        ({"method": "independent", "members": ["run:nobody"]}, 'members: no run "nobody" in '),
        ({"method": "independent", "members": [{"optimizer.lrr": 1}]}, "optimizer.lrr: unknown option"),
        (
            {"method": "independent", "members": [{"seed": 1}, {"data.split_seed": 9}]},
            "members: they do not all hold out the same rows",
        ),
        ({"cycles": 2, "base": {**BASE, "schedule": "cyclic"}}, "exclude each other; allowed: one of them"),
        ({"combine": {"select": "greedy", "last": 2}}, "combine: last belongs to select: last, not to greedy"),
        ({"base": {**BASE, "model": "resnet21"}}, 'model.name: "resnet21" is not a model'),
    ],
)
def test_a_wrong_ensemble_gets_one_sentence(job: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LehrError, match=re.escape(sentence)) as caught:
        lehr.run({"kind": "ensemble", "base": BASE, **job}, debug=True)
    assert "\n" not in str(caught.value)


def test_cycles_that_do_not_fit_are_refused_before_anything_is_trained() -> None:
    job = from_dict({"kind": "ensemble", "base": BASE, "cycles": 99})
    assert isinstance(job, EnsembleJob)
    assert plan_ensemble(job).trials[0].job.schedule.cycles == 99  # type: ignore[union-attr]
    with pytest.raises(LehrError, match="99 cycles of whole steps do not fit into 16 steps"):
        lehr.run(job, debug=True)
    assert not list(Path("runs").rglob("steps"))
