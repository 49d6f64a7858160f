"""What a probe found, what it means for each cause, and which cause all of them together name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lehr.curves.alternatives import CAUSES, QUESTIONS, Cause, ProbeName
from lehr.curves.findings import rerun_with

NAMED = 0.5
"""Evidence from which on a cause is named. That of several probes adds up."""


@dataclass(frozen=True)
class Evidence:
    """What a probe's result means for one cause.

    Attributes:
        weight: above 0 it speaks for the cause, the more the clearer; below 0 against it.
        overrides: the change to the job that mends it, dotted path to value.
    """

    cause: Cause
    weight: float
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ProbeResult:
    """What a probe measured.

    Attributes:
        measured: a sentence with the figures; or why the probe was left out.
        evidence: for and against causes; none where it was left out, or cannot tell.
        epochs: passes over the training rows that it cost. seconds: likewise.
    """

    name: ProbeName
    measured: str
    evidence: tuple[Evidence, ...] = ()
    epochs: float = 0.0
    seconds: float = 0.0
    left_out: bool = False

    @property
    def question(self) -> str:
        return QUESTIONS[self.name]

    @property
    def rules_out(self) -> list[Cause]:
        return [each.cause for each in self.evidence if each.weight < 0]

    def to_json(self) -> dict[str, Any]:
        return {"question": self.question, **asdict(self)}


@dataclass(frozen=True)
class Diagnosed:
    """The cause that probes name; None where they name none.

    Attributes:
        why: what was measured that speaks for it, a sentence each. overrides: what mends it.
        ruled_out: the causes that they speak against.
        untold: those that were in question and about which they say nothing.
    """

    cause: Cause | None
    why: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    ruled_out: tuple[Cause, ...] = ()
    untold: tuple[Cause, ...] = ()

    @property
    def sentence(self) -> str:
        """The answer as a sentence, without the last full stop."""
        if self.cause:
            return f"The cause: {CAUSES[self.cause]}"
        return "The probes name no cause"

    @property
    def rerun(self) -> str:
        """The whole command that runs the job with what mends it; empty where no change of the job does."""
        return rerun_with(self.overrides)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "sentence": self.sentence, "command": self.rerun}


def conclude(results: Sequence[ProbeResult], asked: Sequence[Cause]) -> Diagnosed:
    """The cause with the most evidence, if that is enough; of equals, the one that stands first in the table.

    Args:
        asked: the causes in question.
    """
    weights: dict[Cause, float] = defaultdict(float)
    for each in (evidence for result in results for evidence in result.evidence):
        weights[each.cause] += each.weight
    order = [cause for cause in CAUSES if cause in weights]
    ruled_out = tuple(cause for cause in order if weights[cause] < 0)
    untold = tuple(cause for cause in CAUSES if cause in asked and cause not in weights)
    best = max(order, key=lambda cause: weights[cause], default=None)
    if best is None or weights[best] < NAMED:
        return Diagnosed(None, ruled_out=ruled_out, untold=untold)
    speaking = [(result, each) for result in results for each in result.evidence if each.cause == best]
    return Diagnosed(
        cause=best,
        why=tuple(dict.fromkeys(result.measured for result, each in speaking if each.weight > 0)),
        overrides=next((each.overrides for _, each in speaking if each.overrides), {}),
        ruled_out=ruled_out,
        untold=untold,
    )
