"""What all schedules share: warmup and cooldown, progress, and what happens to a part that is too long for the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from lehr.durations import ZERO, Duration, RunLength

Curve: TypeAlias = Callable[[int], float]

TENTH = Duration(10, "%")


def fit(said: Duration, share: Duration, length: RunLength) -> Duration:
    """The duration itself; or `share` of the run, for one in epochs that is as long as the run or longer.

    Epochs are written for a run of the length that the file says. A quick try of one epoch must train as well, so what
    fills it is shortened. Steps and percentages mean the run at hand and are never changed.
    """
    return share if said.unit == "ep" and said and said.steps(length) >= length.total_steps else said


def shortened(field: str, said: Duration, share: Duration, length: RunLength) -> list[str]:
    """The sentence about a duration that `fit` changes; none for one that it does not.

    Args:
        field: where it stands in a job, as an override names it.
    """
    if fit(said, share, length) == said:
        return []
    over = "as long as" if said.steps(length) == length.total_steps else "longer than"
    whole = f"{field} is {said}, {over} the run of {length.total_steps} steps"
    steps = share.steps(length)
    return [f"{whole}; it becomes {share}, {steps} step{'' if steps == 1 else 's'}"]


class BaseSchedule(BaseModel):
    """The base of all schedules: a linear warmup and a linear cooldown, multiplied with the curve of the schedule."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    shares: ClassVar[dict[str, Duration]] = {"warmup": TENTH, "cooldown": TENTH}
    """Parts that become this share of the run where they are given in epochs and would fill it; see `fit`."""

    warmup: Duration = Field(
        default=ZERO,
        description="Linear rise from lr/(warmup steps) to the full rate. A duration; 10% where epochs of it would "
        "fill the run.",
    )
    cooldown: Duration = Field(
        default=ZERO,
        description="Linear fall to zero at the very end of the run. A duration; 10% where epochs of it would fill "
        "the run.",
    )

    def curve(self, length: RunLength) -> Curve:
        """The factor on lr as a function of the step, without warmup and cooldown.

        Raises:
            ValueError: milestones, cycles or phases do not fit the run.
        """
        raise NotImplementedError

    def bind(self, length: RunLength) -> Curve:
        """The factor on lr as a function of the step, with warmup and cooldown.

        Raises:
            ValueError: warmup, cooldown, milestones, cycles or phases do not fit the run.
        """
        return self.fitted(length)._bind(length)

    def _bind(self, length: RunLength) -> Curve:
        warmup, cooldown, total = self.warmup_steps(length), self.cooldown.steps(length), length.total_steps
        if warmup + cooldown > total or (warmup and warmup == total):  # then most curves would be at their end: zero
            parts = f"warmup {self.warmup} is {warmup} steps" + (
                f" and cooldown {self.cooldown} is {cooldown}" if cooldown else ""
            )
            over = "longer than" if warmup + cooldown > total else "as long as"
            instead = " ".join(f"schedule.{name}=10%" for name in ("warmup", "cooldown") if getattr(self, name))
            raise ValueError(f"{parts}, {over} the run of {total} steps; allowed: less, such as {instead}")
        curve = self.curve(length)

        def factor(step: int) -> float:
            rise = (step + 1) / warmup if step < warmup else 1.0
            left = total - step
            fall = left / cooldown if left < cooldown else 1.0
            return curve(step) * rise * fall

        return factor

    def fitted(self, length: RunLength) -> Self:
        """The schedule itself, or a copy whose parts in epochs fit a run that is shorter than the file expected."""
        parts = {name: fit(getattr(self, name), share, length) for name, share in self.shares.items()}
        return self.model_copy(update={name: part for name, part in parts.items() if part != getattr(self, name)})

    def notes(self, length: RunLength) -> list[str]:
        """What `fitted` changes, a sentence each."""
        parts = self.shares.items()
        return [
            line for name, share in parts for line in shortened(f"schedule.{name}", getattr(self, name), share, length)
        ]

    def cycle_ends(self, length: RunLength) -> list[int]:
        """For each cycle, the number of steps taken when it ends; most schedules have one cycle, the whole run."""
        return [length.total_steps]

    def warmup_steps(self, length: RunLength) -> int:
        """The steps of the warmup; a share of a run of a few steps leaves one of them, whatever it is rounded to."""
        steps = self.warmup.steps(length)
        share_only = self.warmup.unit == "%" and self.warmup.amount < 100
        return min(steps, length.total_steps - 1) if share_only else steps

    def progress(self, length: RunLength) -> Curve:
        """p(t): the share of the run after the warmup that is done before step t, from 0 to 1."""
        warmup = self.warmup_steps(length)
        span = length.total_steps - warmup
        return lambda step: min(max((step - warmup) / span, 0.0), 1.0) if span > 0 else 1.0


def linear_rule(batch: int, base_batch: int, warmup: int) -> Curve:
    """The factor on lr for a batch k times as large as the one that lr is for: from 1 to k in `warmup` steps, then k.

    scale(t) = 1 + (k − 1) × min(t / warmup, 1), with k = batch / base_batch. A k below 1 needs no warmup and has none.
    Goyal et al., "Accurate, large minibatch SGD: Training ImageNet in 1 hour", 2017.
    """
    k = batch / base_batch
    return lambda step: 1 + (k - 1) * step / warmup if k > 1 and step < warmup else k
