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
    shape = (len(AREAS), len(OVERLAPS), len(scores))
    right, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    true, own = np.zeros(len(AREAS), np.int64), _area(predicted)
    for number, (low, high) in enumerate(AREAS.values()):
        left_out = crowd | (areas < low) | (areas > high)
        order = np.argsort(left_out, kind="mergesort")  # those that count come first, and are matched first
        true[number] = int((~left_out).sum())
        for k, least in enumerate(OVERLAPS):
            matched = _greedy(overlap[:, order], left_out[order], crowd[order], least)
            hit = matched >= 0
            right[number, k] = hit
            ignored[number, k, hit] = left_out[order][matched[hit]]
            ignored[number, k] |= ~hit & ((own < low) | (own > high))
    return Matches(scores, right, ignored, true)


def _greedy(overlap: Floats, left_out: Flags, crowd: Flags, least: float) -> NDArray[np.int64]:
    """The true box that each predicted one is matched with, −1 for none: in the order of the scores, each with the free
    one that it overlaps most; one that counts before one that does not; many with the same crowd."""
    matched, taken = np.full(len(overlap), -1), np.zeros(overlap.shape[1], bool)
    for number, row in enumerate(overlap):
        best, chosen = min(least, 1 - 1e-10), -1
        for each in range(len(row)):
            if taken[each] and not crowd[each]:
                continue
            if chosen >= 0 and not left_out[chosen] and left_out[each]:
                break
            if row[each] >= best:
                best, chosen = float(row[each]), each
        if chosen >= 0:
            taken[chosen], matched[number] = True, chosen
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
    each = np.full((len(names), len(AREAS), len(OVERLAPS)), np.nan)
    for label in range(len(names)):
        of_class = [found[label] for found in images if label in found]
        if of_class:
            each[label] = _of_class(of_class)
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
            hits = np.cumsum(right[number, k] & ~ignored[number, k], dtype=np.float64)
            misses = np.cumsum(~right[number, k] & ~ignored[number, k], dtype=np.float64)
            recall, precision = hits / count, hits / np.maximum(hits + misses, np.spacing(1))
            precision = np.maximum.accumulate(precision[::-1])[::-1]  # at each recall the best that a higher one has
            at = np.searchsorted(recall, RECALLS, side="left")
            found[number, k] = np.append(precision, 0.0)[at].mean()  # 0 beyond the highest recall
    return found
