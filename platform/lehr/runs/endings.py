"""What processes leave in a run folder about the end of an attempt: a stop request, a failure, lost workers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TypeVar

from lehr.errors import RunError
from lehr.runs.storage import Folder, to_sealed_json
from lehr.runs.tolerant import tolerant

T = TypeVar("T")


@dataclass(frozen=True)
class StopRequest:
    """`stop.json`: somebody asked the writer to save a checkpoint and stop.

    Attributes:
        reason: a word or a sentence.
        requested: UTC, ISO 8601.
    """

    reason: str = ""
    requested: str = ""

    @classmethod
    def read(cls, folder: Folder) -> StopRequest | None:
        """The request in a run folder; None if there is none.

        Whatever stands in the file, it is a request: `touch stop.json` is enough. Its reason is then the file's name.
        """
        try:
            found = _read(cls, folder, "stop.json")
        except RunError:
            found = cls()
        return replace(found, reason=found.reason or "stop.json") if found else None

    def write(self, folder: Folder) -> None:
        """Replaces stop.json."""
        folder.write_json("stop.json", asdict(self))


@dataclass(frozen=True)
class Failure:
    """`failure.json`: why a run failed, for a reason that another attempt would meet again.

    Attributes:
        sentence: for the screen.
        trace: for the log; the traceback of the error.
        exit_code: what the command line returns.
        owner: of the lease under which it happened; empty where there was none.
    """

    sentence: str = ""
    trace: str = ""
    exit_code: int = 1
    owner: str = ""

    @classmethod
    def read(cls, folder: Folder) -> Failure | None:
        """The failure in a run folder; None if there is none. Raises `RunError` for a file that is not JSON."""
        return _read(cls, folder, "failure.json")

    def create(self, folder: Folder) -> None:
        """Writes failure.json, unless there is one of this owner: the first worker that fails says why."""
        content = to_sealed_json(asdict(self))
        if not folder.create("failure.json", content):
            there = Failure.read(folder)
            if there is None or there.owner != self.owner:
                folder.write("failure.json", content)


@dataclass(frozen=True)
class LostWorkers:
    """`lost.json`: why workers ended before their time; the next attempt makes an event of it."""

    sentence: str = ""

    @classmethod
    def read(cls, folder: Folder) -> LostWorkers | None:
        """What is known of a loss; None if there was none. Raises `RunError` for a file that is not JSON."""
        return _read(cls, folder, "lost.json")

    def write(self, folder: Folder) -> None:
        """Replaces lost.json."""
        folder.write_json("lost.json", asdict(self))


def _read(kind: type[T], folder: Folder, name: str) -> T | None:
    try:
        value = folder.read_json(name)
    except FileNotFoundError:
        return None
    if not isinstance(value, dict):
        raise RunError(f"{folder.uri}/{name}: is damaged: it is not a mapping")
    return tolerant(kind, value)
