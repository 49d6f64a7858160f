"""The accuracy of a trial is that of its best model, and a lost record is told, never taken for a bad model."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support import tiny

from lehr.errors import RunError
from lehr.job import to_dict
from lehr.runs import BestValue, Folder, Progress, Recorder, RunFolder
from lehr.transfer.results import accuracy_of


def trial(folder: Path, best: BestValue) -> RunFolder:
    run = RunFolder.create(Folder.at(folder), to_dict(tiny()))
    recorder = Recorder(run.folder, run.begin_attempt(workers=1))
    recorder.write_epochs({"epoch": [1, 2], "step": [4, 8], "validation_accuracy": [0.5, 0.75]})
    run.write_progress(Progress("finished", "all epochs done", best))
    return run


@pytest.mark.parametrize("metric", ["validation_accuracy", "validation_loss"])
def test_it_is_the_accuracy_of_the_best_epoch(metric: str, tmp_path: Path) -> None:
    value = 0.5 if metric == "validation_accuracy" else 0.1
    assert accuracy_of(trial(tmp_path / "run", BestValue(metric, value, epoch=1, step=4))) == 0.5


def test_a_lost_record_costs_nothing_where_accuracy_chose_the_model_and_is_told_elsewhere(tmp_path: Path) -> None:
    by_accuracy = trial(tmp_path / "a", BestValue("validation_accuracy", 0.75, epoch=2, step=8))
    by_loss = trial(tmp_path / "b", BestValue("validation_loss", 0.1, epoch=2, step=8))
    for run in (by_accuracy, by_loss):
        run.folder.child("epochs").delete_all()
    assert accuracy_of(by_accuracy) == 0.75
    with pytest.raises(RunError, match=r"the record of epoch 2, which has the accuracy of its best model, is gone"):
        accuracy_of(by_loss)
