"""Temporary folders are deleted with their process, and never while it may live."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from lehr.processes import Process, this_process
from lehr.runs import Folder
from lehr.runs.scratch import clear_scratch, scratch


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder that several machines and containers share."""
    folder = tmp_path / "shared"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_the_folder_of_a_killed_process_is_deleted_and_no_other(shared: Path, tmp_path: Path) -> None:
    this = this_process()
    dead, foreign = replace(this, started=1), Process("0123456789abcdef", this.pid, 1)
    others = [f"lehr-ray-{foreign}-abc", "lehr-ray-1-1-abc", "lehr-ray-", "lehr-ray-notes-of-mine", "other"]
    for name in (f"lehr-ray-{dead}-abc_1", *others):
        (shared / name).mkdir()
        (shared / name / "file").write_text("kept")
    with scratch(Folder.at(tmp_path / "run")) as ours:
        clear_scratch()
        assert Path(ours).parent == shared
        assert {path.name for path in shared.iterdir()} == {*others, Path(ours).name}
    assert {path.name for path in shared.iterdir()} == set(others)
