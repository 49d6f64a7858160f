"""Attempts: each start of a run's workers has a number, and only what the newest one counts is its record.

The number fences: it is claimed by compare-and-set for the holder of the lease, and everything that a writer leaves has
its own number in its name. A writer that slept while another one took over finds a newer attempt before it writes, and
what it had under way then lands under a number that nobody reads.

An attempt claims its number first and chooses its checkpoint afterwards: what it chooses from, nobody saves or prunes.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import NamedTuple, Protocol

from lehr.errors import RunDeleted, RunError, StorageError, Superseded
from lehr.runs.storage import Folder, to_sealed_json
from lehr.runs.timestamps import now
from lehr.runs.tolerant import tolerant

TABLES = ("steps", "epochs")
KINDS = (*TABLES, "events")
_CLAIM = ("attempt", "started", "workers", "id", "owner")  # what is known of an attempt when it claims its number
_ATTEMPT = re.compile(r"(\d{4,})(?:-start|-outcome)?\.json")
_PART = re.compile(r"part-(\d{4,})-(\d{6,})(?:-(\d{6,}))?\.(?:parquet|jsonl)")

Extent = Mapping[str, int]
"""How many parts there are of each attempt: the highest sequence number, by the attempt's number as text."""


class Right(Protocol):
    """The right of one driver to have a run written; `lehr.runs.claim.Claim` is one."""

    @property
    def owner(self) -> str: ...
    def check(self) -> None: ...  # raises `Superseded` once another driver has it


class CheckpointInfo(Protocol):
    """What an attempt needs to know of the checkpoint that it resumes from; a `Checkpoint` is one."""

    @property
    def name(self) -> str: ...
    @property
    def step(self) -> int: ...
    @property
    def covered(self) -> Mapping[str, Extent]: ...  # of "steps" and "epochs": the parts it covers


@dataclass(frozen=True)
class Attempt:
    """`attempts/0003.json`: one start of a run's workers, or of the driver of a job without workers of its own.

    `attempts/0003-start.json` says what it starts with; all fields but the first five are from there.

    Attributes:
        attempt: its number, from 1.
        started: UTC, ISO 8601.
        workers: processes in the group.
        id: random; tells two writers of one number apart.
        owner: of the lease under which it began; empty where there was none.
        resumed_from, step: name and step of the checkpoint it resumed from; None and 0 for none.
        inherits: of "steps", "epochs" and "events": how many parts of earlier attempts count.
        missing: parts that the checkpoint covers but which are damaged or gone, as "steps/part-…".
        steps_per_epoch: None where there are no epochs, and in runs of format 1.
        total_steps: of the whole run, as this attempt was asked for; None likewise.
        open: what it starts with is not known: it has not chosen yet, or died before, or its file is damaged.
    """

    attempt: int
    started: str = ""
    workers: int = 0
    id: str = ""
    owner: str = ""
    resumed_from: str | None = None
    step: int = 0
    inherits: Mapping[str, Extent] = field(default_factory=dict)
    missing: Sequence[str] = ()
    steps_per_epoch: int | None = None
    total_steps: int | None = None
    open: bool = False

    @property
    def number(self) -> int:
        """The same as `attempt`."""
        return self.attempt

    @classmethod
    def read(cls, folder: Folder, number: int) -> Attempt:
        """An attempt at the run in `folder`; nothing but the number is known of one whose files are damaged or gone."""
        value = _read(folder, _file(number), number)
        # Formats 1 to 3 have all of it in one file.
        start = value if isinstance(value.get("step"), int) else _read(folder, _start_file(number), number)
        known = {key: part for key, part in (start | value).items() if key != "step"}
        if not isinstance(start.get("step"), int):
            return replace(tolerant(cls, known | {"attempt": number}), open=True)
        inherits = start.get("inherits")
        counts = {kind: extent(parts) for kind, parts in inherits.items()} if isinstance(inherits, dict) else {}
        known |= {"attempt": number, "step": start["step"], "inherits": counts}
        return replace(tolerant(cls, known), open=False)

    def claim(self, folder: Folder) -> bool:
        """Writes the attempt's file, unless there is one of its number; returns whether it wrote."""
        content = {name: getattr(self, name) for name in _CLAIM}
        return folder.claim(_file(self.attempt), to_sealed_json(content))

    def start(self, folder: Folder) -> bool:
        """Writes what the attempt starts with, unless that is written; returns whether it wrote."""
        content = {
            name: value for name, value in asdict(self).items() if name not in ("started", "workers", "owner", "open")
        }
        return folder.claim(_start_file(self.attempt), to_sealed_json(content))

    def check(self, folder: Folder) -> None:
        """Raises `Superseded` if a newer attempt at the run has begun, `RunDeleted` if this one is gone."""
        if (newest := newest_number(folder)) < self.attempt:
            raise RunDeleted(f"{folder.uri}: was deleted while it was being written; this job stops")
        if newest > self.attempt:
            raise Superseded(f"{folder.uri}: attempt {newest} has replaced attempt {self.attempt}, which stops")


