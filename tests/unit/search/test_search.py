"""A whole search at tiny scale in this process: it ends early what falls behind, resumes, and reports what it found."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support import TINY
from typer.testing import CliRunner

from lehr.cli.main import app
from lehr.data.survey import survey
from lehr.driver import Interrupted
from lehr.errors import LehrError, RunError
from lehr.job import from_dict, load, to_dict
from lehr.job.search import SearchJob
from lehr.kinds import report_of, run_job
from lehr.monitoring.metrics import Observation, samples
from lehr.runs import BestValue, DataSurvey, Folder, Overview, RunFolder, Survey, saved
from lehr.runs.progress import Rung
from lehr.search.analysis import edges, importance, read_search
from lehr.search.preview import preview
from lehr.search.record import EarlyEnd, TrialRecord, read_records
from lehr.search.study import SearchStudy
from lehr.search.winner import winning_job
from lehr.trials import Outcome

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


def overview_of(run: RunFolder) -> Overview:
    found = run.progress().overview
    assert found
    return found


def bests(run: RunFolder) -> dict[str, BestValue]:
    """The best value of every trial, by name."""
    return {child.name: outcome.best for child in run.children("trials") if (outcome := child.outcome())}


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
        assert record.ended
        child = RunFolder.open(done.folder.child(record.folder))
        assert child.epochs().num_rows == len(record.scores) == record.ended.epoch < 4
        outcome, training = child.outcome(), child.progress().training
        assert outcome
        assert training
        assert outcome.message == record.ended.reason
        assert training.step in saved(child.folder)


def test_the_progress_of_a_search_holds_the_best_trial_and_the_cost(done: RunFolder) -> None:
    progress, records = done.progress(), read_records(done)
    overview = overview_of(done)
    scores = {number: max(record.scores) for number, record in records.items()}
    assert progress.status == "finished"
    assert progress.best.value == max(scores.values())
    assert overview.epochs_spent == sum(len(record.scores) for record in records.values())
    early = [record for record in records.values() if record.ended]
    assert overview.epochs_saved == sum(4 - len(record.scores) for record in early)
    assert overview.rungs[0] == Rung(epoch=1, reached=6, stopped=sum(len(r.scores) == 1 for r in early))
    exported = {sample.metric.name for sample in samples(Observation(progress))}
    assert exported >= {"lehr_best", "lehr_children", "lehr_rung_reached", "lehr_rung_stopped", "lehr_epochs_saved"}
    assert len(overview.table.rows[0]) == len(overview.table.columns)


def test_a_finished_search_trains_nothing_again(done: RunFolder) -> None:
    before = sorted(done.folder.local_path.rglob("attempts/????.json"))
    run_job(search(storage=str(done.folder.local_path.parent)), debug=True)
    assert sorted(done.folder.local_path.rglob("attempts/????.json")) == before


def test_stopped_and_resumed_is_the_same_search(
    done: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch, seen = SearchStudy.epoch, []

    def stop_in_the_middle(self: SearchStudy, trial: Any, row: Any) -> Any:
        seen.append(trial.folder)
        if len(seen) == 7:
            self.run.request_stop("test")
        return epoch(self, trial, row)

    monkeypatch.setattr(SearchStudy, "epoch", stop_in_the_middle)
    with pytest.raises(Interrupted):
        run_job(search(storage=str(tmp_path)), debug=True)
    again = run_job(search(storage=str(tmp_path)), debug=True)
    assert read_records(again) == read_records(done)
    assert bests(again) == bests(done)


def test_a_trial_that_fails_is_reported_and_the_search_continues(tmp_path: Path) -> None:
    space = {"optimizer.lr": [0.05, 1e20]}
    run = run_job(search(storage=str(tmp_path), space=space, method="grid", budget=None), debug=True)
    assert overview_of(run).children == {"finished": 1, "failed": 1}
    assert [trial.state for trial in read_search(run).trials] == ["finished", "failed"]
    assert "1 trial failed" in run.folder.read("report.html").decode()


def test_a_search_whose_trials_all_fail_says_why(tmp_path: Path) -> None:
    with pytest.raises(LehrError, match=r"the trial finished no epoch; the most frequent reason: the loss became nan"):
        run_job(search(storage=str(tmp_path), space={"optimizer.lr": [1e20]}, method="grid", budget=None), debug=True)


def test_the_epochs_of_the_budget_end_the_search(tmp_path: Path) -> None:
    run = run_job(search(storage=str(tmp_path), budget={"epochs": 6}, stopping="none"), debug=True)
    assert overview_of(run).epochs_spent == 6
    assert len(run.children("trials")) == 2


def test_trials_side_by_side_spend_no_more_epochs_than_the_budget_has(tmp_path: Path) -> None:
    job = search(storage=str(tmp_path), budget={"epochs": 10}, stopping="none")
    study = SearchStudy(job, RunFolder.create(Folder.at(tmp_path / "run"), to_dict(job)))
    live = [trial for _ in range(4) if (trial := study.ask())]
    spent, epochs = 0, dict.fromkeys([trial.folder for trial in live], 0)
    while live:  # four trials at a time, which end their epochs one after the other
        for trial in list(live):
            epochs[trial.folder] += 1
            spent += 1
            row = {"epoch": epochs[trial.folder], "validation_accuracy": 0.5}
            if study.epoch(trial, row) or epochs[trial.folder] == 4:
                live.remove(trial)
                study.tell(trial, Outcome("finished", "", RunFolder.open(study.run.folder)))
                if another := study.ask():
                    live.append(another)
                    epochs[another.folder] = 0
    assert spent == study.epochs_spent == 10


@pytest.mark.parametrize("epochs", [1, 2, 3])
@pytest.mark.parametrize("schedule", ["constant", "linear", {"name": "cosine", "warmup": "1step"}])
def test_the_preview_of_a_short_search_times_steps_of_the_run(epochs: int, schedule: Any) -> None:
    job = search(base__train__epochs=epochs, base__schedule=schedule, base__train__batch_size=200)
    assert any(line.startswith("Time: ") for line in preview(job))


def test_a_larger_budget_keeps_the_trials_of_the_smaller_one(tmp_path: Path) -> None:
    short = {"storage": str(tmp_path), "base__train__epochs": 2, "base__train__batch_size": 16, "stopping": "none"}
    before = read_records(run_job(search(**short, budget=2), debug=True))
    run = run_job(search(**short, budget=4), debug=True)
    assert {number: read_records(run)[number] for number in before} == before
    assert len(read_records(run)) == 4
    assert len(list(run.folder.local_path.rglob("trials/*/attempts/????.json"))) == 4


def test_tpe_gives_every_trial_values_of_its_own(tmp_path: Path) -> None:
    job = search(storage=str(tmp_path), method="tpe", budget=12, base__train__epochs=1, base__data__limit=60)
    run = run_job(job, debug=True)
    assert len({record.values["optimizer.lr"] for record in read_records(run).values()}) == 12


def test_the_report_holds_every_chart_and_loads_nothing_from_the_network(done: RunFolder) -> None:
    page = done.folder.read("report.html").decode()
    for heading in (
        "Best value of every trial, by field",
        "Schedules compared",
        "All fields at once",
        "Cost",
        "How many different values were tried",
    ):
        assert heading in page
    assert "Schedules of different shapes were compared before the end of their trials" in page
    without_scripts = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r"(?:src|href)\s*=\s*[\"']?(?!data:)[^\s\"'>]+", without_scripts)


def test_importances_of_all_fields_add_up_to_one(done: RunFolder) -> None:
    found = read_search(done)
    shares = importance(found)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert set(shares) == set(SPACE)


def test_a_best_value_at_the_edge_is_reported_with_a_wider_range(tmp_path: Path) -> None:
    space = {"optimizer.lr": [1e-4, 1e-3, 1e-2]}  # digits want more
    run = run_job(search(storage=str(tmp_path), space=space, method="grid", budget=None, stopping="none"), debug=True)
    (edge,) = edges(read_search(run))
    assert (edge.side, edge.value) == ("upper", 1e-2)
    assert edge.paste == "optimizer.lr: {grid: [0.0001, 0.001, 0.01, 0.1]}"


def test_lehr_best_writes_the_job_of_the_best_trial(done: RunFolder, tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["best", str(done.folder.local_path), "best.yaml"])
    assert said.exit_code == 0, said.output
    outcome = done.outcome()
    assert outcome
    assert outcome.best.trial
    trial = RunFolder.open(done.folder.child(outcome.best.trial))
    job = load("best.yaml")
    where = ("name", "storage")
    assert {k: v for k, v in job.model_dump(mode="json").items() if k not in where} == {
        k: v for k, v in trial.job.items() if k not in where
    }


@pytest.mark.parametrize("ended", [None, EarlyEnd(2, "seen enough")])
def test_a_record_is_read_back_as_it_was_written(ended: EarlyEnd | None, tmp_path: Path) -> None:
    search = RunFolder(Folder.at(tmp_path))
    record = TrialRecord(7, {"optimizer.lr": 0.1, "schedule": {"name": "step", "every": "30%"}}, (0.5, 0.75), ended)
    record.write(search)
    assert TrialRecord.read(search, 7) == read_records(search)[7] == record


def test_a_damaged_record_says_so(tmp_path: Path) -> None:
    search = RunFolder(Folder.at(tmp_path))
    search.folder.child("trials/0000").write_json("search.json", {"values": {}, "scores": "many", "ended": {}})
    with pytest.raises(RunError, match=r"trials/0000/search.json is damaged; start over with --fresh"):
        TrialRecord.read(search, 0)


def test_nothing_is_reported_before_a_trial_has_finished_an_epoch(tmp_path: Path) -> None:
    run = RunFolder.create(Folder.at(tmp_path / "tiny"), to_dict(search()))
    for read in (report_of, winning_job):
        with pytest.raises(RunError, match="no trial that has finished an epoch yet"):
            read(run)


@pytest.mark.parametrize("name", ["search-grid", "search-random-asha"])
def test_the_templates_run(name: str, tmp_path: Path) -> None:
    small = ["base.data.limit=100", "base.train.epochs=2", "base.workers=auto", f"storage={tmp_path}"]
    job = load(ROOT / f"jobs/{name}.yaml", small)
    run = run_job(job, debug=True)
    assert run.status() == "finished"
    assert yaml.safe_load(run.folder.read("job.yaml"))["kind"] == "search"


@pytest.mark.parametrize("name", ["search-grid", "search-random-asha"])
def test_no_template_makes_the_mistake_that_its_report_would_warn_of(name: str) -> None:
    job = load(ROOT / f"jobs/{name}.yaml")
    assert isinstance(job, SearchJob)
    assert job.stopping.name == "none" or not {"schedule", "schedule.name"} & set(job.space)


def test_a_preview_shows_trials_rungs_epochs_and_time() -> None:
    said = CliRunner().invoke(app, ["search", str(ROOT / "jobs/search-random-asha.yaml"), "--preview"])
    assert said.exit_code == 0, said.output
    assert "24 trials of 25 epochs" in said.output
    assert "Rungs: epoch 3, epoch 9" in said.output
    assert "Epochs: 163 to 600" in said.output
    assert "Time: " in said.output
    assert not Path("runs").exists()


def test_the_rows_of_a_search_are_surveyed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def counted(*arguments: Any) -> DataSurvey:
        looked.append(1)
        return survey(*arguments)

    monkeypatch.setattr("lehr.training.loop.survey", counted)
    job = search(storage=str(tmp_path), budget=3, stopping="none", base__train__epochs=1)
    surveys = [Survey.read(child.folder) for child in run_job(job, debug=True).children("trials")]
    assert len(looked) == 1
    assert len({each.data for each in surveys}) == 1
    assert all(each.data.train.rows and each.network.parameters for each in surveys)


def test_other_rows_are_surveyed_again(tmp_path: Path) -> None:
    job = search(storage=str(tmp_path), method="grid", budget=None, space={"data.limit": [60, 80]}, stopping="none",
                 base__train__epochs=1)  # fmt: skip
    rows = [Survey.read(child.folder).data.train.rows for child in run_job(job, debug=True).children("trials")]
    assert rows == [60, 80]
