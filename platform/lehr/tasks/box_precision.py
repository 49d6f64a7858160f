"""Average precision of boxes as COCO defines it, equal to pycocotools (`COCOeval`, boxes).

Each image is matched by itself (`match`), on whichever worker it is; what that leaves is a few numbers for each
predicted box. `average_precision` puts those of all images together, in the order of the images, and makes the figures
of them.

Lin et al., "Microsoft COCO: common objects in context", 2014; https://cocodataset.org/#detection-eval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OVERLAPS = np.linspace(0.5, 0.95, 10)
"""Least overlaps (intersection over union) of a match."""
RECALLS = np.linspace(0.0, 1.0, 101)
"""At these recalls the precision is averaged."""
AREAS: dict[str, tuple[float, float]] = {
    "": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
"""Areas of boxes in square pixels, by the ending of the figure's name."""
MOST_BOXES = 100
"""Predicted boxes of an image that count: those with the highest scores."""

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Matches:
    """What the boxes of one class in one image come to.

    Attributes:
        scores: [predicted], falling.
        right: bool [areas, overlaps, predicted]: matched with a true box.
        ignored: bool [areas, overlaps, predicted]: neither right nor wrong.
        true: [areas], how many true boxes there are to be found.
    """

    scores: Floats
    right: Flags
    ignored: Flags
    true: NDArray[np.int64]


def match(
    predicted: Floats,
    scores: Floats,
    labels: NDArray[np.int64],
    truth: Floats,
    crowd: Flags,
    areas: Floats | None = None,
) -> dict[int, Matches]:
    """The matches of one image, by class. A class that is neither predicted nor there has none.

    Args:
        predicted: [boxes, 4], sides x0, y0, x1, y1. scores, labels: [boxes].
        truth: [boxes, 5], class and sides. crowd: [boxes]: around many things; neither missed nor to be found.
        areas: [boxes] of what is inside the true boxes, such as masks; by default those of the boxes.
    """
    inside = _area(truth[:, 1:]) if areas is None else areas
    found = {}
    for label in sorted({*labels.tolist(), *truth[:, 0].astype(np.int64).tolist()}):
        of_truth = truth[:, 0] == label
        ours = np.flatnonzero(labels == label)
        ours = ours[np.argsort(-scores[ours], kind="mergesort")][:MOST_BOXES]
        overlap = overlaps(predicted[ours], truth[of_truth, 1:], crowd[of_truth])
        found[label] = _match(predicted[ours], scores[ours], overlap, crowd[of_truth], inside[of_truth])
    return found


def _match(predicted: Floats, scores: Floats, overlap: Floats, crowd: Flags, areas: Floats) -> Matches:
    low, high = (np.array(limits)[:, None] for limits in zip(*AREAS.values(), strict=True))
    left_out = crowd | (areas < low) | (areas > high)  # [areas, true]
    own = _area(predicted)
    outside = ((own < low) | (own > high))[:, None]
    matched = _greedy(overlap, left_out, crowd)
    hit = matched >= 0
    ignored = ~hit & outside
    if len(areas):
        ignored |= hit & np.take_along_axis(left_out[:, None], matched.clip(min=0), axis=2)
    return Matches(scores, hit, ignored, (~left_out).sum(axis=1))


def _greedy(overlap: Floats, left_out: Flags, crowd: Flags) -> NDArray[np.int64]:
    """int64 [areas, overlaps, predicted]: the true box that each predicted one is matched with, −1 for none: in the
    order of the scores, each with the free one that it overlaps most, the last of several; one that counts before one
    that does not; many with the same crowd."""
    count, true = overlap.shape
    matched = np.full((len(AREAS), len(OVERLAPS), count), -1)
    free = np.ones((len(AREAS), len(OVERLAPS), true), bool)
    enough = np.minimum(OVERLAPS, 1 - 1e-10)[:, None]
    for number in np.flatnonzero((overlap >= enough[0]).any(axis=1)) if true else ():  # of others there is no match
        row = overlap[number]
        possible = np.where((free | crowd) & (row >= enough), row, -1.0)
        counting = np.where(left_out[:, None], -1.0, possible)
        which = np.where(counting.max(axis=2, keepdims=True) >= 0, counting, possible)[:, :, ::-1]
        best = which.argmax(axis=2)
        chosen = np.where(np.take_along_axis(which, best[:, :, None], axis=2)[:, :, 0] >= 0, true - 1 - best, -1)
        matched[:, :, number] = chosen
        area, least = np.nonzero(chosen >= 0)
        free[area, least, chosen[area, least]] = False
    return matched


