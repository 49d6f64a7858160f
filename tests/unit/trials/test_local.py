"""Trials in this process: each trained once, ended early when asked, failed without ending the others."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support import tiny

from lehr.driver import Interrupted, Running
from lehr.job import to_dict
from lehr.runs import Folder, Lease, RunFolder
from lehr.screen import open_screen
from lehr.trials import Each, Outcome, Trial, run_trials


def running(tmp_path: Path) -> Running:
    folder = Folder.at(tmp_path / "parent")
    run = RunFolder.open(folder) if folder.exists("job.yaml") else RunFolder.create(folder, to_dict(tiny()))
    screen, lease = open_screen(io.StringIO()), Lease.acquire(folder)
    lease.release()
    return Running(tiny(), run, screen, tmp_path / "log.txt", True, 0.0, lease, "again")


def trial(number: int, **overrides: Any) -> Trial:
    return Trial(f"trials/{number:04}", tiny(**{"train__epochs": 2, "data__limit": 100, **overrides}))


class Remembering(Each):
    """Ends every trial after its first epoch, and remembers which epochs it saw."""

    def __init__(self, *trials: Trial) -> None:
        super().__init__(trials)
        self.seen: list[tuple[str, int]] = []

    def epoch(self, trial: Trial, row: Mapping[str, float]) -> str | None:
        self.seen.append((trial.folder, int(row["epoch"])))
        return "not better than the others"


def test_a_finished_trial_is_told_again_and_not_trained_again(tmp_path: Path) -> None:
    first = Each([trial(0), trial(1, seed=1)])
    run_trials(running(tmp_path), first)
    assert {outcome.status for outcome in first.outcomes.values()} == {"finished"}
    attempts = sorted((tmp_path / "parent").rglob("attempts/????.json"))
    again = Each(first.trials)
    run_trials(running(tmp_path), again)
    assert sorted((tmp_path / "parent").rglob("attempts/????.json")) == attempts
    assert {name: o.best for name, o in again.outcomes.items()} == {name: o.best for name, o in first.outcomes.items()}


def test_a_trial_ends_well_when_the_study_has_seen_enough(tmp_path: Path) -> None:
    study = Remembering(trial(0))
    run_trials(running(tmp_path), study)
    outcome: Outcome = study.outcomes["trials/0000"]
    assert study.seen == [("trials/0000", 1)]
    assert (outcome.status, outcome.message) == ("finished", "not better than the others")
    assert outcome.run.epochs().num_rows == 1
    assert outcome.run.folder.exists("model/model-0001.json")


def test_a_trial_that_fails_is_kept_with_its_reason_and_the_next_goes_on(tmp_path: Path) -> None:
    study = Each([trial(0, optimizer__lr=1e20), trial(1)])
    run_trials(running(tmp_path), study)
    assert [study.outcomes[t.folder].status for t in study.trials] == ["failed", "finished"]
    assert "learning rate 1e+20" in study.outcomes["trials/0000"].message


def test_more_epochs_go_on_from_where_the_trial_ended(tmp_path: Path) -> None:
    run_trials(running(tmp_path), Each([trial(0, schedule="constant")]))
    longer = Each([trial(0, schedule="constant", train__epochs=3)])
    run_trials(running(tmp_path), longer)
    assert longer.outcomes["trials/0000"].run.epochs()["epoch"].to_pylist() == [1, 2, 3]
    assert len(list((tmp_path / "parent").rglob("attempts/????.json"))) == 2


def test_asked_to_stop_everything_is_saved_and_said(tmp_path: Path) -> None:
    parent = running(tmp_path)
    parent.run.request_stop("enough")
    with pytest.raises(Interrupted, match="Resume with: again"):
        run_trials(parent, Each([trial(0)]))
