"""What a run records of itself while it trains."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from tests.support import tiny, train_here
from tests.unit.training.conftest import plan_of

from lehr.job import to_dict
from lehr.runs import Folder, Progress, RunFolder, TrainingProgress
from lehr.training.group import Group
from lehr.training.loop import train


def test_damaged_progress_is_replaced_before_training_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of()
    run = RunFolder.create(Folder.at(tmp_path / "run"), to_dict(plan.job))
    run.folder.write("progress.json", b'{"status": "running", "epochs_dnoe": 1, "updated": 1.0}')
    write = RunFolder.write_progress
    slow = [0.3] * 3

    def written(self: RunFolder, progress: Progress) -> None:
        time.sleep(slow.pop() if slow else 0.0)  # as storage may be
        write(self, progress)

    def should_stop() -> None:
        seen.append(run.progress().training)

    monkeypatch.setattr(RunFolder, "write_progress", written)
    seen: list[TrainingProgress | None] = []
    train(plan, run, Group(), should_stop)
    assert seen
    assert None not in seen


def test_every_figure_of_examples_per_second_is_of_the_same_time(tmp_path: Path) -> None:
    """Of epochs, of the whole attempt and of the last steps: examples over the time of their steps, nothing else."""
    run = train_here(tiny(train__epochs=3), tmp_path / "run")
    steps, epochs = run.steps().to_pylist(), run.epochs().to_pylist()

    def speed(rows: list[Any]) -> float:
        return float(sum(row["examples"] for row in rows) / sum(row["seconds"] for row in rows))

    per_epoch = [speed(steps[first : first + 6]) for first in (0, 6, 12)]  # 330 rows in batches of 64
    assert [row["examples_per_second"] for row in epochs] == pytest.approx(per_epoch)
    training = run.progress().training
    assert training
    assert training.examples_per_second == pytest.approx(speed(steps))
