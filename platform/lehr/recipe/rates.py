"""Step 3, find the learning rate: all the data, a small weight decay; which rates make the loss fall within 100 steps?

The rate with the lowest loss after a short run is often a few times higher than the one that is best in the end, so it
goes on together with its smaller neighbours. Where the best lies at the edge of the rates tried, the next one is tried
as well.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from lehr.data.batches import batches
from lehr.job import Training
from lehr.recipe.overfit import usual_rate
from lehr.recipe.results import Result, Verdict, conclude, guess, tell
from lehr.runs import RunFolder
from lehr.training.group import Group
from lehr.training.setup import Plan
from lehr.training.updates import Updates, network
from lehr.trials import TrialCallbacks

STEPS = 100  # updates of a test at most; fewer where the budget, as epochs of its job, allows only fewer
LEAST_STEPS = 50  # but not fewer than this: after a few steps no rate shows what it can do
LOOK = 10  # updates between looks at the losses
WEIGHT_DECAY = 1e-4
NEIGHBOURS = 2  # smaller rates that go along with the one of lowest loss
LOWEST, HIGHEST = 1e-7, 30.0  # beyond these no rate is tried
FALL = 0.01  # share by which the loss must get below a guess, beyond its noise
DECADES = 4  # that a sweep runs through, up to the rate it is given


class RateTest(Result):
    """A short training at one rate, or through all of them.

    Attributes:
        rates: of each step. losses: of each step, before its update, up to the first that is not finite.
        guess: the loss of a guess. rows, batch: training images, and images in a batch.
        began, ended: seconds since the epoch.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    diverged: bool
    guess: float
    rows: int
    batch: int
    began: float
    ended: float

    @property
    def rate(self) -> float:
        return self.rates[-1]

    @property
    def sweep(self) -> bool:
        return self.rates[0] != self.rates[-1]

    @property
    def start(self) -> float:
        return self.losses[0] if self.losses else math.nan

    @property
    def last(self) -> tuple[float, ...]:
        """The losses of the last steps."""
        return self.losses[-max(5, len(self.losses) // 10) :]

    @property
    def end(self) -> float:
        """Mean loss of the last steps; infinite where it diverged."""
        return math.inf if self.diverged or not self.losses else statistics.fmean(self.last)

    @property
    def noise(self) -> float:
        """Standard error of `end`."""
        return statistics.stdev(self.last) / math.sqrt(len(self.last)) if len(self.last) > 1 else 0.0

    @property
    def falls(self) -> bool:
        """Whether the loss has got below that of a guess, and below where it began."""
        return self.end < (1 - FALL) * min(self.guess, self.start) - 3 * self.noise


class Rates(Result):
    """The tests of all rates; `failed`: why one of them could not even be made."""

    tests: tuple[RateTest, ...] = ()
    failed: str = ""

    @property
    def epochs(self) -> float:
        """What the tests cost, in passes over the training images."""
        return sum(len(test.rates) * test.batch / test.rows for test in self.tests)

    @property
    def seconds_per_step(self) -> float:
        """Time in which any of them ran, over all steps: what a step costs where trials run side by side as here."""
        busy, until = 0.0, -math.inf
        for test in sorted(self.tests, key=lambda test: test.began):
            busy += max(0.0, test.ended - max(test.began, until))
            until = max(until, test.ended)
        return busy / max(1, sum(len(test.rates) for test in self.tests))


@dataclass(frozen=True)
class Chosen:
    """The rates that go on to the coarse search, the highest first; none where no rate makes the loss fall."""

    rates: tuple[float, ...]
    verdict: Verdict


# ── the decision ────────────────────────────────────────────────────────────────────────────────────────────────────


def ladder(base: Training) -> list[float]:
    """The rates tried first: half decades from a thousandth of the usual rate of the optimizer to the rate itself.

    For SGD that is 1e-4 to 1e-1. Adaptive methods get two decades below theirs and one above: 1e-5 to 1e-2 for Adam.
    """
    usual = usual_rate(base)
    top = usual if base.optimizer.name.lower() == "sgd" else 10 * usual
    return [rung(top * 10 ** (-half / 2)) for half in range(2 * 3 + 1)][::-1]


def further(tests: Sequence[RateTest]) -> list[float]:
    """The rate to try next, where the lowest loss is at the edge of those tried; empty otherwise."""
    known = sorted((test for test in tests if not test.sweep), key=lambda test: test.rate)
    if not known:
        return []
    best = min(known, key=lambda test: test.end)
    if not math.isfinite(best.end) or best.rate == known[0].rate:
        beyond = rung(known[0].rate / math.sqrt(10))
    elif best.rate == known[-1].rate:
        beyond = rung(known[-1].rate * math.sqrt(10))
    else:
        return []
    return [beyond] if LOWEST <= beyond <= HIGHEST else []


def choose(r: Rates) -> Chosen:
    """The rates for the coarse search."""
    if r.failed or not r.tests:
        return Chosen((), Verdict(False, f"{r.failed}.", "The recipe ends here."))
    return _from_sweep(r.tests[0]) if r.tests[0].sweep else _from_tests(r)


def _from_tests(r: Rates) -> Chosen:
    tests = sorted(r.tests, key=lambda test: test.rate)
    best = min(tests, key=lambda test: test.end)
    steps = max(len(test.rates) for test in tests)
    tried = f"{tests[0].rate:g} to {tests[-1].rate:g}"
    if not best.falls:
        why = (
            "the labels look unrelated to the images, or the network needs longer than that to begin"
            if math.isfinite(best.end)
            else "it rises at every one of them, so the start is bad"
        )
        return Chosen(
            (),
            Verdict(
                False,
                f"No rate from {tried} brings the loss below that of a guess ({best.guess:.3g}) within {steps} steps: "
                f"{why}. The lowest is {best.end:.3g}, at rate {best.rate:g}.",
                "The recipe ends here. Where you know better: recipe.learning_rates goes straight to the search.",
            ),
        )
    smaller = [test.rate for test in tests if test.rate < best.rate][::-1][:NEIGHBOURS]
    while len(smaller) < NEIGHBOURS:
        smaller.append(rung((smaller or [best.rate])[-1] / math.sqrt(10)))
    rates = (best.rate, *smaller)
    gone = [f"{test.rate:g}" for test in tests if test.diverged]
    found = f"Of {len(tests)} rates from {tried}, {best.rate:g} has the lowest loss after {steps} steps: {best.end:.3g}"
    found += f", from {best.start:.3g} (a guess has {best.guess:.3g})"
    found += f". The loss became no number at {' and '.join(gone)}" if gone else ""
    names = " and ".join(f"{rate:g}" for rate in smaller)
    return Chosen(
        rates,
        Verdict(
            True,
            f"{found}.",
            f"{best.rate:g} and its smaller neighbours {names} go on: what falls fastest at first is often a little "
            "too high in the end.",
        ),
    )


def _from_sweep(test: RateTest) -> Chosen:
    """Half a decade below the rate at which the smoothed loss is lowest, with its smaller neighbours."""
    window = max(3, len(test.losses) // 20)
    smoothed = [statistics.fmean(test.losses[max(0, i - window) : i + 1]) for i in range(len(test.losses))]
    low = min(range(len(smoothed)), key=smoothed.__getitem__, default=0)
    span = f"{test.rates[0]:g} to {test.rates[len(test.losses) - 1]:g}"
    if not smoothed or smoothed[low] > (1 - FALL) * min(test.guess, test.start):
        sentence = f"In a sweep from {span} the loss never got below that of a guess ({test.guess:.3g})."
        return Chosen(
            (), Verdict(False, sentence, "The recipe ends here; recipe.sweep: false tests each rate for longer.")
        )
    rates = tuple(rung(test.rates[low] * 10 ** (-(half + 1) / 2)) for half in range(NEIGHBOURS + 1))
    names = ", ".join(f"{rate:g}" for rate in rates)
    found = f"In a sweep from {span} the loss was lowest, {smoothed[low]:.3g}, at rate {test.rates[low]:.2g}."
    return Chosen(rates, Verdict(True, found, f"{names} go on: a rate is safe half a decade below its lowest loss."))


def rung(rate: float) -> float:
    """The nearest rate of the ladder 1, 3, 10, 30, …"""
    exponent = math.floor(math.log10(rate) + 1e-9)
    digits = rate / 10**exponent
    return float(f"{1 if digits < 1.75 else 3 if digits < 5.6 else 10}e{exponent}")


# ── the measurement ─────────────────────────────────────────────────────────────────────────────────────────────────


def rate_work(plan: Plan, run: RunFolder, group: Group, hooks: TrialCallbacks) -> None:
    """Trains for the first steps of the job at its rate; leaves `RateTest` in the run folder."""
    _test(plan, run, group, hooks, lambda step, steps: plan.job.optimizer.lr)


def sweep_work(plan: Plan, run: RunFolder, group: Group, hooks: TrialCallbacks) -> None:
    """Trains while the rate rises evenly in its logarithm, up to the job's; leaves `RateTest` in the run folder.

    Smith, "Cyclical learning rates for training neural networks", 2017, with a geometric rise.
    """
    top = plan.job.optimizer.lr
    _test(plan, run, group, hooks, lambda step, steps: top * 10 ** (-DECADES * (1 - step / max(1, steps - 1))))


def _test(plan: Plan, run: RunFolder, group: Group, hooks: TrialCallbacks, rate: Callable[[int, int], float]) -> None:
    began, steps = time.time(), min(STEPS, max(LEAST_STEPS, plan.clock.total_steps))
    model = network(plan, group)
    model.train()
    updates = Updates(dataclasses.replace(plan, rate=lambda step: rate(step, steps)), model, group)
    losses: list[float] = []
    waiting: list[torch.Tensor] = []
    broken = False
    if group.first:
        tell(run, "running", f"rate {plan.job.optimizer.lr:g}", {}, 0.0)
    while (step := len(losses) + len(waiting)) < steps and not broken:
        epoch, first = divmod(step, plan.epochs.steps)
        found = batches(
            plan.splits.train, plan.epochs, plan.augment, epoch, first, group.rank, group.size, group.device
        )
        for within, batch in enumerate(found, first):
            loss, _, _ = updates.take(batch, plan.epochs.size(within), step)
            waiting.append(loss)
            step += 1
            if step % LOOK == 0 or step == steps:
                losses += group.sum(torch.stack(waiting).double()).tolist()
                waiting.clear()
                broken = not all(map(math.isfinite, losses))
                if group.broadcast(hooks.should_stop() if group.first else None):
                    if group.first:
                        tell(run, "stopped", "stopped", {}, step / steps)
                    return
                if broken or step == steps:
                    break
    known = next((i for i, value in enumerate(losses) if not math.isfinite(value)), len(losses))
    result = RateTest(
        rates=tuple(rate(step, steps) for step in range(len(losses))),
        losses=tuple(losses[:known]),
        diverged=broken,
        guess=guess(plan),
        rows=len(plan.splits.train),
        batch=plan.job.train.batch_size,
        began=began,
        ended=time.time(),
    )
    ending = "not a number" if broken else f"{result.end:.3g}"
    conclude(
        run, group, result, f"rate {result.rate:g}: the loss is {ending} after {len(losses)} steps", {"loss": ending}
    )
