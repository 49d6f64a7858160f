"""Which transfer strategies to try, from the size of the data and its similarity to the pretraining; and which to keep.

The rule of thumb is that of Stanford's CS231n, "Transfer learning and fine-tuning convnets": with little and similar
data, train a linear classifier on the features; with plenty of similar data, fine-tune; with plenty of different data,
fine-tune much of the network or train from scratch; with little and different data, expect trouble.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lehr.intervals import in_words, overlap
from lehr.job.transfer import STRATEGIES, Strategy
from lehr.transfer.similarity import SIMILAR_GAIN, Similarity

LITTLE_DATA = 30  # images per class: features won or tied at 10, fine-tuning won from 50 on

TABLE: dict[tuple[bool, bool], tuple[str, tuple[Strategy, ...]]] = {
    (True, True): ("Train a linear head on the features", ("features", "finetune")),
    (False, True): ("Fine-tune the network", ("finetune", "features")),
    (True, False): ("Difficult: try everything, and collect more images", ("features", "finetune", "scratch")),
    (False, False): ("Fine-tune much of the network, or train from scratch", ("finetune", "scratch", "features")),
}
"""From (little data, similar data) to the rule of thumb and the strategies to try, in its order."""


@dataclass(frozen=True)
class Advice:
    """What the rule of thumb suggests for one data set.

    Attributes:
        little, similar: which cell of the table applies.
        candidates: the strategies to try, in the order of the rule of thumb.
        why: the measurements behind it, for people; without the last full stop.
        warning: what the user should know; empty if nothing.
    """

    little: bool
    similar: bool
    candidates: tuple[Strategy, ...]
    why: str
    warning: str = ""


def advise(images: int, classes: int, similarity: Similarity) -> Advice:
    """The advice for this many training images in this many classes.

    If the similarity is too close to its threshold to call, the strategies of both rows of the table are tried.
    """
    per_class = images / max(1, classes)
    little, similar = per_class < LITTLE_DATA, similarity.similar
    candidates = TABLE[little, similar][1]
    if not similarity.conclusive:
        candidates = tuple(dict.fromkeys((*candidates, *TABLE[little, not similar][1])))
    warning = ""
    if little and not similar:
        carries = (
            "is very different from that of the pretraining, so little of what was learned carries over"
            if similarity.conclusive
            else "may be very different from that of the pretraining, so that little of what was learned carries over"
        )
        warning = (
            f"There is little data, and it {carries}. More images, or a backbone pretrained on more similar images, "
            "will help more than tuning."
        )
    return Advice(little, similar, candidates, _measurements(per_class, similarity), warning)


def _measurements(per_class: float, similarity: Similarity) -> str:
    """What was measured, in sentences; without the last full stop."""
    size = "little data" if per_class < LITTLE_DATA else "enough to fine-tune"
    relation = f"The images are {'similar to' if similarity.similar else 'different from'} those of the pretraining"
    if not similarity.conclusive:
        relation = "Whether the images are similar to those of the pretraining is too close to call"
    return (
        f"{per_class:,.0f} training images per class are {size} (the limit is {LITTLE_DATA}). {relation}: a linear "
        f"probe reaches {in_words(similarity.pretrained, similarity.rows)} accuracy on the pretrained features and "
        f"{in_words(similarity.random, similarity.rows)} on those of random weights, a gain of "
        f"{100 * similarity.gain:+.1f} ± {100 * similarity.error:.1f} points (the limit is "
        f"{100 * SIMILAR_GAIN:.0f} points)"
    )


@dataclass(frozen=True)
class Choice:
    """The strategy to keep, and why, as a sentence."""

    strategy: Strategy
    why: str


def choose(
    candidates: tuple[Strategy, ...],
    accuracy: Mapping[Strategy, float],
    rows: int,
    called: Mapping[Strategy, str] | None = None,
) -> Choice:
    """The candidate with the best validation accuracy, or a cheaper one that these images cannot tell from it.

    All are measured on the same images. Where chance alone can explain how far the best is ahead of a cheaper one, the
    cheapest such is kept: the simplest model within the error of the best, as Breiman et al., "Classification and
    regression trees", 1984, choose among trees. On many images this is the best.

    Args:
        candidates: the strategies that were tried.
        accuracy: validation accuracy, 0 to 1, of the strategies that finished; at least one.
        rows: validation images.
        called: what each is called in the sentence; by default by its name.
    """
    tried = [name for name in STRATEGIES if name in candidates and name in accuracy]  # the cheapest first
    names = {name: (called or {}).get(name, name) for name in tried}
    if len(tried) == 1:
        return Choice(tried[0], "no other strategy was tried")
    best = max(tried, key=lambda name: accuracy[name])  # of equals the cheapest
    alike = [name for name in tried if overlap(accuracy[best], accuracy[name], rows)]
    chosen, images = alike[0], f"{rows:,} validation image{'s' if rows != 1 else ''}"
    if chosen != best:
        gap = 100 * (accuracy[best] - accuracy[chosen])
        return Choice(
            chosen,
            f"{names[best]} is {gap:.1f} points above it on {images}, which chance can explain: the intervals overlap, "
            f"and {names[chosen]} is the cheaper; more validation images would tell, strategy={best} takes the other",
        )
    others = [name for name in tried if name != best]
    close = [names[name] for name in others if name in alike]
    if close:
        return Choice(
            best,
            f"{names[best]} has the best validation accuracy and is the cheapest; "
            f"{images} do not tell it from {' and '.join(close)}: the intervals overlap",
        )
    second = max(others, key=lambda name: accuracy[name])
    gap = 100 * (accuracy[best] - accuracy[second])
    return Choice(
        best, f"{names[best]} is {gap:.1f} points above {names[second]} on {images}, more than chance explains"
    )
