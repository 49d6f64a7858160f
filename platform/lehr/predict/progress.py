"""How far a prediction is, and whether it may continue. Nothing here is shown: see `lehr.kinds.predict`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from lehr.data.sources import Source
from lehr.predict.part_files import PartResult


@dataclass
class PredictionProgress:
    """The parts of a prediction that are done.

    Attributes:
        source: the rows to predict.
        skip_unreadable: the share of images, 0 to 1, that may be unreadable.
        parts: the numbers of the parts that are done.
        rows: the number of their rows.
        unreadable: by id, why an image could not be read.
        ready: when the first of the processes of this attempt could work, in seconds since 1970; None before.
    """

    source: Source
    skip_unreadable: float
    parts: set[int] = field(default_factory=set)
    rows: int = 0
    unreadable: dict[int, str] = field(default_factory=dict)
    ready: float | None = None

    def add(self, results: Iterable[PartResult]) -> None:
        """Counts parts that have been written; a part counts once, even if Ray had to repeat it."""
        for result in results:
            if result.number not in self.parts:
                self.parts.add(result.number)
                self.rows += result.rows
                self.unreadable |= dict(result.unreadable)
                if result.ready:
                    self.ready = min(result.ready, self.ready or result.ready)

    @property
    def missing(self) -> list[int]:
        """The numbers of the parts that are not done yet."""
        return [number for number in range(len(self.source.parts)) if number not in self.parts]

    @property
    def too_many_unreadable(self) -> str:
        """A sentence for people if more images are unreadable than allowed, else empty."""
        if len(self.unreadable) <= self.skip_unreadable * self.source.rows:
            return ""
        limit = f"more than data.skip_unreadable allows ({self.skip_unreadable:.4g} of all)"
        count = f"{len(self.unreadable)} of {self.source.rows} images are unreadable"
        return f"data: {count}, {limit}: {self.name_unreadable(5)}"

    def name_unreadable(self, most: int) -> str:
        """The names of at most `most` unreadable images, and how many more there are."""
        first = sorted(self.unreadable.items())[:most]
        more = f" and {len(self.unreadable) - most} more" if len(self.unreadable) > most else ""
        return ", ".join(f"{self.source.name_of(row)} ({why})" for row, why in first) + more
