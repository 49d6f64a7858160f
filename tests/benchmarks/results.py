"""Runs the benchmarks one after the other and collects what they print in `RESULTS.md`, with the machine's description.

    python -m tests.benchmarks.results [NAME …]
    python -m tests.benchmarks.results --table     # runs nothing: only the table anew

Each prints a table and a last line with its ratio. A benchmark that is run again takes the place of its old result; the
others stay as they were measured, each with its day. What stands under `NOTES` is written by hand and stays as it is.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

FILE = Path(__file__).parents[2] / "RESULTS.md"

BENCHMARKS = {
    "train_overhead": "Training step, 2 workers on CPUs, against a hand-written `torchrun` DDP loop",
    "gpu_step": "Training step on one GPU, ResNet-50 in bf16, against a hand-tuned loop",
    "input_training": "Input while training: cached against tensors in memory, streamed against `DataLoader`",
    "input": "Input alone: cached against tensors in memory, streamed against `DataLoader`",
    "first_step": "Command to first step, against a bare `TorchTrainer` script",
    "outside_compute": "Share of wall time outside compute, 20 epochs of CIFAR-10",
    "search_overhead": "Search of short trials, against Tune with a `TorchTrainer` in each trial",
    "feature_cache": "Feature caching in transfer, against recomputing a frozen backbone",
    "predict": "Prediction, against a plain PyTorch `DataLoader` loop",
    "memory": "Memory of driver and worker as streamed data grow",
    "recording": "What recording a step costs, and the report of a million steps",
    "help": "`lehr --help`",
    "cifar10_fast": "`jobs/cifar10-fast.yaml` on one GPU: time and accuracy over seeds",
    "growth": "How cost grows with workers, trials and rows",
    "submit": "Submitting a job, against the bare Jobs REST call",
    "metrics_cost": "Examples per second with and without metrics",
}
"""Module here -> what it measures. Those of accuracy (diagnosis, ensembles, recipe, search_methods, transfer)
print tables of their own and take long: they are run by hand."""

ON_GPU = ("gpu_step", "cifar10_fast")


@dataclass(frozen=True)
class Row:
    """A line of the table: what users wait for, and where its figure stands in what a benchmark printed.

    Attributes:
        figure: a regular expression with the figure as its group; of several that are found the worst counts.
        limit: what is expected of it: `at_most` or, else, at least; None: nothing in figures.
    """

    what: str
    against: str
    expected: str
    benchmark: str
    figure: str
    limit: float | None
    at_most: bool = False

    def read(self, printed: str) -> float | None:
        """The figure, if the benchmark came as far as that."""
        found = [float(value.replace(",", "")) for value in re.findall(self.figure, printed, re.MULTILINE)]
        return (max if self.at_most else min)(found, default=None)

    def met(self, figure: float) -> str:
        if self.limit is None:
            return "–"
        return "yes" if (figure <= self.limit if self.at_most else figure >= self.limit) else "**no**"


def ratio(first: str) -> str:
    """The last line of `alternating.compare`, whose first side is named so."""
    return rf"^ratio {re.escape(first)} / .*?: ([\d.]+) \("


CACHED, STREAMED = ratio("lehr, cached"), ratio("lehr, streamed")
WITHOUT_UPLOAD = r"^without the upload, .*?: ([\d.]+) x"
COMMAND = r"sending a job by a command\n(?:.*\n)*?ratio lehr / bare REST: ([\d.]+)"
ROWS = (
    Row("steady training step, 2 workers, CPU", "`torchrun` DDP", "≥ 0.98", "train_overhead", ratio("lehr"), 0.98),
    Row("the same on one GPU, ResNet-50, bf16", "a hand-tuned loop", "≥ 0.98", "gpu_step", ratio("lehr"), 0.98),
    Row("input in training, small images cached", "tensors in memory", "≥ 0.90", "input_training", CACHED, 0.90),
    Row("input in training, JPEG streamed", "best `DataLoader`", "≥ 1.0", "input_training", STREAMED, 1.0),
    Row("command to first step", "bare `TorchTrainer`", "≤ 1.2", "first_step", ratio("lehr"), 1.2, at_most=True),
    Row(
        "wall time outside compute, CIFAR-10", "–", "≤ 5 %", "outside_compute", r"outside compute: ([\d.]+) %", 5, True
    ),
    Row(
        "trials per minute, 64 short trials",
        "a `TorchTrainer` per trial",
        "≥ 5 x",
        "search_overhead",
        r"([\d.]+) x as many trials",
        5,
    ),
    Row(
        "wall time of a search of longer trials",
        "the ideal",
        "≤ 1.25 x",
        "search_overhead",
        r": ([\d.]+) x the ideal",
        1.25,
        True,
    ),
    Row("feature caching in transfer", "recomputing", "≥ 10 x", "feature_cache", r"^cached features: (\d+) times", 10),
    Row("prediction over 50,000 images", "a `DataLoader` loop", "≥ 1.0", "predict", ratio("lehr predict"), 1.0),
    Row(
        "memory at 100 x the data, streamed",
        "1 x the data",
        "about 1",
        "memory",
        r"100 times the data / the data: ([\d.]+)",
        1.2,
        True,
    ),
    Row("cost of recording a step, µs", "–", "≤ 20", "recording", r"^recording a step: ([\d.]+)", 20, True),
    Row("report of a million steps, s", "–", "≤ 3", "recording", r"^report of .*?: ([\d.]+) s", 3, True),
    Row("sending a job from Python", "the REST call", "≤ 1.5, + upload", "submit", WITHOUT_UPLOAD, 1.5, True),
    Row("`lehr submit`", "a script with the REST call", "≤ 1.5, + upload", "submit", COMMAND, 1.5, True),
    Row("`lehr --help`, s", "–", "≤ 0.3", "help", r"^lehr --help +([\d.]+)", 0.3, True),
    Row(
        "CIFAR-10 to 94 % on one GPU, s",
        "airbench94_muon: 2.59 s (A100)",
        "as near as can be",
        "cifar10_fast",
        r"^seconds to 94 %: ([\d.]+)",
        None,
        True,
    ),
)

HEAD = """# Measured