class Part(NamedTuple):
    """A part of a record, by its name: its attempt, and the first and last of the parts that it holds."""

    attempt: int
    first: int
    last: int
    name: str


def begin_attempt(
    folder: Folder,
    *,
    workers: int,
    checkpoint: CheckpointInfo | None,
    steps_per_epoch: int | None = None,
    total_steps: int | None = None,
    claim: Right | None = None,
) -> Attempt:
    """Claims the next attempt number and starts the attempt, for a checkpoint that nobody else may save or prune."""
    claimed = claim_attempt(folder, workers=workers, claim=claim)
    return start_attempt(
        folder, claimed, checkpoint=checkpoint, steps_per_epoch=steps_per_epoch, total_steps=total_steps
    )


def claim_attempt(folder: Folder, *, workers: int, claim: Right | None = None) -> Attempt:
    """Takes the next attempt number: from now on no older attempt may write.

    Call it once per start of the worker group, while the driver holds the lease.

    Args:
        folder: the run folder.
        workers: processes in the worker group.
        claim: of the driver; None where nobody else can write the run.

    Returns:
        The attempt, open until `start_attempt` says what it starts with.

    Raises:
        Superseded: the lease is another driver's.
    """
    while True:
        # A damaged disk may have lost an attempt's file: its parts still tell of it.
        known = [part.attempt for kind in KINDS for part in parts_of(folder, kind)]
        number = max([newest_number(folder), *known]) + 1
        if claim:  # after the number is drawn: whoever took the lease since then may have claimed the number
            claim.check()
        owner = claim.owner if claim else ""
        attempt = Attempt(number, now(), workers, secrets.token_hex(8), owner, open=True)
        if attempt.claim(folder):
            break
    for earlier in all_attempts(folder):
        if earlier.open and earlier.number < number:  # should it only sleep, it cannot start any more
            folder.claim(_start_file(earlier.number), to_sealed_json({"attempt": earlier.number, "step": None}))
    return attempt


def start_attempt(
    folder: Folder,
    claimed: Attempt,
    *,
    checkpoint: CheckpointInfo | None,
    steps_per_epoch: int | None = None,
    total_steps: int | None = None,
) -> Attempt:
    """Starts an attempt and drops the parts of the record that are later than `checkpoint`.

    Args:
        folder: the run folder.
        claimed: by `claim_attempt`.
        checkpoint: the one that the attempt resumes from, chosen after the claim; None starts at step 0 with an empty
            record.
        steps_per_epoch, total_steps: length of an epoch and of the run in optimizer steps.

    Raises:
        Superseded: a newer attempt has begun.
    """
    covered = checkpoint.covered if checkpoint else {}
    parts = {kind: _intact(folder, kind, covered.get(kind, {})) for kind in TABLES}
    attempt = replace(
        claimed,
        resumed_from=checkpoint.name if checkpoint else None,
        step=checkpoint.step if checkpoint else 0,
        inherits={
            **{kind: dict(covered.get(kind, {})) for kind in TABLES},
            "events": extent(part.name for part in parts_of(folder, "events")),
        },
        missing=[f"{kind}/{name}" for kind in TABLES for name in _missing(covered.get(kind, {}), parts[kind])],
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        open=False,
    )
    attempt.check(folder)
    if not attempt.start(folder):
        attempt.check(folder)
        raise RunError(f"{folder.uri}/{_start_file(attempt.number)}: another process has written this file")
    for kind in TABLES:
        intact = set(parts[kind])
        for part in parts_of(folder, kind):
            late = part.first > covered.get(kind, {}).get(str(part.attempt), 0)
            if part.attempt < attempt.number and (late or part not in intact):
                with contextlib.suppress(StorageError):  # only tidiness: the part does not count anyway
                    folder.delete(f"{kind}/{part.name}")
    return attempt


