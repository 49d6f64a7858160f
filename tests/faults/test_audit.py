"""How the dependency audit reads pip-audit's answers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.audit import verdict

SAFE: dict[str, Any] = {"name": "jinja2", "version": "3.1.6", "vulns": []}
UNKNOWN: dict[str, Any] = {
    "name": "typer",
    "skip_reason": "Dependency not found on PyPI and could not be audited: typer (0.21.0)",
}
FIXED: dict[str, Any] = {
    "name": "pillow",
    "version": "11.0.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["11.3.0"]}],
}
OPEN: dict[str, Any] = {"name": "torch", "version": "2.11.0", "vulns": [{"id": "PYSEC-2", "fix_versions": []}]}


@pytest.mark.parametrize(
    ("packages", "code", "last"),
    [
        ([SAFE], 0, "Packages audited: 1. Known vulnerabilities: 0."),
        ([SAFE, FIXED], 1, "Packages audited: 2. Known vulnerabilities: 1."),
        ([SAFE, OPEN], 0, "Packages audited: 2. Known vulnerabilities: 1."),
        ([SAFE, UNKNOWN], 0, "Not audited, since the advisory service does not know them: typer."),
    ],
)
def test_a_vulnerability_that_a_newer_version_fixes_fails_the_audit(
    packages: list[dict[str, Any]], code: int, last: str
) -> None:
    got, lines = verdict(packages)
    assert (got, lines[-1]) == (code, last)


@pytest.mark.parametrize("packages", [[], [UNKNOWN]])
def test_an_audit_without_an_answer_does_not_claim_success(packages: list[dict[str, Any]]) -> None:
    _, lines = verdict(packages)
    assert lines == ["Not audited: no advisory service of pip-audit (PyPI, OSV) can be reached from this network."]


def test_each_finding_names_the_version_that_fixes_it() -> None:
    _, lines = verdict([FIXED, OPEN])
    assert lines[0] == "pillow 11.0.0: PYSEC-1, fixed in 11.3.0"
    assert lines[1] == "torch 2.11.0: PYSEC-2, no fixed version"
