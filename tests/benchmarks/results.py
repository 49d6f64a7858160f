"""Runs the benchmarks one after the other and writes what they print into `RESULTS.md`, with a line on the machine.

    python -m tests.benchmarks.results [NAME …]
    python -m tests.benchmarks.results --table     # runs nothing and rewrites only the table

Each benchmark prints a table and, as its last line, a ratio. Running one again replaces its section; the other sections
keep the figures and the date of their own run. Everything from the heading `NOTES` on is written by hand and is kept.
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
    "train_overhead": "Training step with 2 workers on CPUs, against a hand-written `torchrun` DDP loop",
    "gpu_step": "Training step on one GPU, ResNet-50 in bf16, against a hand-tuned loop",
    "input_training": "Input pipeline while training: cached against tensors in memory, streamed against `DataLoader`",
    "input": "Input pipeline alone: cached against tensors in memory, streamed against `DataLoader`",
    "first_step": "Time from the command to the first step, against a bare `TorchTrainer` script",
    "outside_compute": "Share of wall time outside compute, over 20 epochs of CIFAR-10",
    "search_overhead": "Search with short trials, against Ray Tune with a `TorchTrainer` in each trial",
    "feature_cache": "Feature caching in transfer learning, against recomputing the frozen backbone",
    "predict": "Batch prediction, against a plain PyTorch `DataLoader` loop",
    "memory": "Memory of the driver and a worker as the streamed data set grows",
    "recording": "Cost of recording a step, and of the report of a million steps",
    "help": "Start-up time of `lehr --help`",
    "cifar10_fast": "`jobs/cifar10-fast.yaml` on one GPU: time and accuracy over seeds",
    "growth": "How cost grows with the number of workers, trials and rows",
    "submit": "Submitting a job, against a bare call of the Ray Jobs REST API",
    "metrics_cost": "Training speed with and without exported metrics",
}
"""Module in this folder -> what it measures. The benchmarks of accuracy (diagnosis, ensembles, recipe, search_methods,
transfer) print tables of their own and take long, so they are run by hand."""

ON_GPU = ("gpu_step", "cifar10_fast")


@dataclass(frozen=True)
class Row:
    """A row of the table, and where its figure stands in the output of a benchmark.

    Attributes:
        figure: a regular expression whose group is the figure; of several matches the worst one counts.
        limit: the expected bound: an upper one with `at_most`, else a lower one. None: no bound.
    """

    what: str
    against: str
    expected: str
    benchmark: str
    figure: str
    limit: float | None
    at_most: bool = False

    def read(self, printed: str) -> float | None:
        """The figure; None if the benchmark did not print it."""
        found = [float(value.replace(",", "")) for value in re.findall(self.figure, printed, re.MULTILINE)]
        return (max if self.at_most else min)(found, default=None)

    def met(self, figure: float) -> str:
        if self.limit is None:
            return "–"
        return "yes" if (figure <= self.limit if self.at_most else figure >= self.limit) else "**no**"


def ratio(first: str) -> str:
    """A pattern for the last line of `alternating.compare` when its first side has this name."""
    return rf"^ratio {re.escape(first)} / .*?: ([\d.]+) \("


CACHED, STREAMED = ratio("lehr, cached"), ratio("lehr, streamed")
WITHOUT_UPLOAD = r"^without the upload, .*?: ([\d.]+) x"
COMMAND = r"sending a job by a command\n(?:.*\n)*?ratio lehr / bare REST: ([\d.]+)"
ROWS = (
    Row("training step, 2 workers, CPU", "`torchrun` DDP", "≥ 0.98", "train_overhead", ratio("lehr"), 0.98),
    Row("training step, one GPU, ResNet-50, bf16", "a hand-tuned loop", "≥ 0.98", "gpu_step", ratio("lehr"), 0.98),
    Row("input while training, small images, cached", "tensors in memory", "≥ 0.90", "input_training", CACHED, 0.90),
    Row("input while training, JPEGs, streamed", "the best `DataLoader`", "≥ 1.0", "input_training", STREAMED, 1.0),
    Row(
        "time from command to first step",
        "a bare `TorchTrainer`",
        "≤ 1.2",
        "first_step",
        ratio("lehr"),
        1.2,
        at_most=True,
    ),
    Row(
        "share of wall time outside compute, CIFAR-10",
        "–",
        "≤ 5 %",
        "outside_compute",
        r"outside compute: ([\d.]+) %",
        5,
        True,
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
        "wall time of a search with longer trials",
        "ideal scheduling",
        "≤ 1.25 x",
        "search_overhead",
        r": ([\d.]+) x the ideal",
        1.25,
        True,
    ),
    Row(
        "epoch on cached features", "recomputing them", "≥ 10 x", "feature_cache", r"^cached features: (\d+) times", 10
    ),
    Row("prediction of 50,000 images", "a `DataLoader` loop", "≥ 1.0", "predict", ratio("lehr predict"), 1.0),
    Row(
        "memory with 100 x the data, streamed",
        "1 x the data",
        "about 1",
        "memory",
        r"100 times the data / the data: ([\d.]+)",
        1.2,
        True,
    ),
    Row("cost of recording a step, µs", "–", "≤ 20", "recording", r"^recording a step: ([\d.]+)", 20, True),
    Row("report of a million steps, s", "–", "≤ 3", "recording", r"^report of .*?: ([\d.]+) s", 3, True),
    Row("submitting a job from Python", "the bare REST call", "≤ 1.5, + upload", "submit", WITHOUT_UPLOAD, 1.5, True),
    Row("`lehr submit`", "a script with that call", "≤ 1.5, + upload", "submit", COMMAND, 1.5, True),
    Row("`lehr --help`, s", "–", "≤ 0.3", "help", r"^lehr --help +([\d.]+)", 0.3, True),
    Row(
        "CIFAR-10 to 94 % on one GPU, s",
        "airbench94_muon: 2.59 s (A100)",
        "as close as possible",
        "cifar10_fast",
        r"^seconds to 94 %: ([\d.]+)",
        None,
        True,
    ),
)

HEAD = """# Benchmarks

