"""What `lehr check` found: one frozen type that travels from the cluster to the client in the job's log.

The check runs on the cluster, and its client may reach nothing there but Ray's Jobs API: not the run storage, and Ray
gives a running job no other way to answer than its log. So the result is one line of the log: a mark, a token, and the
result as JSON. The token is random and was sent along with the request. Whatever else the log holds, such as the user's
own `print("warning: …")`, is not a finding, since it does not know the token.

    lehr-check-result 9f86d081884c7d65 {"findings": [{"level": "refused", …}], "seconds": 2.1}
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

_MARK = "lehr-check-result"

Level = Literal["refused", "warning"]


@dataclass(frozen=True)
class Finding:
    """What is wrong, why it matters, what to do. A job that is `refused` would fail; one with a `warning` would not."""

    level: Level
    what: str
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.level}: {self.what}; {self.why}; {self.remedy}"


@dataclass(frozen=True)
class CheckResult:
    """What the check of a cluster found for a job.

    Attributes:
        findings: those that would make the job fail first.
        seconds: how long the check took on the cluster.
    """

    findings: tuple[Finding, ...] = ()
    seconds: float = 0.0

    @property
    def is_refused(self) -> bool:
        """Whether the job would fail on the cluster."""
        return any(finding.level == "refused" for finding in self.findings)

    def lines(self) -> list[str]:
        """For people: a line for each finding, and one that sums up."""
        count = len(self.findings)
        summary = "no problems found" if not count else f"{count} finding{'' if count == 1 else 's'}"
        return [*map(str, self.findings), f"Checked in {self.seconds:.1f} s: {summary}."]

    def write(self, token: str) -> str:
        """The line of the log that holds the result."""
        return f"{_MARK} {token} {json.dumps(asdict(self))}"

    @classmethod
    def read(cls, log: str, token: str) -> CheckResult | None:
        """The result in a job's log; None where there is none with this token, or only part of it was written yet."""
        for line in log.splitlines():
            if not is_result(line, token):
                continue
            try:
                parsed: Any = json.loads(line.partition(f"{token} ")[2])
                return cls(tuple(_finding(each) for each in parsed["findings"]), float(parsed["seconds"]))
            except (ValueError, KeyError, TypeError):
                continue
        return None


def is_result(line: str, token: str) -> bool:
    """Whether a line of a log holds a check result, which is for the client and not for people."""
    return bool(token) and line.startswith(f"{_MARK} {token} ")


def _finding(parsed: Any) -> Finding:
    if parsed["level"] not in get_args(Level):
        raise ValueError("no such level")
    return Finding(parsed["level"], str(parsed["what"]), str(parsed["why"]), str(parsed["remedy"]))
