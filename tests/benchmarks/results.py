"""Runs the benchmarks one after the other and collects what they print in `RESULTS.md`, with the machine's description.

    python -m tests.benchmarks.results [NAME …]

Each prints a table and a last line with its ratio. A benchmark that is run again takes the place of its old result; the
others stay as they were measured, each with its day.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil

FILE = Path(__file__).parents[2] / "RESULTS.md"

BENCHMARKS = {
    "train_overhead": "Training step, 2 workers on CPUs, against a hand-written `torchrun` DDP loop",
    "input_training": "Input while training: cached against tensors in memory, streamed against `DataLoader`",
    "input": "Input alone: cached against tensors in memory, streamed against `DataLoader`",
    "first_step": "Command to first step, against a bare `TorchTrainer` script",
    "search_overhead": "Search of short trials, against Tune with a `TorchTrainer` in each trial",
    "predict": "Prediction, against a plain PyTorch `DataLoader` loop",
    "feature_cache": "Feature caching in transfer, against recomputing a frozen backbone",
    "submit": "Submitting a job, against the bare Jobs REST call",
    "metrics_cost": "Examples per second with and without metrics",
    "recording": "What recording a step costs, and the report of a million steps",
    "memory": "Memory of driver and worker as streamed data grow",
    "help": "`lehr --help`",
    "growth": "How cost grows with workers, trials and rows",
}
"""Module here -> what it measures. Those of accuracy (diagnosis, ensembles, recipe, search_methods, transfer)
print tables of their own and take long: they are run by hand."""

HEAD = """# Measured

Each part is the output of `python -m tests.benchmarks.NAME`: both sides in one run, alternated, medians and spread. The
speed of a machine with few cores wanders from minute to minute: a ratio is worth what its spread allows.
"""


def machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    model = (
        re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        if os.path.exists("/proc/cpuinfo")
        else None
    )
    name = model[1] if model else platform.processor()
    return f"{os.cpu_count()} cores ({name}), {memory:.0f} GiB, Python {platform.python_version()}, {platform.system()}"


def section(name: str) -> str:
    """What one benchmark printed, ready to be read beside the others."""
    print(f"── {name}", flush=True)
    started = time.time()
    done = subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"], capture_output=True, text=True)
    print(done.stdout, flush=True)
    printed = done.stdout.strip() or "(nothing)"
    if done.returncode:
        printed += f"\n\nfailed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}"
    took = f"{time.strftime('%Y-%m-%d')}, {time.time() - started:.0f} s, {machine()}"
    return f"## {name}\n\n{BENCHMARKS[name]}. {took}.\n\n```\n{printed}\n```\n"


def parts(text: str) -> dict[str, str]:
    """The sections of RESULTS.md by their name."""
    return {found[1]: found[0] for found in re.finditer(r"^## (\w+)\n.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)}


def main() -> None:
    names = sys.argv[1:] or list(BENCHMARKS)
    for name in names:
        if name not in BENCHMARKS:
            sys.exit(f"{name} is not a benchmark; allowed: {', '.join(BENCHMARKS)}")
        known = parts(FILE.read_text()) if FILE.exists() else {}
        known[name] = section(name) + "\n"
        kept = [known[each].rstrip() + "\n" for each in BENCHMARKS if each in known]
        FILE.write_text("\n".join([HEAD, *kept]))


if __name__ == "__main__":
    main()
