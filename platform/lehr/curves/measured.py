"""What probes measured of a run: `probes.json`, kept beside its record, so that no later diagnosis asks it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from lehr.curves.alternatives import CAUSES, Cause
from lehr.errors import RunError
from lehr.runs import Folder

FILE = "probes.json"


@dataclass(frozen=True)
class Measured:
    """What the probes of a run said.

    Attributes:
        step: the last step that was recorded then. A run that went on since is another one.
        cause: the one that they named; None where they named none.
        overrides: what mends it, dotted path to value.
        ruled_out: the causes that they spoke against.
    """

    step: int
    cause: Cause | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    ruled_out: tuple[Cause, ...] = ()

    @classmethod
    def read(cls, folder: Folder, step: int) -> Measured | None:
        """What was kept of the run in `folder` as it is at `step`; None where nothing was, or it is damaged."""
        try:
            value = folder.read_json(FILE)
            cause, overrides = value["cause"], value["overrides"]
            known = tuple(cast(Cause, each) for each in value["ruled_out"] if each in CAUSES)
            if value["step"] != step or not isinstance(overrides, dict):
                return None
            return cls(step, cause if cause in CAUSES else None, overrides, known)
        except (FileNotFoundError, RunError, LookupError, TypeError):
            return None

    def write(self, folder: Folder) -> None:
        """Replaces probes.json."""
        folder.write_json(FILE, self.to_json())

    def to_json(self) -> dict[str, Any]:
        return {
            "format": 1,
            "step": self.step,
            "cause": self.cause,
            "overrides": dict(self.overrides),
            "ruled_out": list(self.ruled_out),
        }

    @property
    def sentence(self) -> str:
        """`Probes named the cause: …. Ruled out: …; ….`"""
        named = f"Probes named the cause: {CAUSES[self.cause]}." if self.cause else "Probes named no cause."
        others = "; ".join(CAUSES[each] for each in self.ruled_out)
        return f"{named} Ruled out: {others}." if others else named
