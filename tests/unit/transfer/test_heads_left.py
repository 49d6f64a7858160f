"""How long the heads on features still take, as their trial tells it while they train."""

from __future__ import annotations

from pathlib import Path

import pytest

from lehr.runs import Folder, RunFolder
from lehr.transfer.head_trainable import RECENT_SECONDS, _teller


def test_the_heads_are_told_by_their_recent_speed_without_the_first_step(tmp_path: Path) -> None:
    """A first step of 5 s told 100 steps of 0.5 s as 500 s, and a trial that ended beside them went unnoticed."""
    run, now = RunFolder.create(Folder.at(tmp_path / "run"), {"kind": "train"}), [100.0]
    tell = _teller(run, lambda: now[0])
    assert run.progress().seconds_left is None
    tell(0.0)
    now[0] += 5.0
    for step in range(1, 41):
        tell(step / 100)
        now[0] += 0.5
        if step > 6:
            assert run.progress().seconds_left == pytest.approx(0.5 * (100 - step), abs=1.5)
    for step in range(41, 100):  # twice as fast from here on
        tell(step / 100)
        now[0] += 0.25
        if step > 41 + RECENT_SECONDS / 0.25 + 4:
            assert run.progress().seconds_left == pytest.approx(0.25 * (100 - step), abs=1.5)
