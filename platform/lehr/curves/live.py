"""What is clear while a run still trains. Cheap: it looks at two numbers per epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lehr.curves.thresholds import DEFAULT, Thresholds


def diagnose_live(
    history: Sequence[Mapping[str, float]],
    *,
    classes: int,
    validation_rows: int,
    epochs: int,
    limits: Thresholds = DEFAULT,
) -> tuple[str, str] | None:
    """What is clear while a run trains, from its epochs so far: a name and a sentence, or None.

    Args:
        history: for each epoch its `train_loss` and `validation_accuracy`, in order.
        classes: number of classes.
        validation_rows: rows of the validation split.
        epochs: epochs that the run will have.

    Returns:
        (`diverged`, …) when accuracy is at chance after two epochs and the loss is well above that of a guess,
        ln(classes), or when the loss has climbed far above its lowest. (`not_learning`, …) when after a fifth of the
        run, at least five epochs, accuracy never left chance and the loss has not fallen. Else None.
    """
    if len(history) < 2:
        return None
    losses = [epoch["train_loss"] for epoch in history]
    accuracies = [epoch["validation_accuracy"] for epoch in history if "validation_accuracy" in epoch]
    chance, guess = 1 / classes, math.log(classes)
    margin = limits.chance_margin + limits.standard_errors * math.sqrt(chance * (1 - chance) / validation_rows)
    guessing = bool(accuracies) and max(accuracies) <= chance + margin
    done = len(losses)
    if guessing and losses[-1] > limits.spike * guess and losses[-1] > limits.flat_loss * losses[-2]:
        why = f"after {done} epochs the training loss is {losses[-1]:.3g}, a guess has {guess:.3g}"
        return "diverged", f"learning rate too high: {why}"
    lowest = min(losses)
    if min(losses[-2:]) - lowest > limits.climb * max(losses[0], guess) and losses[-1] > 0.6 * losses[0]:
        why = f"the training loss climbed from {lowest:.3g} (epoch {losses.index(lowest) + 1}) to {losses[-1]:.3g}"
        return "diverged", f"learning rate too high: {why}"
    if guessing and done >= max(5, 0.2 * epochs) and losses[-1] > (1 - limits.no_fall / 2) * losses[0]:
        why = f"after {done} epochs accuracy is {accuracies[-1]:.1%} and the loss {losses[-1]:.3g}, as at the start"
        return "not_learning", f"nothing is learning: {why}"
    return None