def overlaps(predicted: Floats, truth: Floats, crowd: Flags) -> Floats:
    """[predicted, true]: intersection over union; with a crowd, over the area of the predicted box."""
    low = np.maximum(predicted[:, None, :2], truth[None, :, :2])
    high = np.minimum(predicted[:, None, 2:], truth[None, :, 2:])
    shared = (high - low).clip(min=0).prod(axis=2)
    own = _area(predicted)[:, None]
    whole = np.where(crowd, own, own + _area(truth)[None] - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def _area(boxes: Floats) -> Floats:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def average_precision(images: Sequence[Mapping[int, Matches]], names: Sequence[str]) -> dict[str, float]:
    """`map`, over all overlaps; `map_50`, `map_75`; `map_small`, `map_medium`, `map_large`; `ap_NAME` of each class.

    NaN where no box was to be found.

    Args:
        images: the matches of each image, in order.
    """
    return figures(precision_of_classes(images, len(names)), names)


def precision_of_classes(images: Sequence[Mapping[int, Matches]], classes: int) -> Floats:
    """[classes, areas, overlaps]: average precision; NaN where no box was to be found."""
    each = np.full((classes, len(AREAS), len(OVERLAPS)), np.nan)
    for label in range(classes):
        of_class = [found[label] for found in images if label in found]
        if of_class:
            each[label] = _of_class(of_class)
    return each


def figures(each: Floats, names: Sequence[str]) -> dict[str, float]:
    """What `average_precision` gives, from what `precision_of_classes` found."""
    at = {round(float(least), 2): k for k, least in enumerate(OVERLAPS)}
    found = {"map": each[:, 0], "map_50": each[:, 0, at[0.5]], "map_75": each[:, 0, at[0.75]]}
    found |= {f"map_{name}": each[:, number] for number, name in enumerate(AREAS) if name}
    found |= {f"ap_{name}": each[number, 0] for number, name in enumerate(names)}
    return {name: float(np.nanmean(values)) if np.isfinite(values).any() else np.nan for name, values in found.items()}


def _of_class(of_class: Sequence[Matches]) -> Floats:
    """[areas, overlaps]: the precision, averaged over `RECALLS`; NaN without a true box."""
    scores = np.concatenate([found.scores for found in of_class])
    order = np.argsort(-scores, kind="mergesort")
    right, ignored = (
        np.concatenate([getattr(found, name) for found in of_class], axis=2)[:, :, order]
        for name in ("right", "ignored")
    )
    true = np.sum([found.true for found in of_class], axis=0)
    found = np.full(right.shape[:2], np.nan)
    for number, count in enumerate(true.tolist()):
        for k in range(len(OVERLAPS) if count else 0):
            found[number, k] = _precisions(right[number, k], ignored[number, k], count).mean()
    return found


def _precisions(right: Flags, ignored: Flags, true: int) -> Floats:
    """[recalls]: the precision at each of `RECALLS`, 0 beyond the highest recall, of predicted boxes in the order of
    their scores."""
    hits = np.cumsum(right & ~ignored, dtype=np.float64)
    misses = np.cumsum(~right & ~ignored, dtype=np.float64)
    recall, precision = hits / true, hits / np.maximum(hits + misses, np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]  # at each recall the best that a higher one has
    return np.append(precision, 0.0)[np.searchsorted(recall, RECALLS, side="left")]


def precision_over_recall(images: Sequence[Mapping[int, Matches]], classes: int) -> list[Floats | None]:
    """Of each class the precision at each of `RECALLS`, at half overlap and of any size, whose mean is its average
    precision there; None without a true box."""
    found: list[Floats | None] = []
    for label in range(classes):
        of_class = [matches[label] for matches in images if label in matches]
        true = sum(int(matches.true[0]) for matches in of_class)
        if not true:
            found.append(None)
            continue
        order = np.argsort(-np.concatenate([matches.scores for matches in of_class]), kind="mergesort")
        right = np.concatenate([matches.right[0, 0] for matches in of_class])[order]
        ignored = np.concatenate([matches.ignored[0, 0] for matches in of_class])[order]
        found.append(_precisions(right, ignored, true))
    return found