Each benchmark compares lehr with what you would use instead. Both sides run interleaved, and figures are ratios of
medians unless they name a unit. The speed of a machine with few cores drifts from minute to minute, so read a ratio
together with its spread, printed below. `make bench` repeats all benchmarks, and
`python -m tests.benchmarks.results NAME` repeats one.
"""
OUTPUT = "# Output of the benchmarks"
NOTES = "# Expected and measured effect of changes"


def table(sections: dict[str, str]) -> str:
    """The table, with the figures that the benchmarks printed."""
    lines = ["| what | compared with | expected | measured | met | date |", "|---|---|---|---|---|---|"]
    for row in ROWS:
        printed = sections.get(row.benchmark, "")
        date = re.search(r"\d{4}-\d\d-\d\d", printed)
        figure = row.read(printed)
        if figure is not None:
            measured, met = f"{figure:.3g}", row.met(figure)
        elif "\nfailed: " in printed:
            measured, met = "failed: see below", "**no**"
        elif printed:
            measured, met = "not reached: see below", "**no**"
        else:
            need = "needs a CUDA GPU; run: " if row.benchmark in ON_GPU else "run: "
            measured, met = f"{need}`python -m tests.benchmarks.{row.benchmark}`", "–"
        lines.append(
            f"| {row.what} | {row.against} | {row.expected} | {measured} | {met} | {date[0] if date else ''} |"
        )
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
    """Runs one benchmark and returns its section."""
    print(f"── {name}", flush=True)
    started = time.time()
    done = subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"], capture_output=True, text=True)
    print(done.stdout, flush=True)
    # The rounds are printed while they run; the file keeps their median and spread.
    printed = re.sub(r"^  round \d+: .*\n", "", done.stdout, flags=re.MULTILINE).strip("\n") or "(nothing)"
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        printed += f"\n\nfailed: {why.replace(sys.executable, 'python')}"
    took = f"{time.strftime('%Y-%m-%d')}, {time.time() - started:.0f} s, {machine()}"
    return f"## {name}\n\n{BENCHMARKS[name]}. {took}.\n\n```\n{printed}\n```\n"


def parts(text: str) -> dict[str, str]:
    """The sections of RESULTS.md by their name."""
    return {found[1]: found[0] for found in re.finditer(r"^## (\w+)\n.*?(?=^##? |\Z)", text, re.MULTILINE | re.DOTALL)}


def whole(sections: dict[str, str], before: str) -> str:
    """RESULTS.md: the table, the output of the benchmarks, and what followed the heading `NOTES` before."""
    kept = [sections[name].rstrip() + "\n" for name in BENCHMARKS if name in sections]
    _, _, notes = before.partition(f"{NOTES}\n")
    return "\n".join([HEAD, table(sections), f"{OUTPUT}\n", *kept, f"{NOTES}\n{notes}"])


def main() -> None:
    names = [name for name in sys.argv[1:] if name != "--table"]
    for name in names:
        if name not in BENCHMARKS:
            sys.exit(f"{name} is not a benchmark; allowed: {', '.join(BENCHMARKS)}")
    if not names and "--table" not in sys.argv:
        names = [name for name in BENCHMARKS if name not in ON_GPU or has_gpu()]
    if not names:
        update({})
    for name in names:
        update({name: section(name)})


def update(sections: dict[str, str]) -> None:
    """Writes RESULTS.md again with these sections in place of their old ones."""
    before = FILE.read_text() if FILE.exists() else ""
    FILE.write_text(whole(parts(before) | sections, before))


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    main()
