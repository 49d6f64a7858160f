"""A whole search at tiny scale in this process: it ends, goes on, and says what it found."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support import TINY
from typer.testing import CliRunner

from lehr.cli.main import app
from lehr.driver import Interrupted
from lehr.errors import LehrError
from lehr.job import from_dict, load
from lehr.kinds import run_job
from lehr.monitoring.metrics import Observation, samples
from lehr.runs import RunFolder
from lehr.search.analysis import edges, importance, read_search
from lehr.search.record import read_records

ROOT = Path(__file__).parents[3]
SPACE: dict[str, Any] = {
    "optimizer.lr": {"log_uniform": [1e-3, 1]},
    "schedule": {"choice": ["cosine", "constant", {"name": "step", "every": "30%"}]},
}


def search(**changes: Any) -> Any:
    """A tiny search; `budget=None` leaves a section out, `base__train__epochs=1` changes a field."""
    job: dict[str, Any] = {
        "kind": "search", "name": "tiny", "base": {**TINY, "data": {"source": "digits", "limit": 200}},
        "space": SPACE, "budget": 6, "stopping": {"name": "asha", "first": 1, "factor": 2},
    }  # fmt: skip
    whole = {name: value for name, value in changes.items() if "__" not in name}
    job = {name: value for name, value in (job | whole).items() if value is not None}
    return from_dict(job, {path.replace("__", "."): value for path, value in changes.items() if "__" in path})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_job(search(storage=str(tmp_path_factory.mktemp("runs"))), debug=True)


def test_every_trial_is_a_run_with_its_own_values_and_the_full_planned_length(done: RunFolder) -> None:
    jobs = [child.job for child in done.children("trials")]
    assert len(jobs) == len({job["optimizer"]["lr"] for job in jobs}) == 6
    assert {job["train"]["epochs"] for job in jobs} == {4}


def test_trials_that_fall_behind_end_early_and_keep_the_checkpoint_of_their_rung(done: RunFolder) -> None:
    ended = {number: record for number, record in read_records(done).items() if record.ended}
    assert ended
    for record in ended.values():
        child = RunFolder.open(done.folder.child(*record.folder.split("/")))
        assert child.epochs().num_rows == len(record.scores) == record.ended["epoch"] < 4
        assert child.progress()["message"] == record.ended["reason"]
        assert f"step-{child.progress()['step']:010}" in child.folder.child("checkpoints").folders()


def test_the_parent_tells_the_best_and_the_cost(done: RunFolder) -> None:
    told, records = done.progress(), read_records(done)
    scores = {number: max(record.scores) for number, record in records.items()}
    assert told["status"] == "finished"
    assert told["best"]["value"] == max(scores.values())
    assert told["epochs_spent"] == sum(len(record.scores) for record in records.values())
    early = [record for record in records.values() if record.ended]
    assert told["epochs_saved"] == sum(4 - len(record.scores) for record in early)
    assert told["rungs"][0] == {"epoch": 1, "reached": 6, "stopped": sum(len(r.scores) == 1 for r in early)}
    exported = {sample.metric.name for sample in samples(Observation(done.typed_progress()))}
    assert exported >= {"lehr_best", "lehr_children", "lehr_rung_reached", "lehr_rung_stopped", "lehr_epochs_saved"}
    assert len(told["table"]["rows"][0]) == len(told["table"]["columns"])


def test_a_finished_search_trains_nothing_again(done: RunFolder) -> None:
    before = sorted(done.folder.local_path.rglob("attempts/*.json"))
    run_job(search(storage=str(done.folder.local_path.parent)), debug=True)
    assert sorted(done.folder.local_path.rglob("attempts/*.json")) == before


def test_stopped_and_resumed_is_the_same_search(
    done: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lehr.search.study import Search

    epoch, seen = Search.epoch, []

    def stop_in_the_middle(self: Search, trial: Any, row: Any) -> Any:
        seen.append(trial.folder)
        if len(seen) == 7:
            self.run.request_stop("test")
        return epoch(self, trial, row)

    monkeypatch.setattr(Search, "epoch", stop_in_the_middle)
    with pytest.raises(Interrupted):
        run_job(search(storage=str(tmp_path)), debug=True)
    again = run_job(search(storage=str(tmp_path)), debug=True)
    assert read_records(again) == read_records(done)
    assert {c.name: c.progress()["best"] for c in again.children("trials")} == {
        c.name: c.progress()["best"] for c in done.children("trials")
    }


def test_a_trial_that_fails_is_told_and_the_search_goes_on(tmp_path: Path) -> None:
    space = {"optimizer.lr": [0.05, 1e20]}
    run = run_job(search(storage=str(tmp_path), space=space, method="grid", budget=None), debug=True)
    assert run.progress()["children"] == {"finished": 1, "failed": 1}
    assert [result.state for result in read_search(run).results] == ["finished", "failed"]
    assert "1 trial failed" in run.folder.read("report.html").decode()


def test_a_search_of_which_every_trial_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(LehrError, match=r"none of 1 trials finished an epoch; most often: the loss became nan"):
        run_job(search(storage=str(tmp_path), space={"optimizer.lr": [1e20]}, method="grid", budget=None), debug=True)


def test_the_epochs_of_the_budget_end_the_search(tmp_path: Path) -> None:
    run = run_job(search(storage=str(tmp_path), budget={"epochs": 6}, stopping="none"), debug=True)
    assert run.progress()["epochs_spent"] == 6
    assert len(run.children("trials")) == 2


def test_a_larger_budget_goes_on_with_the_trials_that_there_are(tmp_path: Path) -> None:
    short = {"storage": str(tmp_path), "base__train__epochs": 2, "base__train__batch_size": 16, "stopping": "none"}
    before = read_records(run_job(search(**short, budget=2), debug=True))
    run = run_job(search(**short, budget=4), debug=True)
    assert {number: read_records(run)[number] for number in before} == before
    assert len(read_records(run)) == 4
    assert len(list(run.folder.local_path.rglob("attempts/*.json"))) == 4


def test_tpe_runs_and_goes_on_with_the_values_it_had(tmp_path: Path) -> None:
    job = search(storage=str(tmp_path), method="tpe", budget=12, base__train__epochs=1, base__data__limit=60)
    run = run_job(job, debug=True)
    assert len({record.values["optimizer.lr"] for record in read_records(run).values()}) == 12


def test_the_report_holds_every_picture_and_asks_the_network_for_nothing(done: RunFolder) -> None:
    page = done.folder.read("report.html").decode()
    for heading in (
        "What each value gave",
        "Schedules compared",
        "All values at once",
        "What it cost",
        "How many values",
    ):
        assert heading in page
    assert "Schedules of different shapes were compared before their end" in page
    without_scripts = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r"(?:src|href)\s*=\s*[\"']?(?!data:)[^\s\"'>]+", without_scripts)


def test_importance_names_the_rate_where_it_alone_decides(done: RunFolder) -> None:
    found = read_search(done)
    shares = importance(found)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert set(shares) == set(SPACE)


def test_a_best_value_at_the_edge_is_told_with_a_wider_space(tmp_path: Path) -> None:
    space = {"optimizer.lr": [1e-4, 1e-3, 1e-2]}  # digits want more
    run = run_job(search(storage=str(tmp_path), space=space, method="grid", budget=None, stopping="none"), debug=True)
    (edge,) = edges(read_search(run))
    assert (edge.side, edge.value) == ("high", 1e-2)
    assert edge.paste == "optimizer.lr: {grid: [0.0001, 0.001, 0.01, 0.1]}"


def test_lehr_best_writes_a_job_that_is_the_winning_trial(done: RunFolder, tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["best", str(done.folder.local_path), "best.yaml"])
    assert said.exit_code == 0, said.output
    trial = RunFolder.open(done.folder.child(*done.progress()["best"]["trial"].split("/")))
    job = load("best.yaml")
    where = ("name", "storage")
    assert {k: v for k, v in job.model_dump(mode="json").items() if k not in where} == {
        k: v for k, v in trial.job.items() if k not in where
    }


@pytest.mark.parametrize("name", ["search-grid", "search-random-asha"])
def test_the_templates_run(name: str, tmp_path: Path) -> None:
    small = ["base.data.limit=100", "base.train.epochs=2", "base.workers=auto", f"storage={tmp_path}"]
    job = load(ROOT / f"jobs/{name}.yaml", small)
    run = run_job(job, debug=True)
    assert run.status() == "finished"
    assert yaml.safe_load(run.folder.read("job.yaml"))["kind"] == "search"


def test_a_preview_says_trials_rungs_epochs_and_time() -> None:
    said = CliRunner().invoke(app, ["search", str(ROOT / "jobs/search-random-asha.yaml"), "--preview"])
    assert said.exit_code == 0, said.output
    assert "24 trials of 25 epochs" in said.output
    assert "Rungs: epoch 3, epoch 9" in said.output
    assert "Epochs: 163 to 600" in said.output
    assert "Time: " in said.output
    assert not Path("runs").exists()
