"""The task: labels are boxes with their classes, values the boxes that were found, the surest first.

Values are float [rows, 100, 6]: score, class and sides x0, y0, x1, y1 of each box; 0, −1 and 0 where there is none.
Labels are `Ragged` [boxes, 6]: class, sides, and 1 for a box around many things (a crowd), which is not learned and, if
it is missed, no mistake. While a network trains, both are in the pixels of its input; of predictions and in `lehr
evaluate` they are in those of the original images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw
from torch import Tensor, nn

from lehr.tasks.base import Learned, Panel, Task
from lehr.tasks.box_precision import (
    AREAS,
    MOST_BOXES,
    RECALLS,
    Matches,
    average_precision,
    match,
    precision_of_classes,
    precision_over_recall,
)
from lehr.tasks.detection.decoding import NUMBERS, decode
from lehr.tasks.detection.moving import move_boxes
from lehr.tasks.detection.network import Detector
from lehr.tasks.detection.targets import losses
from lehr.tasks.forms import LabelKind
from lehr.tasks.losses import Activation

HALF = 0.5
MOST_NAMED = 4
_TRUE, _FOUND, _WRONG = "#2e9e5b", "#2f6fdd", "#d9482b"


@dataclass
class Detection(Task[Tensor]):
    """Boxes with classes.

    Attributes:
        names: of the classes.
        width: channels of the pyramid and of the head. depth: convolutions of the head before the last.
        finest: stride of the finest level; None: as the network has it.
        told_from: the score from which on a box is told to people and drawn: the one that had the best F1 at half
            overlap on the validation rows. Average precision and prediction files need no threshold.
    """

    labels: ClassVar[LabelKind] = "boxes"
    usual_activation: ClassVar[Activation] = "sigmoid"
    places: ClassVar[bool] = True
    score: ClassVar[str] = "map"
    metric: ClassVar[str] = "map"
    refused_average: ClassVar[str] = (
        "two networks find other boxes, and not the same number of them; allowed: one network, trained for longer"
    )
    wraps: ClassVar[bool] = True
    ranks: ClassVar[bool] = True
    legend: ClassVar[str] = "Green: true. Blue: found, and right at half overlap. Red: found, and wrong."
    chooses: ClassVar[bool] = True
    shows: ClassVar[bool] = True

    names: tuple[str, ...]
    width: int = 64
    depth: int = 2
    finest: int | None = None
    told_from: float = HALF

    @classmethod
    def fit(  # type: ignore[override]  # its options by name
        cls, learned: Learned, width: int = 64, depth: int = 2, finest: int | None = None
    ) -> Self:
        for name, value, least in (("width", width, 8), ("depth", depth, 0), ("finest", finest, 1)):
            if value is not None and value < least:
                raise ValueError(f"{name}: {value} is out of range; allowed: from {least}")
        boxes = learned.targets.values
        if not len(boxes) or bool((boxes[:, 5] > 0).all()):
            raise ValueError("no row to train on has a box; allowed: rows with boxes among those without")
        return cls(learned.names, width, depth, finest)

    @classmethod
    def restore(cls, names: Sequence[str], state: Mapping[str, Any], activation: Activation) -> Self:
        size = int(state["width"]), int(state["depth"]), state["finest"]
        return cls(tuple(names), *size, float(state.get("told_from", HALF)))

    def state(self) -> dict[str, Any]:
        return {"width": self.width, "depth": self.depth, "finest": self.finest, "told_from": self.told_from}

    def choices(self, values: np.ndarray, labels: Any) -> dict[str, Any]:
        return {"told_from": best_threshold(list(self._matches(values, labels)))}

    def with_choices(self, chosen: Mapping[str, Any]) -> Self:
        return replace(self, told_from=float(chosen["told_from"]))

    # ── training and measuring ──────────────────────────────────────────────────────────────────────────────────────

    @property
    def outputs(self) -> int:
        return len(self.names)

    @property
    def metric_names(self) -> tuple[str, ...]:
        sizes = (f"map_{name}" for name in AREAS if name)
        return ("loss", "map", "map_50", "map_75", *sizes, *(f"ap_{name}" for name in self.names))

    def network(self, backbone: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
        return Detector(backbone, shape, len(self.names), width=self.width, depth=self.depth, finest=self.finest)

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        return losses(outputs, targets).sum()

    def sums(self, outputs: Tensor, targets: Any) -> dict[str, Tensor]:
        return {"loss": losses(outputs, targets).sum()}

    def metrics(self, sums: Mapping[str, Any], rows: int) -> dict[str, float]:
        return {"loss": sums["loss"] / rows}

    def kept(self, outputs: Tensor) -> Tensor:
        return decode(outputs)

    def whole(self, outputs: Tensor, targets: Any) -> dict[str, float]:
        return self.measure(outputs.numpy(), targets)

    @property
    def chance(self) -> float:
        """A guess hits no box by half."""
        return 0.0

    def values(self, outputs: Tensor) -> Tensor:
        return decode(outputs)

    @property
    def shape_of_values(self) -> tuple[int, ...]:
        return MOST_BOXES, NUMBERS

    def average(self, values: Tensor, weights: Tensor) -> Tensor:
        return values[0]  # there is one network

    def move(self, targets: Any, matrices: Tensor, size: tuple[int, int]) -> Any:
        return move_boxes(targets, matrices, size)

    def measure(self, values: np.ndarray, labels: Any) -> dict[str, float]:
        return average_precision(list(self._matches(values, labels)), self.names)

    def _matches(self, values: np.ndarray, labels: Any, least: float = 0.0) -> Iterator[dict[int, Matches]]:
        """Of each row its matches by class, of boxes with a score of `least` or more."""
        for found, truth in zip(values, _rows(labels), strict=True):
            yield _matches_of(found, truth, least)

    # ── what is made of the values ──────────────────────────────────────────────────────────────────────────────────

    def in_original(self, values: np.ndarray, sizes: np.ndarray, scale: np.ndarray) -> np.ndarray:
        moved = np.array(values)
        limit = sizes[:, [1, 0, 1, 0]].astype(np.float64)[:, None]
        sides = moved[:, :, 2:] / scale[:, [1, 0, 1, 0]][:, None]
        moved[:, :, 2:] = np.clip(sides, 0, limit)
        nothing = (moved[:, :, 4:] <= moved[:, :, 2:4]).any(axis=2)  # it lies in the grey beside the image
        moved[nothing] = [0, -1, 0, 0, 0, 0]
        return np.take_along_axis(moved, np.argsort(nothing, axis=1, kind="stable")[:, :, None], axis=1)

    def columns(self, values: np.ndarray, unreadable: np.ndarray) -> dict[str, pa.Array[Any]]:
        rows = [None if odd else row[row[:, 0] > 0] for row, odd in zip(values, unreadable, strict=True)]

        def of(make: Any) -> list[Any]:
            return [None if row is None else make(row) for row in rows]

        return {
            "prediction": pa.array(of(lambda row: row[:, 1].astype(int).tolist()), pa.list_(pa.int64())),
            "classes": pa.array(of(lambda row: [self._name(label) for label in row[:, 1]]), pa.list_(pa.string())),
            "scores": pa.array(of(lambda row: row[:, 0].tolist()), pa.list_(pa.float32())),
            "boxes": pa.array(of(lambda row: row[:, 2:].tolist()), pa.list_(pa.list_(pa.float32(), 4))),
        }

    def told(self, values: np.ndarray, top: int) -> list[tuple[str, str]]:
        sure = [row for row in values if row[0] >= self.told_from]
        found = [(self._name(label), f"{score:.0%} at {_corners(sides)}") for score, label, *sides in sure]
        return found or [("nothing that it knows", "")]

    def to_json(self, values: np.ndarray, top: int) -> dict[str, Any]:
        real = values[values[:, 0] > 0]
        return {
            "boxes": [
                {"class": self._name(label), "score": float(score), "box": [float(each) for each in sides]}
                for score, label, *sides in real
            ]
        }

    def errors(self, values: np.ndarray, labels: Any) -> np.ndarray:
        """The boxes that were missed, and the scores of those that are wrong, of the boxes that are told to people."""
        found = []
        for matches in self._matches(values, labels, self.told_from):
            missed = sum(int(each.true[0]) - int(_right(each).sum()) for each in matches.values())
            wrong = sum(float(each.scores[_wrong(each)].sum()) for each in matches.values())
            found.append(missed + wrong)
        return np.array(found, np.float64)

    def caption(self, values: np.ndarray, label: np.ndarray) -> list[str]:
        matches = _matches_of(values, label, self.told_from)
        true = sum(int(each.true[0]) for each in matches.values())
        right = sum(int(_right(each).sum()) for each in matches.values())
        missed = {k: int(each.true[0]) - int(_right(each).sum()) for k, each in matches.items()}
        wrong = {k: int(_wrong(each).sum()) for k, each in matches.items()}
        lines = [f"{right} of {true} found"]
        for what, counts in (("missed", missed), ("wrongly told", wrong)):
            if named := self._counted(counts):
                lines.append(f"{what}: {named}")
        return lines

    def _counted(self, counts: Mapping[int, int]) -> str:
        most = sorted(((n, k) for k, n in counts.items() if n), reverse=True)
        named = [self._name(k) if n == 1 else f"{n} × {self._name(k)}" for n, k in most[:MOST_NAMED]]
        return ", ".join(named) + (", …" if len(most) > MOST_NAMED else "")

    def table(self, values: np.ndarray, labels: Any) -> tuple[list[str], list[list[str]]]:
        each = precision_of_classes(list(self._matches(values, labels)), len(self.names))
        told = list(self._matches(values, labels, self.told_from))
        lines = []
        for k, name in enumerate(self.names):
            of_class = [matches[k] for matches in told if k in matches]
            true = sum(int(found.true[0]) for found in of_class)
            right = sum(int(_right(found).sum()) for found in of_class)
            wrong = sum(int(_wrong(found).sum()) for found in of_class)
            mean = float(np.nanmean(each[k, 0])) if np.isfinite(each[k, 0]).any() else math.nan
            found = right / true if true else math.nan
            sure = right / (right + wrong) if right + wrong else math.nan
            shares = (mean, float(each[k, 0, 0]), found, sure)
            lines.append([name, f"{true:,}", *("" if math.isnan(share) else f"{share:.1%}" for share in shares)])
        return ["class", "boxes", "average precision", "at half overlap", "found", "of its boxes right"], lines

    def panels(self, values: np.ndarray, labels: Any) -> list[Panel]:
        """Precision over recall of each class at half overlap."""
        found = precision_over_recall(list(self._matches(values, labels)), len(self.names))
        lines = [
            {"name": name, "told": f"{each.mean():.1%}", "x": RECALLS.tolist(), "y": each.round(4).tolist()}
            for name, each in zip(self.names, found, strict=True)
            if each is not None
        ]
        about = "Below each name: its average precision at half overlap."
        content = {"lines": lines, "x": "recall", "y": "Precision", "about": about}
        return [Panel("curves", "Precision over recall", content)] if lines else []

    def draw(self, picture: Image.Image, scale: float, values: np.ndarray, label: np.ndarray) -> Image.Image:
        """In the colours that `legend` names."""
        drawn = picture.convert("RGB")
        pen = ImageDraw.Draw(drawn)
        matches = _matches_of(values, label, self.told_from)
        for row in label:
            pen.rectangle([scale * side for side in row[1:5]], outline=_TRUE, width=1)
        for score, number, *sides in values[values[:, 0] >= self.told_from]:
            right = _is_right(matches, score, number)
            pen.rectangle([scale * side for side in sides], outline=_FOUND if right else _WRONG, width=2)
        return drawn

    def _name(self, label: float) -> str:
        return self.names[int(label)]


def _rows(labels: Any) -> Iterator[np.ndarray]:
    """The boxes of each row, of a `Ragged` or a `RaggedTensor`."""
    values = labels.values.cpu().numpy() if isinstance(labels.values, Tensor) else labels.values
    starts = labels.starts.tolist()
    for first, end in pairwise(starts):
        yield values[first:end].reshape(-1, 6).astype(np.float64)


def _matches_of(found: np.ndarray, truth: np.ndarray, least: float) -> dict[int, Matches]:
    real = found[(found[:, 0] >= least) & (found[:, 0] > 0)].astype(np.float64)
    truth = truth.reshape(-1, 6)
    return match(real[:, 2:], real[:, 0], real[:, 1].astype(np.int64), truth[:, :5], truth[:, 5] > 0)


def _right(found: Matches) -> np.ndarray:
    """bool [predicted]: right at half overlap, of any size."""
    return found.right[0, 0] & ~found.ignored[0, 0]


def _wrong(found: Matches) -> np.ndarray:
    return ~found.right[0, 0] & ~found.ignored[0, 0]


def _is_right(found: Mapping[int, Matches], score: float, number: float) -> bool:
    matches = found[int(number)]
    return bool(matches.right[0, 0, int(np.abs(matches.scores - score).argmin())])


def best_threshold(images: Sequence[Mapping[int, Matches]]) -> float:
    """The score from which on boxes have the best F1 at half overlap, over all classes: midway between two neighbours.

    Half where no box is right.
    """
    each = [found for matches in images for found in matches.values()]
    counts = [_right(found) | _wrong(found) for found in each]
    scores = np.concatenate([found.scores[kept] for found, kept in zip(each, counts, strict=True)] or [np.zeros(0)])
    right = np.concatenate([_right(found)[kept] for found, kept in zip(each, counts, strict=True)] or [np.zeros(0)])
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(right[order])
    if not len(ranked) or not hits[-1]:
        return HALF
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + sum(int(found.true[0]) for found in each))
    best = int(np.where(np.append(ranked[1:] != ranked[:-1], True), f1, 0).argmax())
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + below) / 2)


def _corners(sides: Sequence[float]) -> str:
    x0, y0, x1, y1 = (round(float(side)) for side in sides)
    return f"{x0}, {y0} to {x1}, {y1}"


TASK = Detection
