"""How often the curve alone, and the curve with probes, name the cause of a planted fault; and what probes cost.

    python -m tests.benchmarks.probes [--data digits] [--seeds 1] [--only dropout]

The faults are those of `tests.benchmarks.practice`. The curve names a cause where its first finding claims just that
one; a finding that claims several, or none, does not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

from lehr.curves import diagnose_run
from lehr.curves.alternatives import CLAIMS, Cause, causes_of, probes_for
from lehr.probes import conclude, probe, subject_of
from tests.benchmarks.practice.cases import NETWORKS, Case, draft
from tests.benchmarks.practice.data_sets import available
from tests.benchmarks.practice.trial import run_draft

PLANTED: dict[str, tuple[str, tuple[Cause, ...]]] = {
    "dropout": ("cnn", ("dropout",)),
    "augmentation": ("cnn", ("augmentation",)),
    "weight_decay": ("perceptron", ("weight_decay",)),
    "clipped": ("cnn", ("clipping",)),
    "frozen_body": ("plain", ("frozen",)),
    "lagging_statistics": ("plain", ("stale_statistics",)),
    "rate_too_low": ("cnn", ("rate_too_low",)),
    "decayed_at_once": ("groups", ("schedule", "rate_too_low")),
    "no_weights": ("plain", ("initialization", "network")),
    "shuffled_labels": ("residual", ("labels",)),
    "flipped_training_labels": ("cnn", ("noisy_labels",)),
    "inverted_validation": ("cnn", ("split",)),
    "shifted_validation_labels": ("perceptron", ("split",)),
}
"""By fault, the kind of network that gets it, and what names its cause."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="How often probes name the cause of a planted fault.")
    parser.add_argument("--data", choices=available(), default="digits")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--only", help="one fault, or sound")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    right = {"curve": 0, "probes": 0}
    count = alarms = sound = 0
    cases = [(name, *planted) for name, planted in PLANTED.items()]
    cases += [("", name, ()) for name in NETWORKS]
    for seed in range(options.first, options.first + options.seeds):
        for number, (fault, network, causes) in enumerate(cases):
            if options.only and options.only != (fault or "sound"):
                continue
            case = Case(number, 1000 * seed + number, options.data, network, fault)
            with tempfile.TemporaryDirectory() as folder:
                run = run_draft(draft(case)[0], Path(folder) / "case")
                findings = [each.name for each in diagnose_run(run).findings]
                claimed = CLAIMS.get(findings[0], ())
                began = time.monotonic()
                subject = subject_of(run)
                results = list(probe(subject, probes_for(findings)))
                found = conclude(results, causes_of(findings))
                seconds = time.monotonic() - began
            if fault:
                count += 1
                right["curve"] += len(claimed) == 1 and claimed[0] in causes
                right["probes"] += found.cause in causes
            else:
                sound += 1
                alarms += found.cause is not None
            epochs = subject.epochs(subject.budget.spent)
            print(
                f"{fault or 'sound':26} {network:12} curve: {', '.join(findings):40} probes: {found.cause or '-':18} "
                f"{epochs:5.1f} epochs of {subject.epochs(int(subject.budget.rows)):g}, {seconds:.1f} s",
                flush=True,
            )
            for each in results:
                print(f"    {each.name}: {each.measured}", file=sys.stderr, flush=True)
                print(f"        {[(e.cause, round(e.weight, 2)) for e in each.evidence]}", file=sys.stderr, flush=True)
    print(f"named by the curve: {right['curve']} of {count}; by curve and probes: {right['probes']} of {count}")
    print(f"a cause named in {alarms} of {sound} sound runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
