"""Step 3, find the learning rate: on all the data, at which rates does the loss fall within 100 updates?

The rate with the lowest loss after a short training is often a few times higher than the one that is best in the end,
so the search continues with it and with the next lower ones. If the best rate is at the edge of those tried, the next
rate beyond the edge is tried as well.
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
from lehr.formatting import count_of
from lehr.job import Training
from lehr.recipe.measurement import finish, guess_loss, write_progress
from lehr.recipe.results import Result, Verdict
from lehr.recipe.trial_results import join_numbers
from lehr.runs import RunFolder
from lehr.training.group import Group
from lehr.training.optimizers import usual_rate
from lehr.training.prepare import prepare_model
from lehr.training.setup import Plan
from lehr.training.stopping import Enough
from lehr.training.train_step import TrainStep
from lehr.trials import TrialCallbacks

STEPS = 100  # updates of a test at most; fewer if its share of the budget is smaller
LEAST_STEPS = 50  # but not fewer than this: after a few updates no rate shows what it can do
LOOK = 10  # updates between checks of the losses
WEIGHT_DECAY = 1e-4
NEIGHBOURS = 2  # lower rates that are searched together with the one of lowest loss
LOWEST, HIGHEST = 1e-7, 30.0  # no rate outside is tried
FALL = 0.01  # share by which the loss must fall below that of a guess, in addition to its noise
DECADES = 4  # of a range test, up to the rate it is given


class RateTest(Result):
    """A short training: at one learning rate, or a range test, in which the rate rises.

    Attributes:
        rates: of each update; none if the budget has no room for a test. losses: before each update, up to the first
            that is not finite.
        guess: the loss of a guess. rows, batch: training images, and images in a batch.
        began, ended: seconds since the epoch.
        cut: whether its time was over before it could show anything: it only says how long an update takes.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    diverged: bool
    guess: float
    rows: int
    batch: int
    began: float
    ended: float
    cut: bool = False

    @property
    def rate(self) -> float:
        return self.rates[-1]

    @property
    def epochs(self) -> float:
        """What it cost, in passes over the training images."""
        return len(self.rates) / math.ceil(self.rows / self.batch)

    @property
    def is_range_test(self) -> bool:
        return self.rates[0] != self.rates[-1]

    @property
    def start(self) -> float:
        return self.losses[0] if self.losses else math.nan

    @property
    def last(self) -> tuple[float, ...]:
        """The losses of the last updates."""
        return self.losses[-max(5, len(self.losses) // 10) :]

    @property
    def end(self) -> float:
        """Mean loss of the last updates; infinite if it diverged."""
        return math.inf if self.diverged or not self.losses else statistics.fmean(self.last)

    @property
    def noise(self) -> float:
        """Standard error of `end`."""
        return statistics.stdev(self.last) / math.sqrt(len(self.last)) if len(self.last) > 1 else 0.0

    @property
    def falls(self) -> bool:
        """Whether the loss fell below that of a guess, and below its start."""
        return self.end < self.to_beat - 3 * self.noise

    @property
    def to_beat(self) -> float:
        """A little less than the loss of a guess, if it is known, and than the loss at the start."""
        least = min(self.start, math.inf if math.isnan(self.guess) else self.guess)
        return least - FALL * abs(least)


class RateTests(Result):
    """The tests of all learning rates.

    Attributes:
        failed: why one of them failed; empty if none did.
        own: the job's own learning rate, or the one at which step 2 memorised its sample (`own_is_of_step_2`), for
            where the budget has no room for a test.
        rows, batch: training images, and images in a batch; 0 in older results.
        cut: why not all rates were tested, in words; empty if they were.
    """

    tests: tuple[RateTest, ...] = ()
    failed: str = ""
    own: float = math.nan
    own_is_of_step_2: bool = False
    rows: int = 0
    batch: int = 0
    cut: str = ""

    @property
    def epochs(self) -> float:
        """What the tests cost, in passes over the training images."""
        return sum(test.epochs for test in self.tests)

    @property
    def seconds_per_step(self) -> float:
        """Time in which any test ran, divided by the updates of all: what an update costs among parallel trials."""
        busy, until = 0.0, -math.inf
        for test in sorted(self.tests, key=lambda test: test.began):
            busy += max(0.0, test.ended - max(test.began, until))
            until = max(until, test.ended)
        return busy / max(1, sum(len(test.rates) for test in self.tests))

    @property
    def seconds_per_epoch(self) -> float:
        """As `seconds_per_step`, of a pass over the training images; 0 where nothing was measured."""
        return self.seconds_per_step * math.ceil(self.tests[0].rows / self.tests[0].batch) if self.tests else 0.0

    @property
    def whole(self) -> tuple[RateTest, ...]:
        """The tests that had enough updates to show what their rate can do."""
        return tuple(test for test in self.tests if not test.cut)


@dataclass(frozen=True)
class ChosenRates:
    """The learning rates of the coarse search, the highest first; none if the loss falls at no rate."""

    rates: tuple[float, ...]
    verdict: Verdict


# ── the decision ────────────────────────────────────────────────────────────────────────────────────────────────────


def rate_grid(base: Training) -> list[float]:
    """The learning rates tried first, in half decades: for SGD from a thousandth of its usual rate to that rate.

    For SGD that is 1e-4 to 1e-1. For adaptive optimizers they range from a hundredth of the usual rate to ten times
    the rate: 1e-5 to 1e-2 for Adam.
    """
    usual = usual_rate(base.optimizer)
    top = usual if base.optimizer.name.lower() == "sgd" else 10 * usual
    return [half_decade(top * 10 ** (-half / 2)) for half in range(2 * 3 + 1)][::-1]


def rate_beyond_edge(tests: Sequence[RateTest]) -> float | None:
    """The rate to try next if the lowest loss is at the edge of the rates tried; None otherwise."""
    known = sorted((test for test in tests if not test.is_range_test and not test.cut), key=lambda test: test.rate)
    if not known:
        return None
    best = min(known, key=lambda test: test.end)
    if not math.isfinite(best.end) or best.rate == known[0].rate:
        beyond = half_decade(known[0].rate / math.sqrt(10))
    elif best.rate == known[-1].rate:
        beyond = half_decade(known[-1].rate * math.sqrt(10))
    else:
        return None
    return beyond if LOWEST <= beyond <= HIGHEST else None


def choose(r: RateTests) -> ChosenRates:
    """The learning rates of the coarse search."""
    tests = r.whole
    if not r.failed and (r.cut or not tests) and math.isfinite(r.own):
        return _without_tests(r)
    if r.failed or not tests:
        return ChosenRates((), Verdict(False, f"{r.failed}.", "The recipe stops here."))
    return _from_range_test(tests[0]) if tests[0].is_range_test else _from_tests(r)


def _without_tests(r: RateTests) -> ChosenRates:
    """The rate of step 2, or the job's own, and lower ones: a test of too few updates would only mislead."""
    own = r.own
    rates = tuple(dict.fromkeys((own, half_decade(own / math.sqrt(10)), half_decade(own / 10))))
    found = f"Left out: the budget has no room for the {LEAST_STEPS} updates that even one test of a rate needs."
    found = f"Cut short after {count_of(len(r.whole), 'rate')}: {r.cut}." if r.cut else found
    names = join_numbers(rates)
    whose = "the last step's" if r.own_is_of_step_2 else "the job's own"
    return ChosenRates(rates, Verdict(True, found, f"The search tries {whose} learning rate and lower: {names}."))


def _from_tests(r: RateTests) -> ChosenRates:
    tests = sorted(r.whole, key=lambda test: test.rate)
    best = min(tests, key=lambda test: test.end)
    steps = max(len(test.rates) for test in tests)
    tried = f"{tests[0].rate:g} to {tests[-1].rate:g}"
    if not best.falls:
        why = (
            "the labels look unrelated to the images, or the network needs more updates before it starts to learn"
            if math.isfinite(best.end)
            else "it rises at every one of them, so the initialization is bad"
        )
        return ChosenRates(
            (),
            Verdict(
                False,
                f"No learning rate from {tried} brings the loss below that of a guess ({best.guess:.3g}) within "
                f"{steps} updates: {why}. The lowest loss is {best.end:.3g}, at {best.rate:g}.",
                "The recipe stops here. To search all the same, set recipe.learning_rates.",
            ),
        )
    lower = [test.rate for test in tests if test.rate < best.rate][::-1][:NEIGHBOURS]
    while len(lower) < NEIGHBOURS:
        lower.append(half_decade((lower or [best.rate])[-1] / math.sqrt(10)))
    gone = [f"{test.rate:g}" for test in tests if test.diverged]
    names = " and ".join(f"{rate:g}" for rate in lower)
    found = f"Of {len(tests)} learning rates from {tried}, {best.rate:g} has the lowest loss after {steps} updates: "
    found += f"{best.end:.3g}, down from {best.start:.3g} (a guess gives {best.guess:.3g})"
    found += f". The loss became NaN or infinite at {' and '.join(gone)}" if gone else ""
    return ChosenRates(
        (best.rate, *lower),
        Verdict(
            True,
            f"{found}.",
            f"The search tries {best.rate:g} and the next lower rates {names}: the rate at which the loss falls "
            "fastest at first is often a little too high in the end.",
        ),
    )


def _from_range_test(test: RateTest) -> ChosenRates:
    """Half a decade below the rate at which the smoothed loss is lowest, and the next lower rates."""
    window = max(3, len(test.losses) // 20)
    smoothed = [statistics.fmean(test.losses[max(0, i - window) : i + 1]) for i in range(len(test.losses))]
    low = min(range(len(smoothed)), key=smoothed.__getitem__, default=0)
    span = f"{test.rates[0]:g} to {test.rates[len(test.losses) - 1]:g}"
    if not smoothed or smoothed[low] > test.to_beat:
        found = f"In a range test from {span}, the loss never fell below that of a guess ({test.guess:.3g})."
        decided = "The recipe stops here; recipe.range_test: false tests each learning rate for longer."
        return ChosenRates((), Verdict(False, found, decided))
    rates = tuple(half_decade(test.rates[low] * 10 ** (-(half + 1) / 2)) for half in range(NEIGHBOURS + 1))
    names = ", ".join(f"{rate:g}" for rate in rates)
    found = f"In a range test from {span}, the loss was lowest, {smoothed[low]:.3g}, at {test.rates[low]:.2g}."
    decided = f"The search tries {names}: half a decade below its lowest loss, a learning rate is safe."
    return ChosenRates(rates, Verdict(True, found, decided))


def half_decade(rate: float) -> float:
    """The nearest rate of the series 1, 3, 10, 30, …"""
    exponent = math.floor(math.log10(rate) + 1e-9)
    digits = rate / 10**exponent
    return float(f"{1 if digits < 1.75 else 3 if digits < 5.6 else 10}e{exponent}")


# ── the measurement ─────────────────────────────────────────────────────────────────────────────────────────────────


def run_rate_test(
    plan: Plan, run: RunFolder, group: Group, callbacks: TrialCallbacks, epochs: float = math.inf
) -> None:
    """Trains for a few updates at the job's learning rate; leaves a `RateTest` in the run folder.

    Args:
        epochs: what it may take, in passes over the training images. Where that is too little, nothing is trained.
    """
    _test(plan, run, group, callbacks, lambda step, steps: plan.job.optimizer.rate, epochs)


def run_range_test(
    plan: Plan, run: RunFolder, group: Group, callbacks: TrialCallbacks, epochs: float = math.inf
) -> None:
    """As `run_rate_test`, while the learning rate rises exponentially up to the job's.

    The learning-rate range test of Smith, "Cyclical learning rates for training neural networks", 2017, on a log scale.
    """
    top = plan.job.optimizer.rate
    _test(
        plan, run, group, callbacks, lambda step, steps: top * 10 ** (-DECADES * (1 - step / max(1, steps - 1))), epochs
    )


def _test(
    plan: Plan,
    run: RunFolder,
    group: Group,
    callbacks: TrialCallbacks,
    rate: Callable[[int, int], float],
    epochs: float,
) -> None:
    """A test whose learning rate is `rate(step, steps)`; asked to stop and resume, it leaves no result."""
    began, steps = time.time(), int(min(STEPS, epochs * plan.sampler.steps))
    if steps < LEAST_STEPS:
        steps = 0
    write_progress(run, group, "running", f"learning rate {plan.job.optimizer.rate:g}", 0.0)
    losses, stop = _train(plan, group, callbacks, lambda step: rate(step, steps), steps) if steps else ([], None)
    if stop and not isinstance(stop, Enough):
        write_progress(run, group, "stopped", "stopped", 0.0)
        return
    known = next((i for i, value in enumerate(losses) if not math.isfinite(value)), len(losses))
    result = RateTest(
        rates=tuple(rate(step, steps) for step in range(len(losses))),
        losses=tuple(losses[:known]),
        diverged=known < len(losses),
        guess=guess_loss(plan),
        rows=len(plan.splits.train),
        batch=plan.job.train.batch_size,
        began=began,
        ended=time.time(),
        cut=isinstance(stop, Enough) and len(losses) < steps,
    )
    ending = "NaN or infinite" if result.diverged else f"{result.end:.3g}"
    headline = f"learning rate {plan.job.optimizer.rate:g}: the loss is {ending} after {len(losses)} updates"
    headline = f"cut short: {stop}" if result.cut else headline if steps else "left out: the budget has no room for it"
    finish(run, group, result, headline, {"loss": ending})


def _train(
    plan: Plan, group: Group, callbacks: TrialCallbacks, rate: Callable[[int], float], steps: int
) -> tuple[list[float], str | None]:
    """The loss before each update, up to a few after the first that is not finite; and why it was asked to stop."""
    model = prepare_model(plan, group)
    model.train()
    train_step = TrainStep(dataclasses.replace(plan, learning_rate=rate), model, group)
    losses: list[float] = []
    waiting: list[torch.Tensor] = []
    while (step := len(losses) + len(waiting)) < steps:
        epoch, first = divmod(step, plan.sampler.steps)
        found = batches(
            plan.splits.train, plan.sampler, plan.augment, epoch, first, group.rank, group.size, group.device
        )
        for within, batch in enumerate(found, first):
            loss, _, _ = train_step(batch, plan.sampler.size(within), step)
            waiting.append(loss)
            step += 1
            if step % LOOK and step < steps:
                continue
            losses += group.sum(torch.stack(waiting).double()).tolist()
            waiting.clear()
            if stop := group.broadcast(callbacks.should_stop() if group.first else None):
                return losses, stop
            if step == steps or not all(map(math.isfinite, losses)):
                return losses, None
    return losses, None
