"""Attempts: each start of a worker group has its own number, and only what the newest one names counts.

The workers of a dead driver may write for a second or two after a new attempt began. What they add carries the old
number and is in no list of the new attempt, so it never counts.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

from lehr.errors import RunError, StorageError

from lehr.runs.timestamps import now
from lehr.runs.storage import Folder, to_json

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
    def covered(self) -> Mapping[str, Sequence[str]]: ...  # "steps" and "epochs": the record parts it covers


@dataclass(frozen=True)
class Attempt:
    """One start of a worker group, as `attempts/0003.json` holds it."""

    attempt: int
    started: str  # UTC, ISO 8601
    workers: int
    resumed_from: str | None  # a checkpoint's name
    step: int  # of that checkpoint, else 0
    inherits: Mapping[str, Sequence[str]]  # "steps", "epochs", "events": the earlier parts that count
    missing: Sequence[str] = ()  # parts that the checkpoint covers but that are gone, as "steps/part-…"
    id: str = ""  # random; tells two writers of the same number apart
    steps_per_epoch: int | None = None  # None in runs of format 1, and for what has no epochs
    total_steps: int | None = None  # of the whole run, as this attempt was asked for

    @property
    def number(self) -> int:
        return self.attempt


def begin_attempt(
    folder: Folder,
    *,
    workers: int,
    checkpoint: CheckpointInfo | None,
    steps_per_epoch: int | None = None,
    total_steps: int | None = None,
) -> Attempt:
    """Take the next attempt number and drop the record parts later than `checkpoint`.

    Args:
        folder: the run folder.
        workers: processes in the worker group.
        checkpoint: the one the attempt resumes from; None starts from step 0 with an empty record.
        steps_per_epoch, total_steps: how long the run is in optimizer steps.

    Call it once per start of the worker group, while holding the lease, and hand the `Attempt` to the workers.
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
        if folder.create(f"attempts/{number:04d}.json", to_json(asdict(attempt))):
            break
    for kind in TABLES:
        for name in set(there[kind]) - set(inherits[kind]):
            with contextlib.suppress(StorageError):  # only tidiness: it does not count already
                folder.delete(f"{kind}/{name}")
    return attempt


def newest_number(folder: Folder) -> int:
    """The number of the newest attempt; 0 before the first."""
    return max(_numbers(folder), default=0)


def newest_attempt(folder: Folder) -> Attempt | None:
    number = newest_number(folder)
    return _read(folder, number) if number else None


def all_attempts(folder: Folder) -> list[Attempt]:
    """Every attempt at the run, oldest first."""
    return [_read(folder, number) for number in sorted(_numbers(folder))]


def counted_parts(folder: Folder, kind: str, attempt: Attempt) -> list[str]:
    """The parts of `kind` that make up the record of `attempt`, oldest first: inherited, then its own."""
    own = [name for name in folder.files(kind) if part_attempt(name) == attempt.number]
    return in_order({*attempt.inherits.get(kind, ()), *own})


def part_attempt(name: str) -> int:
    """The attempt that wrote a part; 0 for a file that is no part."""
    match = _PART.fullmatch(name)
    return int(match[1]) if match else 0


def in_order(names: Iterable[str]) -> list[str]:
    """Part names by attempt, then sequence; what is no part is left out."""
    found = [(int(match[1]), int(match[2]), match[0]) for match in map(_PART.fullmatch, names) if match]
    return [name for _, _, name in sorted(found)]


def _numbers(folder: Folder) -> list[int]:
    return [int(match[1]) for match in map(_ATTEMPT.fullmatch, folder.files("attempts")) if match]


def _read(folder: Folder, number: int) -> Attempt:
    name = f"attempts/{number:04d}.json"
    value: Any = folder.read_json(name)
    try:
        return Attempt(**{each.name: value[each.name] for each in fields(Attempt) if each.name in value})
    except (TypeError, KeyError) as error:
        raise RunError(f"{folder.uri}/{name}: is damaged: it lacks {error}") from error