Both sides of a row ran in the same minutes, alternated; figures are ratios of medians unless they name a unit. The
speed of a machine with few cores wanders from minute to minute: a ratio is worth what its spread, printed below,
allows. `make bench` measures everything anew, `python -m tests.benchmarks.results NAME` one part.
"""
NOTES = "# What changes were expected to give, and gave"


def table(sections: dict[str, str]) -> str:
    """The rows with their figures, from what the benchmarks printed."""
    lines = ["| what | against | expected | measured | met | day |", "|---|---|---|---|---|---|"]
    for row in ROWS:
        printed = sections.get(row.benchmark, "")
        day = re.search(r"\d{4}-\d\d-\d\d", printed)
        figure = row.read(printed)
        if figure is not None:
            told, met = f"{figure:.3g}", row.met(figure)
        elif "\nfailed: " in printed:
            told, met = "failed: see below", "**no**"
        elif printed:
            told, met = "not reached: see below", "**no**"
        else:
            need = "needs a CUDA GPU; run: " if row.benchmark in ON_GPU else "run: "
            told, met = f"{need}`python -m tests.benchmarks.{row.benchmark}`", "–"
        lines.append(f"| {row.what} | {row.against} | {row.expected} | {told} | {met} | {day[0] if day else ''} |")
    return "\n".join(lines) + "\n"


def machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    model = (
        re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        if os.path.exists("/proc/cpuinfo")
        else None
    )
    name = model[1] if model else platform.processor()
    python = f"Python {platform.python_version()}, torch {importlib.metadata.version('torch')}"
    return f"{os.cpu_count()} cores ({name}), {memory:.0f} GiB, {python}, {platform.system()}"


def section(name: str) -> str:
    """What one benchmark printed, ready to be read beside the others."""
    print(f"── {name}", flush=True)
    started = time.time()
    done = subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"], capture_output=True, text=True)
    print(done.stdout, flush=True)
    # Each round is seen while it runs; the file keeps their medians and spread.
    printed = re.sub(r"^  round \d+: .*\n", "", done.stdout, flags=re.MULTILINE).strip("\n") or "(nothing)"
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or [str(done.returncode)]
        printed += f"\n\nfailed: {why[0].replace(sys.executable, 'python')}"
    took = f"{time.strftime('%Y-%m-%d')}, {time.time() - started:.0f} s, {machine()}"
    return f"## {name}\n\n{BENCHMARKS[name]}. {took}.\n\n```\n{printed}\n```\n"


def parts(text: str) -> dict[str, str]:
    """The sections of RESULTS.md by their name."""
    return {found[1]: found[0] for found in re.finditer(r"^## (\w+)\n.*?(?=^##? |\Z)", text, re.MULTILINE | re.DOTALL)}


def whole(sections: dict[str, str], before: str) -> str:
    """RESULTS.md: the table, what the benchmarks printed, and what stood under `NOTES` before."""
    kept = [sections[name].rstrip() + "\n" for name in BENCHMARKS if name in sections]
    _, _, notes = before.partition(f"{NOTES}\n")
    return "\n".join([HEAD, table(sections), "# What the benchmarks printed\n", *kept, f"{NOTES}\n{notes}"])


def main() -> None:
    names = [name for name in sys.argv[1:] if name != "--table"]
    for name in names:
        if name not in BENCHMARKS:
            sys.exit(f"{name} is not a benchmark; allowed: {', '.join(BENCHMARKS)}")
    if not names and "--table" not in sys.argv:
        names = [name for name in BENCHMARKS if name not in ON_GPU or has_gpu()]
    for name in names or [None]:
        before = FILE.read_text() if FILE.exists() else ""
        known = parts(before)
        if name:
            known[name] = section(name)
        FILE.write_text(whole(known, before))


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    main()
