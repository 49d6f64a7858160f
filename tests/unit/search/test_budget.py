"""A search's budget is a promise: nothing is trained twice, and no time is spent beyond one step and one evaluation."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tests.support import TINY, tiny

from lehr.data.load import OpenedSources, splits
from lehr.job import from_dict, to_dict
from lehr.kinds import run_job
from lehr.runs import Folder, Progress, RunFolder, read_model
from lehr.search.analysis import read_search
from lehr.search.combinations import Combinations, count_combinations
from lehr.search.preview import preview
from lehr.search.record import BestScore, read_records
from lehr.search.space import Space
from lehr.search.study import SearchStudy
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan
from lehr.training.stopping import Enough
from lehr.training.synchronisation import Synchroniser
from lehr.trials import Deadline, Outcome


def search(epochs: int = 2, **changes: Any) -> Any:
    job: dict[str, Any] = {
        "kind": "search", "name": "tiny", "base": {**TINY, "data": {"source": "digits", "limit": 200}},
        "space": {"optimizer.lr": [0.05, 0.1]}, "stopping": "none",
    }  # fmt: skip
    return from_dict({**job, **changes}, {"base.train.epochs": epochs})


@pytest.mark.parametrize("method", ["random", "quasi_random", "tpe", "grid"])
def test_two_values_are_two_trials_whatever_the_method(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = search(storage=str(tmp_path), method=method, budget=16, base={**TINY, "data": {"limit": 60}})
    run = run_job(job, debug=True)
    assert {record.values["optimizer.lr"] for record in read_records(run).values()} == {0.05, 0.1}
    assert len(run.children("trials")) == 2
    said = "all 2 combinations were tried"
    assert f"A{said[1:]}." in capsys.readouterr().out
    assert run.progress().message == f"2 trials: {said}"
    assert said in run.folder.read("report.html").decode()


@pytest.mark.parametrize("method", ["random", "quasi_random", "tpe"])
def test_a_finite_space_is_tried_once_and_to_its_end(method: str) -> None:
    space = {"optimizer.lr": {"choice": [0.1, 0.2, 0.3]}, "model.width": {"int": [8, 24], "step": 8}}
    combinations = Combinations(Space(search(method=method, space=space)))
    found = [combinations.next(number) for number in range(10)]
    assert found[-1] is None
    assert len({tuple(values.values()) for values in found if values}) == 9
    again = Combinations(Space(search(method=method, space=space)))
    for values in found[:5]:
        again.take(values or {})
    assert [again.next(number) for number in range(5, 9)] == found[5:9]  # resumed, it goes on as if undisturbed


def test_combinations_that_train_the_same_count_as_one() -> None:
    spelt = {"train.epochs": [2, 2], "schedule": ["cosine", {"name": "cosine"}, "linear"]}
    assert count_combinations(Space(search(space=spelt))) == 2
    condition = {"when": {"optimizer.name": "sgd"}}
    some = {"optimizer.name": ["sgd", "adam"], "optimizer.momentum": {"choice": [0.8, 0.9], **condition}}
    assert count_combinations(Space(search(space=some))) == 3
    assert count_combinations(Space(search(space={"optimizer.lr": {"uniform": [0.1, 1]}}))) is None


def test_draws_that_do_not_repeat_are_what_they_always_were() -> None:
    space = Space(search(space={"optimizer.lr": {"log_uniform": [1e-3, 1]}}, seed=3))
    combinations = Combinations(space)
    from lehr.search.samplers import drawn_values

    assert [combinations.next(n) for n in range(5)] == [drawn_values(space, 3, n) for n in range(5)]


def test_the_preview_shows_each_combination_once() -> None:
    lines = preview(search(budget=16))
    assert lines[0] == "2 trials of 2 epochs; the space has no more combinations"
    assert sum("optimizer.lr" in line for line in lines) == 2


def test_trials_side_by_side_do_not_repeat_each_other(tmp_path: Path) -> None:
    job = search(budget=10, space={"train.epochs": {"int": [1, 5]}})
    study = SearchStudy(job, RunFolder.create(Folder.at(tmp_path), to_dict(job)))
    asked = [study.ask() for _ in range(6)]  # five at a time, none of which has a result yet
    assert {trial.job.train.epochs for trial in asked if trial} == {1, 2, 3, 4, 5}
    assert asked[-1] is None
    assert study.ending == "all 5 combinations were tried"


# ── time ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stop_at", [1, 3, 9])
def test_a_training_that_has_had_enough_is_finished_with_its_best_epoch(
    stop_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lehr.training.synchronisation.SYNC_SECONDS", 0.0)  # asked after every step
    job = tiny(schedule="constant", train__epochs=4)
    data = splits(job, OpenedSources(job).decode())

    def run_it(name: str, epochs: int, *stops: int) -> RunFolder:
        longer = tiny(schedule="constant", train__epochs=epochs)
        folder = Folder.at(tmp_path / name)
        run = RunFolder.open(folder) if folder.exists("job.yaml") else RunFolder.create(folder, to_dict(longer))
        asked: list[int] = []

        def should_stop() -> str | None:
            asked.append(1)
            return Enough("the time is over") if len(asked) in stops else None

        assert train(Plan.make(longer, data), run, Group(), should_stop) == "finished"
        return run

    run = run_it("cut", 4, stop_at)
    ended, epochs = run.outcome(), run.epochs()
    assert ended
    assert (ended.status, ended.message) == ("finished", "the time is over")
    assert epochs.num_rows == stop_at // 6  # steps of an epoch: the one in which it ends is not evaluated
    values: list[float] = epochs["validation_accuracy"].to_pylist() if epochs.num_rows else []  # type: ignore[assignment]
    assert ended.best.value == max(values, default=None)
    assert run.folder.exists("model/model-0001.json")
    run.begin()
    rest = run_it("cut", 4)
    whole = run_it("whole", 4)
    assert rest.epochs()["validation_loss"].to_pylist() == whole.epochs()["validation_loss"].to_pylist()


@pytest.mark.parametrize(("asked", "for_good"), [(0.0, None), (1.0, False), (2.0, True)])
def test_all_workers_know_whether_a_training_stops_for_good(asked: float, for_good: bool | None) -> None:
    """As a second worker sees it: the first one alone knows the reason."""

    class Second:
        first, device = False, torch.device("cpu")

        def sum(self, tensor: torch.Tensor) -> torch.Tensor:
            return tensor + torch.tensor([0.5] * (len(tensor) - 2) + [0.1, asked], dtype=torch.float64)

    losses = torch.tensor([1.0, 2.0], dtype=torch.float64)
    summed, stop = Synchroniser(cast(Group, Second()), 0).synchronise(2, losses, None)
    assert summed == [1.5, 2.5]
    assert (stop is None) == (for_good is None)
    assert stop is None or isinstance(stop, Enough) == for_good


def study_with(seconds_spent: float, tmp_path: Path, **budget: Any) -> SearchStudy:
    job = search(budget=budget, space={"optimizer.lr": {"log_uniform": [1e-3, 1]}})
    run = RunFolder.create(Folder.at(tmp_path / "run"), to_dict(job))
    run.write_progress(Progress(seconds={"total": seconds_spent}))
    return SearchStudy(job, run)


def test_time_is_counted_over_all_attempts(tmp_path: Path) -> None:
    study = study_with(50, tmp_path, minutes=1)
    assert study.deadline
    assert 9 < study.deadline.seconds_left <= 10
    first = study.ask()
    assert first
    assert first.deadline == study.deadline
    assert study.progress().seconds["total"] >= 50


def test_a_larger_budget_of_time_goes_on_where_the_smaller_one_ended(tmp_path: Path) -> None:
    assert study_with(61, tmp_path / "small", minutes=1).ask() is None
    larger = study_with(61, tmp_path / "large", minutes=2)
    assert larger.ask()
    assert larger.deadline
    assert 58 < larger.deadline.seconds_left <= 59


def test_an_epoch_that_does_not_fit_is_not_begun(tmp_path: Path) -> None:
    study = study_with(50, tmp_path, minutes=1)
    first = study.ask()
    assert first
    study.epochs = 5
    assert (
        study.epoch(first, {"epoch": 1, "validation_accuracy": 0.5}) is None
    )  # how long it took to start says nothing
    study._last_seen[0] -= 100  # the next epoch took so long
    reason = study.epoch(first, {"epoch": 2, "validation_accuracy": 0.5})
    assert reason == "the budget of 1 minute has no room for another epoch, which takes about 1 min 40 s"
    assert reason
    study.tell(first, Outcome("finished", reason, study.run))
    assert study.ask() is None
    assert study.ending == reason


def test_a_trial_that_the_time_cuts_short_counts_with_what_it_has(tmp_path: Path) -> None:
    study = study_with(0, tmp_path, minutes=1)
    trials = [study.ask(), study.ask()]
    assert trials[0]
    assert trials[1]
    study.epoch(trials[0], {"epoch": 1, "validation_accuracy": 0.5})
    study.deadline = Deadline(time.time() - 1, "the budget of 1 minute is used up")
    for trial in trials:
        assert trial
        study.tell(trial, Outcome("finished", study.deadline.reason, study.run))
    assert study.ask() is None
    assert study.ending == "the budget of 1 minute is used up"
    assert study.ranking() == [(0, BestScore(0.5))]
    assert [record.ended.epoch for record in study.records.values() if record.ended] == [1, 0]


def test_a_search_in_time_ends_with_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that advances with every look at it: the deadline comes in the middle of the third epoch."""
    looks: list[int] = []
    monkeypatch.setattr("lehr.training.synchronisation.SYNC_SECONDS", 0.0)

    def passed(self: Deadline) -> bool:
        looks.append(1)
        return len(looks) > 14

    monkeypatch.setattr(Deadline, "passed", property(passed))
    job = search(storage=str(tmp_path), budget={"minutes": 60}, space={"optimizer.lr": {"log_uniform": [0.01, 1]}})
    run = run_job(job, debug=True)
    records = read_records(run)
    assert sum(len(record.scores) for record in records.values()) < 4
    assert run.progress().message.endswith("the budget of 60 minutes is used up")
    assert run.status() == "finished"


