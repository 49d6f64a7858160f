"""What a run tells of itself while it trains."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.unit.training.conftest import plan_of

from lehr.job import to_dict
from lehr.runs import Folder, RunFolder
from lehr.training.group import Group
from lehr.training.loop import train


def test_progress_that_was_damaged_is_whole_again_before_anybody_is_asked_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of()
    run = RunFolder.create(Folder.at(tmp_path / "run"), to_dict(plan.job), {})
    run.folder.write("progress.json", b'{"status": "running", "epochs_dnoe": 1, "updated": 1.0}')
    write = RunFolder.write_progress
    slow = [0.3] * 3

    def written(self: RunFolder, progress: object) -> None:
        time.sleep(slow.pop() if slow else 0.0)  # as storage may be
        write(self, progress)  # type: ignore[arg-type]

    monkeypatch.setattr(RunFolder, "write_progress", written)
    seen = []
    train(plan, run, Group(), lambda: seen.append(run.progress().get("epochs_done")))
    assert seen
    assert None not in seen
