"""Attempts: each start of a worker group has a number, and only the parts of a record that the newest one names count.

The workers of a dead driver may write for a second or two after a new attempt began. The parts they add carry the old
number and are in no list of the new attempt, so they never count.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

from lehr.errors import RunError, StorageError
from lehr.runs.storage import Folder, to_json
from lehr.runs.timestamps import now

TABLES = ("steps", "epochs")
KINDS = (*TABLES, "events")
_ATTEMPT = re.compile(r"(\d{4,})\.json")
_PART = re.compile(r"part-(\d{4,})-(\d{6,})\.(?:parquet|jsonl)")


class CheckpointInfo(Protocol):
    """What an attempt needs to know of the checkpoint that it resumes from; a `Checkpoint` is one."""

    @property
    def name(self) -> str: ...
    @property
    def step(self) -> int: ...
    @property
    def covered(self) -> Mapping[str, Sequence[str]]: ...  # of "steps" and "epochs": the parts it covers


@dataclass(frozen=True)
class Attempt:
    """`attempts/0003.json`: one start of a worker group.

    Attributes:
        attempt: its number, from 1.
        started: UTC, ISO 8601.
        workers: processes in the group.
        resumed_from, step: name and step of the checkpoint it resumed from; None and 0 for none.
        inherits: of "steps", "epochs" and "events": the parts of earlier attempts that count.
        missing: parts that the checkpoint covers but which are gone, as "steps/part-…".
        id: random; tells two writers of one number apart.
        steps_per_epoch: None where there are no epochs, and in runs of format 1.
        total_steps: of the whole run, as this attempt was asked for; None likewise.
    """

    attempt: int
    started: str
    workers: int
    resumed_from: str | None
    step: int
    inherits: Mapping[str, Sequence[str]]
    missing: Sequence[str] = ()
    id: str = ""
    steps_per_epoch: int | None = None
    total_steps: int | None = None

    @property
    def number(self) -> int:
        """The same as `attempt`."""
        return self.attempt

    @classmethod
    def read(cls, folder: Folder, number: int) -> Attempt:
        """An attempt at the run in `folder`. Raises `RunError` where it is damaged."""
        value: Any = folder.read_json(_file(number))
        try:
            return cls(**{each.name: value[each.name] for each in fields(cls) if each.name in value})
        except (TypeError, KeyError) as error:
            raise RunError(f"{folder.uri}/{_file(number)}: is damaged: it lacks {error}") from error

    def create(self, folder: Folder) -> bool:
        """Writes the attempt's file, unless there is one of its number; returns whether it wrote."""
        return folder.create(_file(self.attempt), to_json(asdict(self)))


def begin_attempt(
    folder: Folder,
    *,
    workers: int,
    checkpoint: CheckpointInfo | None,
    steps_per_epoch: int | None = None,
    total_steps: int | None = None,
) -> Attempt:
    """Takes the next attempt number and drops the parts of the record that are later than `checkpoint`.

    Call it once per start of the worker group, while holding the lease.

    Args:
        folder: the run folder.
        workers: processes in the worker group.
        checkpoint: the one that the attempt resumes from; None starts at step 0 with an empty record.
        steps_per_epoch, total_steps: length of an epoch and of the run in optimizer steps.
    """
    covered = checkpoint.covered if checkpoint else {}
    while True:
        number = newest_number(folder) + 1
        there = {kind: folder.files(kind) for kind in KINDS}
        inherits = {kind: in_order(set(covered.get(kind, ())) & set(there[kind])) for kind in TABLES}
        inherits["events"] = in_order(name for name in there["events"] if part_attempt(name) in range(1, number))
        missing = [f"{kind}/{name}" for kind in TABLES for name in covered.get(kind, ()) if name not in there[kind]]
        attempt = Attempt(
            attempt=number,
            started=now(),
            workers=workers,
            resumed_from=checkpoint.name if checkpoint else None,
            step=checkpoint.step if checkpoint else 0,
            inherits=inherits,
            missing=missing,
            id=secrets.token_hex(8),
            steps_per_epoch=steps_per_epoch,
            total_steps=total_steps,
        )
        if attempt.create(folder):
            break
    for kind in TABLES:
        for name in set(there[kind]) - set(inherits[kind]):
            with contextlib.suppress(StorageError):  # only tidiness: the part does not count anyway
                folder.delete(f"{kind}/{name}")
    return attempt


def newest_number(folder: Folder) -> int:
    """The number of the newest attempt; 0 before the first."""
    return max(_numbers(folder), default=0)


def newest_attempt(folder: Folder) -> Attempt | None:
    """The newest attempt at the run; None before the first."""
    number = newest_number(folder)
    return Attempt.read(folder, number) if number else None


def all_attempts(folder: Folder) -> list[Attempt]:
    """Every attempt at the run, oldest first."""
    return [Attempt.read(folder, number) for number in sorted(_numbers(folder))]


def counted_parts(folder: Folder, kind: str, attempt: Attempt) -> list[str]:
    """The parts of `kind` in the record of `attempt`, oldest first: those it inherits, then its own."""
    own = [name for name in folder.files(kind) if part_attempt(name) == attempt.number]
    return in_order({*attempt.inherits.get(kind, ()), *own})


def part_attempt(name: str) -> int:
    """The attempt that wrote a part; 0 for a file that is not a part."""
    match = _PART.fullmatch(name)
    return int(match[1]) if match else 0


def in_order(names: Iterable[str]) -> list[str]:
    """Part names by attempt, then by sequence number; other names are left out."""
    found = [(int(match[1]), int(match[2]), match[0]) for match in map(_PART.fullmatch, names) if match]
    return [name for _, _, name in sorted(found)]


def _numbers(folder: Folder) -> list[int]:
    return [int(match[1]) for match in map(_ATTEMPT.fullmatch, folder.files("attempts")) if match]


def _file(number: int) -> str:
    return f"attempts/{number:04d}.json"