def test_a_trial_that_a_smaller_budget_ended_goes_on_with_a_larger_one(tmp_path: Path) -> None:
    """The same trials, the same epochs and the same weights as in a search that had the larger budget at once."""
    small = search(epochs=3, storage=str(tmp_path / "a"), budget={"epochs": 4})
    large, once = (search(epochs=3, storage=str(tmp_path / name), budget={"epochs": 12}) for name in "ab")
    before = read_records(run_job(small, debug=True))
    assert [len(record.scores) for record in before.values()] == [3, 1]
    assert before[1].ended
    assert before[1].ended.by_budget
    again, undisturbed = run_job(large, debug=True), run_job(once, debug=True)
    assert read_records(again) == read_records(undisturbed)
    assert [len(record.scores) for record in read_records(again).values()] == [3, 3]
    (ours, _), (theirs, _) = (read_model(run.children("trials")[1].folder) for run in (again, undisturbed))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_same_budget_lets_no_trial_go_on(tmp_path: Path) -> None:
    job = search(storage=str(tmp_path), budget={"epochs": 3})
    run_job(job, debug=True)
    before = sorted(tmp_path.rglob("attempts/????.json"))
    run_job(job, debug=True)
    assert sorted(tmp_path.rglob("trials/*/attempts/????.json")) == [each for each in before if "trials" in str(each)]


