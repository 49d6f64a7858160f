"""Every write, read and sync of a job fails in turn, once and for good: the run ends undisturbed, or with a sentence.

`IO=all` tries every operation of the job (`make faults`); otherwise a few of them.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from lehr.errors import LehrError
from lehr.runs import RunFolder, newest_valid
from tests.faults.story import command
from tests.support import records, tiny, weights

JOB = tiny(data__limit=100, train__epochs=2, train__checkpoint={"keep": 1}, train__evaluated_training_rows=20)
FEW = 2
SHOWN = {"curves.png", "report.html", "diagnosis.json"}


@dataclass(frozen=True)
class Failing:
    """Makes file operations in the run folder fail: the `number`-th, or all from there on; 0 only counts them.

    Counted are reads, writes, syncs, renames, listings and deletions, as the disk does them.
    """

    number: int
    how: Literal["once", "for good"]
    count: str

    def __call__(self) -> None:
        from lehr.runs.stores import Disk

        done = 0

        def fail(path: Any) -> None:
            nonlocal done
            if "/run" not in str(path):
                return
            done += 1
            if not self.number:
                Path(self.count).write_text(str(done))
            elif done == self.number or (done > self.number and self.how == "for good"):
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        def failing(function: Callable[..., Any], where: int) -> Callable[..., Any]:
            def changed(*arguments: Any, **options: Any) -> Any:
                fail(arguments[where])
                return function(*arguments, **options)

            return changed

        for name in ("read", "list", "delete", "delete_tree", "open", "make"):
            setattr(Disk, name, failing(getattr(Disk, name), 1))
        sync = os.fsync

        def sync_or_fail(descriptor: int) -> None:
            fail(os.readlink(f"/proc/self/fd/{descriptor}"))
            sync(descriptor)

        os.replace, os.link = failing(os.replace, 1), failing(os.link, 1)
        os.fsync = sync_or_fail  # type: ignore[assignment]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, int]:
    """The run, and the number of its file operations."""
    place = tmp_path_factory.mktemp("undisturbed")
    command(JOB, place / "run", Failing(0, "once", str(place / "count")))
    return RunFolder.open(place / "run"), int((place / "count").read_text())


@pytest.mark.parametrize("how", ["once", "for good"])
def test_no_operation_that_fails_is_told_as_success(
    how: Literal["once", "for good"], undisturbed: tuple[RunFolder, int], tmp_path: Path
) -> None:
    whole, count = undisturbed
    numbers = list(range(1, count + 1))
    if os.environ.get("IO") != "all":
        numbers = sorted(random.Random(f"operations {how}").sample(numbers, FEW))
    ended = {"undisturbed": 0, "with a sentence": 0}
    for number in numbers:
        folder = tmp_path / f"run-{number}"
        try:
            command(JOB, folder, Failing(number, how, ""))
            ended["undisturbed"] += 1
            assert_whole(folder, whole, f"operation {number} failed {how}")
        except LehrError as error:
            ended["with a sentence"] += 1
            said = str(error)
            assert said, number
            assert "defect" not in said, f"operation {number}: {said}"
            assert "Input/output error" in said, f"operation {number}: {said}"
        if (folder / "checkpoints").exists() and any((folder / "checkpoints").glob("*/manifest.json")):
            assert newest_valid(RunFolder.open(folder).folder)[0] is not None
        command(JOB, folder)
        assert_whole(folder, whole, f"resumed after operation {number} failed {how}")
    print(f"{count} operations; {len(numbers)} failed {how}: {ended}")


def assert_whole(folder: Path, whole: RunFolder, when: str) -> None:
    run = RunFolder.open(folder)
    assert run.status() == "finished", when
    for one, other in zip(records(whole), records(run), strict=True):
        assert one.equals(other), when
    for name, value in weights(whole).items():
        assert value.equal(weights(run)[name]), when
    assert {path.name for path in folder.iterdir()} >= SHOWN, when
