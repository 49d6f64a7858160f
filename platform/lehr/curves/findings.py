"""What a diagnosis is made of."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Confidence = Literal["high", "medium", "low"]


@dataclass(frozen=True)
class Finding:
    """One thing that the curves show.

    Attributes:
        name: short and stable, for programs: `diverged`, `overfitting`, `healthy`, …
        title: what it means, in a few words.
        rule: what was looked for, with the thresholds' names in words.
        evidence: what was found: which steps or epochs, which numbers.
        confidence: how far from the threshold the numbers are.
        advice: what to try, in a sentence.
        overrides: the same as changes to the job, dotted path to value; empty where no job file can help.
        good: whether nothing is wrong.
    """

    name: str
    title: str
    rule: str
    evidence: str
    confidence: Confidence
    advice: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    good: bool = False

    @property
    def command(self) -> str:
        """The overrides as they are typed after `lehr run JOB`."""
        return " ".join(shlex.quote(f"{path}={as_yaml(value)}") for path, value in self.overrides.items())

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"overrides": dict(self.overrides), "command": self.command}


@dataclass(frozen=True)
class Diagnosis:
    """What the curves of a run show, first what to fix first. There is always at least one finding."""

    run: str
    findings: tuple[Finding, ...]

    @property
    def first(self) -> Finding:
        return self.findings[0]

    def to_dict(self) -> dict[str, Any]:
        return {"format": 1, "run": self.run, "findings": [finding.to_dict() for finding in self.findings]}


def grade(value: float, limit: float, *, strong: float = 2.0) -> Confidence:
    """high from `strong` times the limit on, medium from half-way there, low just beyond the limit."""
    ratio = value / limit if limit else strong
    return "high" if ratio >= strong else "medium" if ratio >= (1 + strong) / 2 else "low"


def as_yaml(value: Any) -> str:
    """A value as YAML on one line; JSON is YAML, and durations and names read best bare."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {as_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(as_yaml(item) for item in value) + "]"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)
