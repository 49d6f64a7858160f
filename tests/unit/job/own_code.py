"""Code of a user's own, which the jobs of `test_every_field.py` name."""

from __future__ import annotations

from lehr.training.callbacks import Moment


class Watches:
    """A callback that only looks."""

    def epoch_end(self, moment: Moment) -> None:
        """Sees an epoch."""


class Stops(Watches):
    """A callback that has seen enough after an epoch."""

    def epoch_end(self, moment: Moment) -> str:  # type: ignore[override]
        """Asks to stop."""
        return "this is enough"


def half(progress: float) -> float:
    """A schedule that is no constant."""
    return 1 - progress / 2