def newest_number(folder: Folder) -> int:
    """The number of the newest attempt; 0 before the first."""
    return max(_numbers(folder), default=0)


def newest_attempt(folder: Folder, recorded: Collection[int] = ()) -> Attempt | None:
    """The newest attempt that has started, or that is among those which `recorded` something; None before the first."""
    for number in sorted(_numbers(folder), reverse=True):
        attempt = Attempt.read(folder, number)
        if number in recorded or not attempt.open:
            return attempt
    return None


def all_attempts(folder: Folder) -> list[Attempt]:
    """Every attempt at the run, oldest first."""
    return [Attempt.read(folder, number) for number in sorted(_numbers(folder)) if number]


def parts_of(folder: Folder, kind: str) -> list[Part]:
    """The parts of `kind`, by attempt and sequence number. A part that is merged into another one is left out."""
    found = [match for match in map(_PART.fullmatch, folder.files(kind)) if match]
    parts = [Part(int(match[1]), int(match[2]), int(match[3] or match[2]), match[0]) for match in found]
    merged = [part for part in parts if part.last > part.first]

    def is_merged(part: Part) -> bool:
        return any(
            other.attempt == part.attempt and other.first <= part.first and part.last <= other.last and other != part
            for other in merged
        )

    return sorted(part for part in parts if not is_merged(part))


def part_name(attempt: int, first: int, last: int, suffix: str) -> str:
    """The name of a part; `first` and `last` differ for one into which several were merged."""
    numbers = f"{first:06d}" if first == last else f"{first:06d}-{last:06d}"
    return f"part-{attempt:04d}-{numbers}.{suffix}"


def extent(names: Iterable[str] | Mapping[str, int]) -> dict[str, int]:
    """How many parts there are of each attempt, of a list of their names (as format 2 had it) or as JSON has it."""
    if isinstance(names, Mapping):
        return {key: value for key, value in names.items() if key.isdecimal() and isinstance(value, int)}
    found: dict[str, int] = {}
    for match in filter(None, map(_PART.fullmatch, names)):
        number = str(int(match[1]))
        found[number] = max(found.get(number, 0), int(match[3] or match[2]))
    return found


def _intact(folder: Folder, kind: str, covered: Extent) -> list[Part]:
    """The parts of a table; of those that are covered, only the ones that can be read."""
    from lehr.runs.tables import from_parquet

    def is_readable(part: Part) -> bool:
        if part.first > covered.get(str(part.attempt), 0):
            return True
        try:
            return bool(from_parquet(folder.read(f"{kind}/{part.name}")))
        except (FileNotFoundError, ValueError):
            return False

    return [part for part in parts_of(folder, kind) if is_readable(part)]


def _missing(covered: Extent, parts: Sequence[Part]) -> list[str]:
    """The names of the parts that are covered but gone."""
    there = {(part.attempt, number) for part in parts for number in range(part.first, part.last + 1)}
    wanted = ((int(attempt), number) for attempt, last in covered.items() for number in range(1, last + 1))
    return [
        part_name(attempt, number, number, "parquet") for attempt, number in wanted if (attempt, number) not in there
    ]


def _numbers(folder: Folder) -> set[int]:
    return {int(match[1]) for match in map(_ATTEMPT.fullmatch, folder.files("attempts")) if match}


def _read(folder: Folder, name: str, number: int) -> dict[str, object]:
    """The content of one of an attempt's files; empty where it is damaged or gone."""
    try:
        value = folder.read_json(name)
    except (FileNotFoundError, RunError):
        return {}
    return value if isinstance(value, dict) and value.get("attempt") == number else {}


def _file(number: int) -> str:
    return f"attempts/{number:04d}.json"


def _start_file(number: int) -> str:
    return f"attempts/{number:04d}-start.json"
