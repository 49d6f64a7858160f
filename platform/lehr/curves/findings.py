"""What a diagnosis is made of, and `diagnosis.json`, the file that keeps it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from lehr.curves.alternatives import CLAIMS, alternatives_of
from lehr.curves.measured import Measured
from lehr.errors import RunError
from lehr.runs import Folder

Confidence = Literal["high", "medium", "low"]

LEARNING_RATE_TOO_HIGH = "Learning rate too high"
NOT_LEARNING = "The model is not learning"


@dataclass(frozen=True)
class Finding:
    """One thing that the curves show.

    Attributes:
        name: short and stable, for programs: `diverged`, `overfitting`, `healthy`, …
        title: what it means, in a few words.
        rule: what was looked for, in words.
        evidence: what was found: which steps or epochs, which numbers. It begins in lower case, without a full stop.
        confidence: how far from the threshold the numbers are.
        advice: what to try, in a sentence.
        overrides: the same as changes to the job, dotted path to value; empty where no change to the job can help.
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
        return " ".join(as_override(path, value) for path, value in self.overrides.items())

    @property
    def summary(self) -> str:
        """Title and evidence, in one line."""
        return f"{self.title}: {self.evidence}"

    @property
    def sentence(self) -> str:
        """The evidence as a sentence."""
        return f"{self.evidence[:1].upper()}{self.evidence[1:]}."

    @property
    def rerun(self) -> str:
        """The whole command that runs the job with the overrides; empty without any."""
        return rerun_with(self.overrides)

    def to_json(self) -> dict[str, Any]:
        others = [each.to_json() for each in alternatives_of(self.name)]
        return asdict(self) | {"overrides": dict(self.overrides), "command": self.command, "alternatives": others}

    @classmethod
    def from_json(cls, value: Any) -> Finding:
        """Raises KeyError or TypeError where `value` is not a finding."""
        if not isinstance(value["overrides"], dict) or not isinstance(value["title"], str):
            raise TypeError("a finding needs a title and overrides")
        return cls(**{each.name: value[each.name] for each in fields(cls)})


@dataclass(frozen=True)
class Diagnosis:
    """What the curves of a run show, the most urgent finding first. There is always at least one.

    Attributes:
        measured: what probes found out about it; None where none were run.
    """

    run: str
    findings: tuple[Finding, ...]
    measured: Measured | None = None

    @property
    def first(self) -> Finding:
        return self.findings[0]

    @classmethod
    def read(cls, folder: Folder) -> Diagnosis | None:
        """The last diagnosis of the run in `folder`; None where there is none, or it is damaged: it can be repeated."""
        try:
            value = folder.read_json("diagnosis.json")
            findings = tuple(map(Finding.from_json, value["findings"]))
            return cls(str(value["run"]), findings) if findings else None
        except (FileNotFoundError, RunError, LookupError, TypeError):
            return None

    def write(self, folder: Folder) -> None:
        """Replaces diagnosis.json."""
        folder.write_json("diagnosis.json", self.to_json())

    def to_json(self) -> dict[str, Any]:
        findings = [finding.to_json() for finding in self.findings]
        if self.measured is None:
            return {"format": 1, "run": self.run, "findings": findings}
        for each in findings:
            each["alternatives"] = [a for a in each["alternatives"] if a["cause"] not in self.measured.ruled_out]
        return {"format": 1, "run": self.run, "findings": findings, "measured": self.measured.to_json()}


def with_measured(diagnosis: Diagnosis, measured: Measured | None) -> Diagnosis:
    """The diagnosis with what probes measured: findings whose cause they ruled out come last, and say so."""
    if measured is None:
        return diagnosis
    findings = [_told(each, measured) for each in diagnosis.findings]
    ordered = sorted(findings, key=lambda each: is_ruled_out(each, measured))
    return replace(diagnosis, findings=tuple(ordered), measured=measured)


def is_ruled_out(finding: Finding, measured: Measured) -> bool:
    """Whether probes spoke against every cause that a finding names."""
    claimed = CLAIMS.get(finding.name, ())
    return bool(claimed) and set(claimed) <= set(measured.ruled_out)


def _told(finding: Finding, measured: Measured) -> Finding:
    if not is_ruled_out(finding, measured):
        return finding
    return replace(finding, confidence="low", evidence=f"{finding.evidence}; a probe ruled out this cause")


def grade(value: float, limit: float, *, strong: float = 2.0) -> Confidence:
    """The confidence of a finding: high from `strong` times the limit on, medium from half-way there, else low."""
    ratio = value / limit if limit else strong
    return "high" if ratio >= strong else "medium" if ratio >= (1 + strong) / 2 else "low"


def rerun_with(overrides: Mapping[str, Any]) -> str:
    """The whole command that runs the job with these changes; empty without any."""
    changes = " ".join(as_override(path, value) for path, value in overrides.items())
    return f"lehr run JOB {changes}" if changes else ""


def as_override(path: str, value: Any) -> str:
    """A change of a job as it is typed after `lehr run JOB`."""
    return shlex.quote(f"{path}={as_yaml(value)}")


def as_yaml(value: Any) -> str:
    """A value as YAML on one line. JSON is YAML, and plain strings such as durations and names need no quotes."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {as_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(as_yaml(item) for item in value) + "]"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)