def test_a_search_killed_before_a_trial_went_on_lets_it_go_on(tmp_path: Path) -> None:
    run_job(search(storage=str(tmp_path), budget={"epochs": 3}), debug=True)
    larger = search(storage=str(tmp_path), budget={"epochs": 9})
    for _ in range(2):  # asked by a process that dies before the next epoch, then by another one
        study = SearchStudy(larger, RunFolder.open(Folder.at(tmp_path / "tiny")))
        assert [trial.goes_on for trial in (study.ask(), study.ask()) if trial] == [False, True]


def test_combinations_without_an_epoch_were_not_tried(tmp_path: Path) -> None:
    study = study_with(0, tmp_path, minutes=1)
    study.combinations_count = 2
    trials = [study.ask(), study.ask()]
    assert trials[0]
    study.epoch(trials[0], {"epoch": 1, "validation_accuracy": 0.5})
    study.deadline = Deadline(time.time() - 1, "the budget of 1 minute is used up")
    for trial in trials:
        assert trial
        study.tell(trial, Outcome("finished", study.deadline.reason, study.run))
    assert study.ask() is None
    assert study.ending == "1 of all 2 combinations finished no epoch: the budget of 1 minute is used up"


def test_of_trials_with_equal_scores_the_best_is_that_of_the_lower_loss(tmp_path: Path) -> None:
    """On few validation rows many trials reach the same share; before, the first of them won."""
    job = search(space={"optimizer.lr": [0.05, 0.1, 0.2]})
    run = RunFolder.create(Folder.at(tmp_path), to_dict(job))
    study = SearchStudy(job, run)
    losses: dict[int, tuple[float, ...]] = {0: (0.5, 0.4), 1: (0.3, 0.35), 2: ()}
    for number, measured in losses.items():
        trial = study.ask()
        assert trial
        for epoch in (1, 2):
            row = {"epoch": epoch, "step": epoch, "validation_accuracy": 0.9}
            study.epoch(trial, row | ({"validation_loss": measured[epoch - 1]} if measured else {}))
        RunFolder.create(run.folder.child(f"trials/{number:04}"), to_dict(trial.job))
    for each in (study, SearchStudy(job, run)):  # the second one as a resumed search reads it
        while each.ask():
            pass
        assert [number for number, _ in each.ranking()] == [1, 0, 2]
        best = each.progress().best
        assert (best.trial, best.value, best.loss) == ("trials/0001", 0.9, 0.3)
    assert [trial.number for trial in read_search(run).ranked] == [1, 0, 2]


def test_records_of_older_searches_have_no_losses_and_rank_as_before(tmp_path: Path) -> None:
    job = search(space={"optimizer.lr": [0.05, 0.1]})
    run = RunFolder.create(Folder.at(tmp_path), to_dict(job))
    for number, scores in enumerate([[0.8, 0.9], [0.9, 0.7]]):
        content = {"values": {"optimizer.lr": 0.05 * (1 + number)}, "scores": scores, "ended": {}}
        run.folder.child(f"trials/{number:04}").write_json("search.json", content)
    study = SearchStudy(job, run)
    assert [number for number, _ in study.ranking()] == [0, 1]
    assert study.progress().best.loss is None
