"""What the dependency audit makes of pip-audit's answers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.audit import verdict

SOUND = {"name": "jinja2", "version": "3.1.6", "vulns": []}
UNKNOWN = {"name": "typer", "skip_reason": "Dependency not found on PyPI and could not be audited: typer (0.21.0)"}
MENDED = {"name": "pillow", "version": "11.0.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["11.3.0"]}]}
OPEN = {"name": "torch", "version": "2.11.0", "vulns": [{"id": "PYSEC-2", "fix_versions": []}]}


@pytest.mark.parametrize(
    ("packages", "code", "last"),
    [
        ([SOUND], 0, "1 packages audited, 0 known vulnerabilities."),
        ([SOUND, MENDED], 1, "2 packages audited, 1 known vulnerabilities."),
        ([SOUND, OPEN], 0, "2 packages audited, 1 known vulnerabilities."),
        ([SOUND, UNKNOWN], 0, "Unknown to the advisory service, and so not audited: typer."),
    ],
)
def test_what_can_be_mended_fails_the_audit(packages: list[dict[str, Any]], code: int, last: str) -> None:
    got, lines = verdict(packages)
    assert (got, lines[-1]) == (code, last)


@pytest.mark.parametrize("packages", [[], [UNKNOWN]])
def test_an_audit_that_nobody_answered_is_not_called_sound(packages: list[dict[str, Any]]) -> None:
    _, lines = verdict(packages)
    assert lines == ["Not audited: no advisory service that pip-audit can ask (PyPI, OSV) answers from this network."]


def test_each_finding_names_the_version_that_mends_it() -> None:
    _, lines = verdict([MENDED, OPEN])
    assert lines[0] == "pillow 11.0.0: PYSEC-1, mended in 11.3.0"
    assert lines[1] == "torch 2.11.0: PYSEC-2, no version mends it"
