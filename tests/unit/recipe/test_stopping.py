"""A measurement that is asked to stop leaves no result and is marked as stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support import tiny

from lehr.data.load import OpenedSources, splits
from lehr.job import to_dict
from lehr.recipe.overfit import overfit_sample
from lehr.recipe.rates import run_rate_test
from lehr.runs import Folder, RunFolder
from lehr.training.group import Group
from lehr.training.setup import Plan
from lehr.trials import TrialCallbacks
from lehr.trials.trainable import Trainable


@pytest.mark.parametrize("work", [overfit_sample, run_rate_test])
def test_a_stopped_measurement_leaves_no_result(work: Trainable, tmp_path: Path) -> None:
    job = tiny(train__batch_size=16)
    run = RunFolder.create(Folder.at(tmp_path / "run"), to_dict(job))
    asked: list[int] = []

    def should_stop() -> str | None:
        asked.append(1)
        return "enough" if len(asked) == 2 else None

    work(
        Plan.make(job, splits(job, OpenedSources(job).decode())),
        run,
        Group(),
        TrialCallbacks(should_stop, lambda row: None),
    )
    assert len(asked) == 2
    assert run.status() == "stopped"
    assert not run.folder.exists("result.json")
