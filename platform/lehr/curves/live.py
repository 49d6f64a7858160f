"""What is clear while a run still trains. Cheap: it reads two numbers per epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lehr.curves.findings import LEARNING_RATE_TOO_HIGH, NOT_LEARNING
from lehr.curves.thresholds import DEFAULT, Thresholds


def diagnose_live(
    history: Sequence[Mapping[str, float]],
    *,
    classes: int,
    chance_loss: float,
    validation_rows: int,
    epochs: int,
    limits: Thresholds = DEFAULT,
) -> tuple[str, str] | None:
    """What is clear while a run trains, from its epochs so far: a name and a sentence, or None.

    Args:
        history: for each epoch its `train_loss` and `validation_accuracy`, in order.
        classes: number of classes.
        chance_loss: the loss while the network tells nothing apart, such as ln(classes); NaN where it is not known.
        validation_rows: rows of the validation split.
        epochs: epochs that the run will have.

    Returns:
        (`diverged`, …) if accuracy is at chance level after two epochs and the loss is well above `chance_loss`, or if
        the loss has risen far above its minimum; neither is judged of a loss that falls below zero. (`not_learning`, …)
        if after a fifth of the run, at least five epochs, accuracy never left chance level and the loss has not fallen.
        Else None.
    """
    if len(history) < 2:
        return None
    losses = [epoch["train_loss"] for epoch in history]
    accuracies = [epoch["validation_accuracy"] for epoch in history if "validation_accuracy" in epoch]
    high = min(losses) >= 0 and losses[-1] > limits.spike * chance_loss
    at_chance = bool(accuracies) and max(accuracies) <= limits.chance_level(1 / classes, validation_rows)
    done = len(losses)
    if high and at_chance and losses[-1] > limits.flat_loss * losses[-2]:
        why = f"after {done} epochs the training loss is {losses[-1]:.3g}, above chance level ({chance_loss:.3g})"
        return "diverged", _sentence(LEARNING_RATE_TOO_HIGH, why)
    lowest = min(losses)
    climbed = min(losses[-2:]) - lowest > limits.climb * max(losses[0], chance_loss)
    if lowest >= 0 and climbed and losses[-1] > 0.6 * losses[0]:
        why = f"the training loss rose from {lowest:.3g} (epoch {losses.index(lowest) + 1}) to {losses[-1]:.3g}"
        return "diverged", _sentence(LEARNING_RATE_TOO_HIGH, why)
    fell = losses[0] - losses[-1] >= limits.no_fall / 2 * abs(losses[0])
    if at_chance and done >= max(5, 0.2 * epochs) and not fell:
        why = (
            f"after {done} epochs accuracy is at chance level ({accuracies[-1]:.1%}) and the training loss "
            f"({losses[-1]:.3g}) has not fallen"
        )
        return "not_learning", _sentence(NOT_LEARNING, why)
    return None


def _sentence(title: str, why: str) -> str:
    return f"{title[:1].lower()}{title[1:]}: {why}"
