"""The schedules that come with lehr, a class each: its options, and its curve as a function of the step."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from lehr.durations import Duration, RunLength
from lehr.schedules.base import BaseSchedule, Curve


class Constant(BaseSchedule):
    """η(t) = lr."""

    name: Literal["constant"] = "constant"

    def curve(self, length: RunLength) -> Curve:
        return lambda step: 1.0


class Step(BaseSchedule):
    """η(t) = lr × gammaⁿ, where n is the number of milestones at or before t, counted from the start of the run.

    The defaults are those of He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016, for CIFAR.
    """

    name: Literal["step"] = "step"
    every: Duration | None = Field(default=None, description="The time between steps down. A duration.")
    milestones: list[Duration] | None = Field(
        default=None, min_length=1, description="Durations from the start, ascending. By default 50% and 75%."
    )
    gamma: float = Field(default=0.1, gt=0, le=1, description="Factor on the rate at each step down.")

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Step:
        if self.every is not None and self.milestones is not None:
            raise ValueError("every and milestones exclude each other; allowed: one of them")
        return self

    def curve(self, length: RunLength) -> Curve:
        if self.every is not None:
            every = self.every.steps(length)
            if not 0 < every < length.total_steps:
                raise ValueError(_outside(f"every {self.every}", every, length))
            return lambda step: self.gamma ** (step // every)
        said = self.milestones or [Duration(50, "%"), Duration(75, "%")]
        milestones = [milestone.steps(length) for milestone in said]
        for duration, step in zip(said, milestones, strict=True):
            if not 0 < step < length.total_steps:
                raise ValueError(_outside(f"milestone {duration}", step, length))
        for (duration, step), (after, later) in pairwise(zip(said, milestones, strict=True)):
            if later <= step:
                raise ValueError(f"milestone {after} is step {later}, which is not after {duration}, step {step}")
        return lambda step: self.gamma ** bisect_right(milestones, step)


class Cosine(BaseSchedule):
    """η(t) = lr × (e + (1 − e) × (1 + cos(π p)) / 2).

    Loshchilov and Hutter, "SGDR: Stochastic gradient descent with warm restarts", 2017, without the restarts.
    """

    name: Literal["cosine"] = "cosine"
    end_factor: float = Field(default=0.0, ge=0, le=1, description="The rate at the very end, as a share of lr.")

    def curve(self, length: RunLength) -> Curve:
        p = self.progress(length)
        return lambda step: _between(self.end_factor, 1.0, _cosine(p(step)))


class Linear(BaseSchedule):
    """η(t) = lr × (e + (1 − e) × (1 − p))."""

    name: Literal["linear"] = "linear"
    end_factor: float = Field(default=0.0, ge=0, le=1, description="The rate at the very end, as a share of lr.")

    def curve(self, length: RunLength) -> Curve:
        p = self.progress(length)
        return lambda step: _between(self.end_factor, 1.0, 1 - p(step))


class InverseSqrt(BaseSchedule):
    """η(t) = lr / √(1 + (t − w) / s), s the timescale: half of lr after 3 s, a tenth after 99 s, and never zero.

    With a timescale as long as the warmup (the default where there is a warmup) this is lr × √(w / t), of Vaswani et
    al., "Attention is all you need", 2017; the timescale is of Zhai et al., "Scaling vision transformers", 2022.
    """

    name: Literal["inverse_sqrt"] = "inverse_sqrt"
    timescale: Duration | None = Field(
        default=None, description="How fast the early fall is. A duration. By default the warmup, or 1ep without one."
    )

    def curve(self, length: RunLength) -> Curve:
        warmup = self.warmup_steps(length)
        said = self.timescale if self.timescale is not None else self.warmup if warmup else Duration(1, "ep")
        timescale = said.steps(length)
        if not timescale:
            raise ValueError(f"timescale {said} rounds to 0 steps; allowed: one step or more")
        return lambda step: 1 / math.sqrt(1 + max(step - warmup, 0) / timescale)


class Polynomial(BaseSchedule):
    """η(t) = lr × (e + (1 − e) × (1 − p)^power). Power 1 is linear.

    With power 0.9 the "poly" schedule of Chen et al., "DeepLab: Semantic image segmentation with deep convolutional
    nets, atrous convolution, and fully connected CRFs", 2017.
    """

    name: Literal["polynomial"] = "polynomial"
    power: float = Field(default=2.0, gt=0, description="Above 1 falls early, below 1 late.")
    end_factor: float = Field(default=0.0, ge=0, le=1, description="The rate at the very end, as a share of lr.")

    def curve(self, length: RunLength) -> Curve:
        p = self.progress(length)
        return lambda step: _between(self.end_factor, 1.0, (1 - p(step)) ** self.power)


class Exponential(BaseSchedule):
    """η(t) = lr × gamma^((t − w) / every): the same factor for every equal stretch of training.

    By default it falls to a hundredth over the run; with `{gamma: 0.95, every: 1ep}`, by a twentieth in every epoch.
    """

    name: Literal["exponential"] = "exponential"
    gamma: float = Field(default=0.01, gt=0, le=1, description="Factor on the rate over `every`.")
    every: Duration = Field(default=Duration(100, "%"), description="The stretch that gamma is for. A duration.")

    def curve(self, length: RunLength) -> Curve:
        warmup, every = self.warmup_steps(length), self.every.steps(length)
        if not every:
            raise ValueError(f"every {self.every} rounds to 0 steps; allowed: one step or more")
        return lambda step: self.gamma ** (max(step - warmup, 0) / every)


class Cyclic(BaseSchedule):
    """η(t) = lr × (e + (1 − e) × (1 + cos(π i / L)) / 2), i the step within its cycle of L steps.

    Loshchilov and Hutter, "SGDR: Stochastic gradient descent with warm restarts", 2017. Cycle k, counted from 0, has
    ⌈L₀ growthᵏ⌉ steps. Either `length` is L₀, and the run must end with a cycle; or `cycles` is the number of cycles in
    the run, and the last one ends with it. Without warmup and growth the second form is, with M = cycles,
    η(t) = lr / 2 × (cos(π mod(t, ⌈T / M⌉) / ⌈T / M⌉) + 1)
    of Huang et al., "Snapshot ensembles: Train 1, get M for free", 2017, who count t from 1.
    """

    name: Literal["cyclic"] = "cyclic"
    cycles: int | None = Field(
        default=None, ge=1, description="Cycles in the run. By default 4, or as many as length gives."
    )
    length: Duration | None = Field(default=None, description="Length of the first cycle. A duration.")
    growth: float = Field(default=1.0, ge=1, le=100, description="How much longer each cycle is than the one before.")
    end_factor: float = Field(default=0.0, ge=0, le=1, description="The rate at the end of a cycle, as a share of lr.")

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Cyclic:
        if self.cycles is not None and self.length is not None:
            raise ValueError("cycles and length exclude each other; allowed: one of them")
        return self

    def curve(self, length: RunLength) -> Curve:
        cycles = self._cycles(length)
        starts = [start for start, _ in cycles]

        def curve(step: int) -> float:
            start, steps = cycles[max(bisect_right(starts, step) - 1, 0)]
            return _between(self.end_factor, 1.0, _cosine(max(step - start, 0) / steps))

        return curve

    def cycle_ends(self, length: RunLength) -> list[int]:
        """For each cycle, the number of steps taken when it ends: where a snapshot is taken.

        Raises:
            ValueError: the cycles do not fit the run.
        """
        return [min(start + steps, length.total_steps) for start, steps in self.fitted(length)._cycles(length)]

    def _cycles(self, length: RunLength) -> list[tuple[int, int]]:
        """The first step and the number of steps of each cycle. The last cycle may be longer than the run."""
        at, total = self.warmup_steps(length), length.total_steps
        wanted = None if self.length is not None else self.cycles or 4
        unfit = ValueError(f"{wanted} cycles of whole steps do not fit into {total - at} steps; allowed: fewer of them")
        if wanted is not None and wanted > total - at:
            raise unfit
        if self.length is not None:
            first = float(self.length.steps(length))
        else:
            first = (total - at) / sum(self.growth**k for k in range(wanted or 1))
        cycles: list[tuple[int, int]] = []
        while at < total and len(cycles) != wanted:
            # A little less, so that rounding does not turn a whole number into the next one.
            steps = max(1, math.ceil(first * self.growth ** len(cycles) - 1e-9))
            cycles.append((at, steps))
            at += steps
        if wanted is not None and (len(cycles) < wanted or at < total):
            raise unfit
        if wanted is None and at != total:
            ends = " or ".join(str(end) for end in (cycles[-1][0] if len(cycles) > 1 else 0, at) if end)
            raise ValueError(f"the run of {total} steps ends within a cycle; allowed: a run of {ends} steps")
        return cycles


class OneCycle(BaseSchedule):
    """From start_factor × lr up to lr, then down to end_factor × lr, each along half a cosine or a straight line.

    With P the last step of the rise and s the start_factor: η(t) = lr × (s + (1 − s) × a(t / P)) up to P, then
    η(t) = lr × (e + (1 − e) × (1 − a((t − P) / (T − 1 − P)))), where a(x) = (1 − cos(π x)) / 2, or x.
    Smith and Topin, "Super-convergence: Very fast training of neural networks using large learning rates", 2018, in the
    form and with the defaults of torch, but without its change of momentum. The rise takes whole steps, as every
    duration does: torch's `pct_start` of a run peaks between two steps where it is no whole number of them.
    """

    name: Literal["one_cycle"] = "one_cycle"
    shares: ClassVar[dict[str, Duration]] = {**BaseSchedule.shares, "rise": Duration(30, "%")}
    rise: Duration = Field(
        default=Duration(30, "%"), description="From the start of the run to the peak, in whole steps. A duration."
    )
    start_factor: float = Field(default=0.04, ge=0, le=1, description="The first rate, as a share of lr.")
    end_factor: float = Field(default=4e-6, ge=0, le=1, description="The last rate, as a share of lr.")
    shape: Literal["cosine", "linear"] = Field(default="cosine", description="Of the rise and the fall.")

    def curve(self, length: RunLength) -> Curve:
        rise, last = self.rise.steps(length), length.total_steps - 1
        if not 0 < rise <= last:
            raise ValueError(_outside(f"rise {self.rise}", rise, length))
        peak, fall = rise - 1, _cosine if self.shape == "cosine" else lambda p: 1 - p

        def curve(step: int) -> float:
            if step <= peak:
                return _between(self.start_factor, 1.0, 1 - fall(step / peak if peak else 1.0))
            return _between(self.end_factor, 1.0, fall(min((step - peak) / (last - peak), 1.0)))

        return curve


class WSD(BaseSchedule):
    """Warmup, stable, decay: η(t) = lr until the last D steps, then lr × (e + (1 − e) × f((t − (T − D)) / D)).

    f(x) is 1 − x (`linear`), (1 + cos(π x)) / 2 (`cosine`) or 1 − √x (`sqrt`). Until the decay begins, the rate does
    not depend on the length of the run, so that a run can be extended. Hu et al., "MiniCPM", 2024; Hägele et al.,
    2024, compare the shapes, "Scaling laws and compute-optimal training beyond fixed training durations".
    """

    name: Literal["wsd"] = "wsd"
    shares: ClassVar[dict[str, Duration]] = {**BaseSchedule.shares, "decay": Duration(20, "%")}
    decay: Duration = Field(default=Duration(20, "%"), description="The fall at the end of the run. A duration.")
    shape: Literal["linear", "cosine", "sqrt"] = Field(default="linear", description="Of the fall.")
    end_factor: float = Field(default=0.0, ge=0, le=1, description="The rate at the very end, as a share of lr.")

    def curve(self, length: RunLength) -> Curve:
        decay, warmup = self.decay.steps(length), self.warmup_steps(length)
        if decay + warmup > length.total_steps:
            also = f" and warmup {self.warmup} is {warmup}" if warmup else ""
            what = f"decay {self.decay} is {decay} steps{also}, longer than the run of {length.total_steps} steps"
            raise ValueError(f"{what}; allowed: less, such as schedule.decay=20%")
        falls: dict[str, Callable[[float], float]] = {
            "linear": lambda x: 1 - x,
            "cosine": _cosine,
            "sqrt": lambda x: 1 - math.sqrt(x),
        }
        fall, stable = falls[self.shape], length.total_steps - decay
        return lambda step: (
            1.0 if step < stable else _between(self.end_factor, 1.0, fall((step - stable) / max(decay, 1)))
        )


def _cosine(p: float) -> float:
    """Half a cosine from 1 at p = 0 to 0 at p = 1."""
    return (1 + math.cos(math.pi * p)) / 2


def _between(low: float, high: float, share: float) -> float:
    return low + (high - low) * share


def _outside(what: str, steps: int, length: RunLength) -> str:
    return f"{what} is {steps} steps of {length.total_steps}; allowed: more than 0 and less than the run"
