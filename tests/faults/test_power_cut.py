"""After a power cut, only what was synced is there: every announced checkpoint is, and a finished run is finished.

What a disk holds then is computed from the calls of `fsync`: of a file, its content; of a folder, the names in it. What
was deleted since a folder was last synced may be there again or not; both are tried.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lehr.job import TrainJob
from lehr.kinds import run_job
from lehr.runs import Folder, RunFolder, newest_valid, read_model
from lehr.training import loop
from tests.support import tiny


class SyncedDisk:
    """What of the files below `root` survives a power cut.

    Attributes:
        contents: of each synced file, by inode.
        names: of each synced folder, the names in it, with the inode of each file; None for a folder.
    """

    def __init__(self, root: Path, after_sync: Callable[[], None]) -> None:
        self.root, self.after_sync = root, after_sync
        self.contents: dict[int, bytes] = {}
        self.names: dict[Path, dict[str, int | None]] = {}
        self.fsync, self.lock = os.fsync, threading.Lock()

    def sync(self, descriptor: int) -> None:
        """Stands for `os.fsync`. Progress is written in a thread of its own."""
        with self.lock:
            self._sync(descriptor)

    def _sync(self, descriptor: int) -> None:
        self.fsync(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            self.names[path] = {each.name: None if each.is_dir() else each.inode() for each in os.scandir(path)}
            self.after_sync()
        elif path.is_relative_to(self.root):
            self.contents[os.fstat(descriptor).st_ino] = path.read_bytes()

    def survives(self, target: Path, *, deleted: bool) -> Path:
        """Writes what is left after a power cut to `target`.

        Args:
            deleted: whether deletions that were not synced have reached the disk.
        """
        shutil.rmtree(target, ignore_errors=True)
        self._write(self.root, target, deleted)
        return target

    def _write(self, folder: Path, target: Path, deleted: bool) -> None:
        target.mkdir(parents=True)
        for name, inode in self.names.get(folder, {}).items():
            if deleted and not (folder / name).exists():
                continue
            if inode is None:
                self._write(folder / name, target / name, deleted)
            else:
                (target / name).write_bytes(self.contents.get(inode, b""))


@pytest.fixture
def job(tmp_path: Path) -> TrainJob:
    place = tmp_path / "disk"
    place.mkdir()
    checkpoint = {"every": "3step", "keep": 1}
    return tiny(
        data__limit=200, train__epochs=3, train__checkpoint=checkpoint, storage=str(place / "a/b/runs"), name="cut"
    )


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps of all checkpoints whose `save` has returned."""
    steps: list[int] = []
    save = loop.save

    def announce(folder: Folder, checkpoint: Any, *arguments: Any) -> str:
        name = save(folder, checkpoint, *arguments)
        steps.append(checkpoint.step)
        return name

    monkeypatch.setattr(loop, "save", announce)
    return steps


def test_every_announced_checkpoint_survives_a_power_cut(
    job: TrainJob, announced: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = 0

    def cut() -> None:
        nonlocal cuts
        if not announced:
            return
        for deleted in (False, True):
            image = disk.survives(tmp_path / "image", deleted=deleted) / "a/b/runs/cut"
            found, _ = newest_valid(Folder.at(image))
            assert found is not None, f"nothing is left of step {announced[-1]}"
            assert found.step >= announced[-1]
        cuts += 1

    disk = SyncedDisk(tmp_path / "disk", cut)
    monkeypatch.setattr(os, "fsync", disk.sync)
    run_job(job, debug=True)
    assert cuts > 20
    for deleted in (False, True):
        left = RunFolder.open(disk.survives(tmp_path / "image", deleted=deleted) / "a/b/runs/cut")
        assert left.status() == "finished"
        assert left.epochs()["epoch"].to_pylist() == [1, 2, 3]
        assert left.steps()["step"].to_pylist() == list(range(len(left.steps())))
        read_model(left.folder)


def test_a_disk_that_does_not_sync_is_found_out(
    job: TrainJob, announced: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail: without the names of folders, nothing is left."""
    disk = SyncedDisk(tmp_path / "disk", lambda: None)
    monkeypatch.setattr(os, "fsync", disk.sync)
    monkeypatch.setattr("lehr.runs.stores.Disk._sync", lambda *_: None)
    run_job(job, debug=True)
    assert announced
    assert newest_valid(Folder.at(disk.survives(tmp_path / "image", deleted=False) / "a/b/runs/cut"))[0] is None
