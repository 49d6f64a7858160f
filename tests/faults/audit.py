"""Known vulnerabilities of the pinned versions: `python -m tests.faults.audit PIP_AUDIT CONSTRAINTS`.

pip-audit reports success even if no advisory service knew a single package, as behind a mirror that serves packages but
no advisories. This script then says that nothing was audited.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

SERVICES = ("pypi", "osv")


def ask(tool: str, constraints: str, service: str) -> list[dict[str, Any]]:
    """What pip-audit says about each package; empty if the service does not answer."""
    options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json", "--vulnerability-service"]
    try:
        printed = subprocess.run(
            [tool, "--requirement", constraints, *options, service], capture_output=True, text=True, timeout=300
        ).stdout
        found: list[dict[str, Any]] = json.loads(printed)["dependencies"]
        return found
    except (ValueError, subprocess.TimeoutExpired):
        return []


def verdict(packages: list[dict[str, Any]]) -> tuple[int, list[str]]:
    """Exit code and output. The code is 1 if a newer version fixes a vulnerability: then constraints.txt needs it."""
    known = [package for package in packages if "vulns" in package]
    if not known:
        return 0, ["Not audited: no advisory service of pip-audit (PyPI, OSV) can be reached from this network."]
    found = [(package, vulnerability) for package in known for vulnerability in package["vulns"]]
    lines = []
    for package, vulnerability in found:
        versions = ", ".join(vulnerability["fix_versions"])
        fix = f"fixed in {versions}" if versions else "no fixed version"
        lines.append(f"{package['name']} {package['version']}: {vulnerability['id']}, {fix}")
    lines.append(f"Packages audited: {len(known)}. Known vulnerabilities: {len(found)}.")
    if unknown := [package["name"] for package in packages if "vulns" not in package]:
        lines.append(f"Not audited, since the advisory service does not know them: {', '.join(unknown)}.")
    return int(any(vulnerability["fix_versions"] for _, vulnerability in found)), lines


if __name__ == "__main__":
    pip_audit, constraints = sys.argv[1:]
    answers = (ask(pip_audit, constraints, service) for service in SERVICES)
    code, lines = verdict(next((answer for answer in answers if any("vulns" in package for package in answer)), []))
    print("\n".join(lines))
    sys.exit(code)
