"""Known vulnerabilities of the versions that are tested together: `python -m tests.faults.audit PIP_AUDIT CONSTRAINTS`.

pip-audit calls a list in good order when no advisory service knew a single package of it, as behind a mirror that
serves packages and no advisories. Here that is said as what it is: nobody was asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

SERVICES = ("pypi", "osv")


def ask(tool: str, constraints: str, service: str) -> list[dict[str, Any]]:
    """What pip-audit says of each package; nothing where the service does not answer."""
    options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json", "--vulnerability-service"]
    try:
        told = subprocess.run(
            [tool, "--requirement", constraints, *options, service], capture_output=True, text=True, timeout=300
        ).stdout
        return json.loads(told)["dependencies"]
    except (ValueError, subprocess.TimeoutExpired):
        return []


def verdict(packages: list[dict[str, Any]]) -> tuple[int, list[str]]:
    """Exit code and lines: 1 where a newer version would mend something, since then constraints.txt can be mended."""
    known = [package for package in packages if "vulns" in package]
    if not known:
        return 0, ["Not audited: no advisory service that pip-audit can ask (PyPI, OSV) answers from this network."]
    found = [(package, vulnerability) for package in known for vulnerability in package["vulns"]]
    lines = []
    for package, vulnerability in found:
        mended = ", ".join(vulnerability["fix_versions"])
        told = f"mended in {mended}" if mended else "no version mends it"
        lines.append(f"{package['name']} {package['version']}: {vulnerability['id']}, {told}")
    lines.append(f"{len(known)} packages audited, {len(found)} known vulnerabilities.")
    if unknown := [package["name"] for package in packages if "vulns" not in package]:
        lines.append(f"Unknown to the advisory service, and so not audited: {', '.join(unknown)}.")
    return int(any(vulnerability["fix_versions"] for _, vulnerability in found)), lines


if __name__ == "__main__":
    answers = (ask(*sys.argv[1:], service) for service in SERVICES)
    code, lines = verdict(next((told for told in answers if any("vulns" in package for package in told)), []))
    print("\n".join(lines))
    sys.exit(code)
