"""The table that `make faults` prints at the end, from its log: `python -m tests.faults.table faults.jsonl`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from tests.faults.accidents import PHASES


def table(lines: list[str]) -> str:
    """Markdown: how often each thing was broken in each phase, and how many steps were repeated."""
    stories = [json.loads(line) for line in lines]
    faults = [fault for story in stories for fault in story["faults"]]
    counts = Counter((fault["what"], fault["phase"]) for fault in faults)
    whats = list(dict.fromkeys(fault["what"] for fault in faults if fault["phase"] in PHASES))
    rows = [f"| what happened to a process | {' | '.join(PHASES)} | all |", "|---|" + "--:|" * (len(PHASES) + 1)]
    for what in sorted(whats, key=lambda what: -sum(counts[what, phase] for phase in PHASES)):
        each = [counts[what, phase] for phase in PHASES]
        rows.append(f"| {what} | {' | '.join(str(n) if n else '' for n in each)} | {sum(each)} |")
    damaged = sum(fault["phase"] not in PHASES for fault in faults)
    together = sum(fault["at_once"] > 1 for fault in faults)
    repeated = [steps for story in stories for steps in story["repeated"]]
    rows += [
        "",
        f"{len(stories)} runs, {len(faults)} faults, {together} of them two at a time; {damaged} files damaged between "
        f"two attempts. Repeated steps: {sum(repeated) / max(len(repeated), 1):.1f} on average, "
        f"{max(repeated, default=0)} at most.",
    ]
    return "\n".join(rows)


if __name__ == "__main__":
    print(table(Path(sys.argv[1]).read_text().splitlines()))
