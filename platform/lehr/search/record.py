"""What a search keeps of each trial in the trial's own run folder, as `search.json`: what a resumed search reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lehr.runs import RunFolder
from lehr.search.space import Values


@dataclass(frozen=True)
class Record:
    """One trial as the search knows it.

    Attributes:
        number: from 0.
        values: of the searched fields, those that apply.
        scores: the metric after each epoch, as it was measured.
        ended: the epoch after which the search ended it, and why; empty where it did not.
    """

    number: int
    values: Values
    scores: tuple[float, ...] = ()
    ended: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        return folder_of(self.number)

    def with_score(self, epoch: int, score: float) -> Record:
        """After one more epoch (from 1); an epoch that is trained again takes the place of what it was."""
        return replace(self, scores=(*self.scores[: epoch - 1], score))

    def write(self, parent: RunFolder) -> None:
        kept = {"values": self.values, "scores": list(self.scores), "ended": dict(self.ended)}
        parent.folder.child(*self.folder.split("/")).write_json("search.json", kept)


def folder_of(number: int) -> str:
    """`trials/0007`."""
    return f"trials/{number:04}"


def read_records(parent: RunFolder) -> dict[int, Record]:
    """All trials of a search so far, by number."""
    found = {}
    place = parent.folder.child("trials")
    for name in sorted(place.folders()):
        if name.isdecimal() and place.exists(f"{name}/search.json"):
            kept = place.read_json(f"{name}/search.json")
            found[int(name)] = Record(int(name), kept["values"], tuple(kept["scores"]), kept["ended"])
    return found
