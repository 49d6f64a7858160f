"""What to try, by the size of the data and their likeness to the pretraining; and which of what was tried to take.

The guide is the one of the lecture (Stanford's CS231n, "Transfer learning and fine-tuning convnets"): little and alike,
a linear classifier on the features; plenty and alike, fine-tune; plenty and different, fine-tune much of it, or train
from scratch; little and different is trouble.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lehr.job.transfer import Strategy
from lehr.transfer.similarity import SIMILAR, Similarity

LITTLE = 30  # images per class: features won or tied at 10, fine-tuning won from 50 on
DIFFERENCE = 1.0  # standard errors by which another must be better to be preferred to what the guide says

Place = tuple[bool, bool]  # (little, similar)

TABLE: dict[Place, tuple[str, tuple[Strategy, ...]]] = {
    (True, True): ("Train a linear head on the features", ("features", "finetune")),
    (False, True): ("Fine-tune the network", ("finetune", "features")),
    (True, False): ("Trouble: try everything, and get more images", ("features", "finetune", "scratch")),
    (False, False): ("Fine-tune much of the network, or train from scratch", ("finetune", "scratch", "features")),
}
"""From (little data, similar data) to what the guide says and what to try, the first choice first."""


@dataclass(frozen=True)
class Advice:
    """What the guide says for one job.

    Attributes:
        little, similar: its place in the table.
        candidates: what to try, the first choice first.
        why: the measurements behind it, in a sentence.
        warning: what the user should know; empty if nothing.
    """

    little: bool
    similar: bool
    candidates: tuple[Strategy, ...]
    why: str
    warning: str = ""


def advise(images: int, classes: int, similarity: Similarity) -> Advice:
    """The guide for so many training images of so many classes.

    Where chance may have put the likeness on one side of its threshold, what the other side would try is tried, too.
    """
    each = images / max(1, classes)
    little, similar = each < LITTLE, similarity.similar
    candidates = TABLE[little, similar][1]
    if not similarity.sure:
        candidates = tuple(dict.fromkeys((*candidates, *TABLE[little, not similar][1])))
    why = (
        f"{each:,.0f} training images per class are {'little' if little else 'quite a lot'} (from {LITTLE} on); a "
        f"linear probe reaches {similarity.pretrained:.1%} on the pretrained features and {similarity.random:.1%} on "
        f"those of random weights, {100 * similarity.gain:+.1f} ± {100 * similarity.error:.1f} points: "
        f"{'similar to' if similar else 'different from'} what the network knows (from {100 * SIMILAR:.0f} points on)"
    )
    warning = ""
    if little and not similar:
        warning = (
            "The data are little and very different from those of the pretraining, of which little carries over: more "
            "images, or a backbone that was pretrained on more similar ones, will help more than tuning."
        )
    return Advice(little, similar, candidates, why, warning)


@dataclass(frozen=True)
class Choice:
    """Which strategy to take, and why, in a sentence."""

    strategy: Strategy
    why: str


def choose(candidates: tuple[Strategy, ...], accuracy: Mapping[Strategy, float], rows: int) -> Choice:
    """The candidate that validation decides for.

    The guide's first choice stands unless another is better by more than chance: by `DIFFERENCE` binomial standard
    errors of the difference on `rows` validation images. On many images that is simply the best.

    Args:
        candidates: the first choice first.
        accuracy: validation accuracy, 0 to 1, of those that ended well; at least one.
    """
    tried = [name for name in candidates if name in accuracy]
    chosen, why = tried[0], ""
    for name in tried[1:]:
        a, b = accuracy[name], accuracy[chosen]
        error = math.sqrt((a * (1 - a) + b * (1 - b)) / max(1, rows))
        if a - b > DIFFERENCE * error:
            why = f"{name} is {100 * (a - b):.1f} points above {chosen} on {rows:,} validation images"
            why += f", more than the {100 * error:.1f} that chance explains"
            chosen = name
    if why:
        return Choice(chosen, why)
    better = [name for name in tried[1:] if accuracy[name] > accuracy[chosen]]
    if better:
        gap = max(accuracy[name] for name in better) - accuracy[chosen]
        return Choice(
            chosen,
            f"{better[0]} is {100 * gap:.1f} points better on {rows:,} validation images, which chance explains, and "
            f"the guide prefers {chosen}",
        )
    return Choice(chosen, f"{chosen} has the best validation accuracy" if len(tried) > 1 else "nothing else was tried")
