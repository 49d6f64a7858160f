"""Runs the cases and prints the table: see `tests.benchmarks.practice`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path

from tests.benchmarks.practice.cases import Case, Split, draw_cases
from tests.benchmarks.practice.judge import Verdict, share, summary
from tests.benchmarks.practice.trial import CASE, judge, train_case

HERE = Path(__file__).parent


def judged(cases: Sequence[Case], workers: int, folder: Path) -> Iterator[Verdict]:
    """The verdicts on the cases, in order, each told as it comes; their runs are kept in the folder."""
    places = [folder / f"{case.fault or 'sound'}-{case.network}-on-{case.data}-{case.seed}" for case in cases]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from map(told, pool.map(train_case, cases, places))


def told(place: Path) -> Verdict:
    """The verdict on a case that was trained into `place`, which is also printed."""
    verdict = judge(place)
    said = f"{verdict.first.name} ({verdict.first.confidence})"
    reached = f"{verdict.accuracy:.1%} (twin {verdict.twin:.1%})"
    print(f"{verdict.judgement:10} {verdict.label}: {said}, {reached}", file=sys.stderr, flush=True)
    return verdict


def report(verdicts: Sequence[Verdict], title: str) -> str:
    """The table as Markdown, then each kind of fault, and what was wrong."""
    lines = [f"# {title}", "", "| verdicts | |", "|---|---|"]
    lines += [f"| {what} | {value} |" for what, value in summary(verdicts)]
    by_fault: dict[str, list[Verdict]] = defaultdict(list)
    for each in verdicts:
        by_fault[each.fault.name if each.is_faulty else "sound"].append(each)
    lines += ["", "| fault | right or acceptable | said otherwise |", "|---|---|---|"]
    for name, those in sorted(by_fault.items()):
        good = [each for each in those if each.judgement in ("right", "acceptable", "sound")]
        other = sorted({f"{each.first.name} ({each.first.confidence})" for each in those if each not in good})
        lines.append(f"| {name.replace('_', ' ')} | {share(len(good), len(those))} | {', '.join(other)} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="How often what lehr says of a run is right.")
    parser.add_argument("--split", choices=("develop", "report"), default="report")
    parser.add_argument("--cases", type=int, default=120)
    parser.add_argument("--date", type=date.fromisoformat, default=date.today(), help="the seed of the cases")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", type=Path, help="a folder that keeps the runs; what it holds is not trained again")
    parser.add_argument("--judge", type=Path, metavar="FOLDER", help="judge what --keep FOLDER kept; train nothing")
    parser.add_argument("--write", action="store_true", help="write report.md beside this file")
    options = parser.parse_args(arguments)
    split: Split = options.split
    began = time.monotonic()
    if options.judge:
        verdicts = [told(file.parent) for file in sorted(options.judge.glob(f"*/{CASE}"))]
    else:
        cases = draw_cases(split, options.cases, int(options.date.strftime("%Y%m%d")))
        with tempfile.TemporaryDirectory() as temporary:
            verdicts = list(judged(cases, options.workers, options.keep or Path(temporary)))
    text = report(verdicts, f"Verdicts on {len(verdicts)} cases, {split}, {options.date}")
    text += f"\n{time.monotonic() - began:.0f} s.\n"
    print(text)
    if options.write:
        (HERE / f"{split}.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
