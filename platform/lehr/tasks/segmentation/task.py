"""The task: labels are masks, a class for each pixel, and so is what is found.

Labels are uint8 [rows, height, width] in the pixels of the network's input while it trains, and of `lehr evaluate`
those of the original images; 255 is not counted. Outputs are logits [rows, classes, height, width]. Their values are
probabilities, which networks of an ensemble average; what is kept of them (`decided`) is the most probable class.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor, nn

from lehr.tasks.base import Learned, Panel, Task, of_each
from lehr.tasks.forms import MOST_CLASSES, NOT_COUNTED, UNREAD_PIXEL, LabelKind
from lehr.tasks.losses import Activation, Loss
from lehr.tasks.mask_arrays import as_palette_png, overlay, resized
from lehr.tasks.segmentation.losses import LOSSES, cross_entropy
from lehr.tasks.segmentation.measures import (
    accuracy,
    chance_of,
    confusion_of,
    confusion_of_row,
    mean_overlap,
    overlaps,
    pixels_of_classes,
)
from lehr.tasks.segmentation.moving import move_masks
from lehr.tasks.segmentation.network import AUXILIARY, Ready, UNet, segments

MOST_NAMED = 4
BESIDE = 4
"""Pixels between two pictures that are side by side."""
OutputsOfNetwork = Tensor | tuple[Tensor, Tensor]


@dataclass
class Segmentation(Task[OutputsOfNetwork]):
    """A class for each pixel.

    Attributes:
        names: of the classes.
        width: channels of the decoder at its finest level.
        guess: the mean overlap of the class that most pixels of the training rows are of; NaN where it is not known.
        trained: the loss that is minimised. plain: what is measured.
    """

    labels: ClassVar[LabelKind] = "mask"
    losses: ClassVar[Mapping[str, Callable[..., Tensor]]] = LOSSES
    places: ClassVar[bool] = True
    score: ClassVar[str] = "miou"
    metric: ClassVar[str] = "miou"
    wraps: ClassVar[bool] = True
    shows: ClassVar[bool] = True
    legend: ClassVar[str] = "Left: true. Right: found. A colour for each class; the first class has none."

    names: tuple[str, ...]
    width: int = 32
    guess: float = math.nan
    trained: Loss = field(default_factory=lambda: Loss(cross_entropy))
    plain: Loss = field(default_factory=lambda: Loss(cross_entropy))

    @classmethod
    def fit(cls, learned: Learned, width: int = 32) -> Self:  # type: ignore[override]  # its options by name
        if width < 4:
            raise ValueError(f"width: {width} is out of range; allowed: from 4")
        if not 2 <= len(learned.names) <= MOST_CLASSES:
            what = f"its masks have {len(learned.names)} class{'es' if len(learned.names) != 1 else ''}"
            raise ValueError(f"{what}; allowed: 2 to {MOST_CLASSES}, with one for what is none of the others")
        guess = math.nan
        if learned.targets.stride(0):  # masks that are read with their images are not there yet
            counts = pixels_of_classes(learned.targets, len(learned.names)).numpy()
            if not counts.sum():
                raise ValueError("no pixel of the rows to train on counts: all are 255; allowed: masks with classes")
            if (counts > 0).sum() == 1:
                only = learned.names[int(counts.argmax())]
                what = f"all pixels to train on are of one class, {only}, so there is nothing to tell apart"
                raise ValueError(f"{what}; allowed: masks of two classes or more")
            guess = chance_of(counts)
        return cls(learned.names, width, guess, learned.trained, learned.plain)

    @classmethod
    def restore(cls, names: Sequence[str], state: Mapping[str, Any], activation: Activation) -> Self:
        plain = replace(Loss(cross_entropy), activation=activation)
        return cls(tuple(names), int(state["width"]), float(state.get("guess") or math.nan), plain, plain)

    def state(self) -> dict[str, Any]:
        return {"width": self.width, "guess": None if math.isnan(self.guess) else self.guess}

    # ── training and measuring ──────────────────────────────────────────────────────────────────────────────────────

    @property
    def outputs(self) -> int:
        return len(self.names)

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("loss", "miou", "pixel_accuracy", *(f"iou_{name}" for name in self.names))

    @property
    def activation(self) -> Activation:
        return self.plain.activation

    def network(self, backbone: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
        if segments(backbone, shape, len(self.names)):
            return Ready(backbone)
        return UNet(backbone, shape, len(self.names), width=self.width)

    def loss(self, outputs: OutputsOfNetwork, targets: Tensor) -> Tensor:
        known, targets = _read(targets), targets.long()
        if isinstance(outputs, Tensor):
            return self.trained.summed(outputs, targets, known)
        out, auxiliary = outputs
        return self.trained.summed(out, targets, known) + AUXILIARY * self.trained.summed(auxiliary, targets, known)

    def sums(self, outputs: OutputsOfNetwork, targets: Tensor) -> dict[str, Tensor]:
        logits = _main(outputs)
        return {
            "loss": self.plain.summed(logits, targets.long(), _read(targets)),
            "confusion": confusion_of(logits.argmax(dim=1), targets, len(self.names)),
        }

    def metrics(self, sums: Mapping[str, Any], rows: int) -> dict[str, float]:
        return {"loss": sums["loss"] / rows, **self._measured(np.asarray(sums["confusion"], np.float64))}

    def _measured(self, confusion: np.ndarray) -> dict[str, float]:
        each = of_each("iou", overlaps(confusion), self.names)
        return {"miou": mean_overlap(confusion), "pixel_accuracy": accuracy(confusion), **each}

    def chance_loss(self, dtype: torch.dtype) -> float:
        zero, right = torch.zeros(1, len(self.names), 1, 1, dtype=dtype), torch.zeros(1, 1, 1, dtype=torch.int64)
        alike = self.plain.function(zero, right), self.plain.function(zero.expand(-1, -1, 2, 1), right.expand(1, 2, 1))
        # Of a sum over classes, as dice has it, it depends on the masks.
        return float(alike[0]) if torch.allclose(*alike) else math.nan

    @property
    def chance(self) -> float:
        """Every pixel is said to be of the class that most of them are of."""
        return self.guess

    def values(self, outputs: OutputsOfNetwork) -> Tensor:
        logits = _main(outputs)
        return {"softmax": lambda: logits.softmax(dim=1), "sigmoid": logits.sigmoid, "none": lambda: logits}[
            self.activation
        ]()

    def decided(self, values: Tensor) -> Tensor:
        return values.argmax(dim=1).to(torch.uint8)

    @property
    def shape_of_values(self) -> tuple[int, ...]:
        return (0, 0)

    def move(self, targets: Tensor, matrices: Tensor, size: tuple[int, int]) -> Tensor:
        return move_masks(targets, matrices, size)

    @classmethod
    def example(cls, outputs: int, rows: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        made = torch.randn(rows, outputs, 4, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
        targets = (torch.arange(rows * 16).reshape(rows, 4, 4) % outputs).to(torch.uint8)
        targets[0, 0] = NOT_COUNTED
        return made, targets

    def measure(self, values: Any, labels: Any) -> dict[str, float]:
        return self._measured(self._confusions(values, labels).sum(axis=0))

    def _confusions(self, values: Any, labels: Any) -> np.ndarray:
        """int64 [rows, classes, classes], of values as `decided` has them or as probabilities."""
        rows = zip(self._maps(values, labels), labels, strict=True)
        found = [confusion_of_row(row, truth, len(self.names)) for row, truth in rows]
        return np.array(found, np.int64).reshape(-1, len(self.names), len(self.names))

    def _maps(self, values: Any, labels: Any) -> Any:
        """The found class of each pixel, for each row."""
        if values.dtype.kind != "f":
            return values
        shape = labels.shape[1:]
        return (row.reshape(len(self.names), *shape).argmax(axis=0) for row in values)

    # ── what is made of the values ──────────────────────────────────────────────────────────────────────────────────

    def in_original(self, values: np.ndarray, sizes: np.ndarray, scale: np.ndarray) -> np.ndarray:
        found = np.empty(len(values), object)
        for row, (mask, size, by) in enumerate(zip(values, sizes, scale, strict=True)):
            tall, wide = (max(1, round(int(side) * float(each))) for side, each in zip(size, by, strict=True))
            decided = mask.argmax(axis=0).astype(np.uint8) if mask.ndim == 3 else mask
            found[row] = resized(decided[:tall, :wide], (int(size[0]), int(size[1])))
        return found

    def columns(self, values: np.ndarray, unreadable: np.ndarray) -> dict[str, pa.Array[Any]]:
        shares = [None if odd else self._ranked(row) for row, odd in zip(values, unreadable, strict=True)]

        def of(make: Any) -> list[Any]:
            return [None if row is None else [make(*each) for each in row] for row in shares]

        masks = [None if odd else as_palette_png(row) for row, odd in zip(values, unreadable, strict=True)]
        return {
            "prediction": pa.array(of(lambda label, share: label), pa.list_(pa.int64())),
            "classes": pa.array(of(lambda label, share: self.names[label]), pa.list_(pa.string())),
            "shares": pa.array(of(lambda label, share: share), pa.list_(pa.float32())),
            "mask": pa.array(masks, pa.large_binary()),
        }

    def _ranked(self, mask: np.ndarray) -> list[tuple[int, float]]:
        """The classes that are found, and the share of pixels of each, the largest first."""
        counts = np.bincount(mask.ravel(), minlength=256)[: len(self.names)]
        order = [int(each) for each in np.argsort(-counts, kind="stable") if counts[each]]
        return [(each, float(counts[each] / counts.sum())) for each in order]

    def told(self, values: np.ndarray, top: int) -> list[tuple[str, str]]:
        return [(self.names[label], f"{share:.1%}") for label, share in self._ranked(values)[:top]]

    def to_json(self, values: np.ndarray, top: int) -> dict[str, Any]:
        height, width = values.shape
        shares = {self.names[label]: share for label, share in self._ranked(values)}
        return {"height": height, "width": width, "shares": shares, "mask": _base64(as_palette_png(values))}

    def picture(self, picture: Image.Image, values: np.ndarray) -> Image.Image:
        return overlay(picture, values)

    def errors(self, values: Any, labels: Any) -> np.ndarray:
        """The share of counted pixels whose class is wrong."""
        each = self._confusions(values, labels)
        right, counted = np.trace(each, axis1=1, axis2=2), each.sum(axis=(1, 2))
        return np.where(counted > 0, 1 - right / np.maximum(counted, 1), 0.0)

    def distances(self, values: Any, labels: Any) -> np.ndarray:
        """The mean over counted pixels of 1 − the probability of the true class; of what was decided, the errors."""
        if values.dtype.kind != "f":
            return self.errors(values, labels)
        found = []
        for row, truth in zip(values, labels, strict=True):
            known = truth < len(self.names)
            sure = np.take_along_axis(row.reshape(len(self.names), *truth.shape), np.where(known, truth, 0)[None], 0)[0]
            found.append(float((1 - sure[known]).mean()) if known.any() else 0.0)
        return np.array(found)

    def recorded(self, values: Any) -> np.ndarray:
        """float64 [rows, classes]: the share of pixels that each class has, of those that count."""
        counts = np.array([np.bincount(np.ravel(row), minlength=256)[: len(self.names)] for row in values], np.float64)
        return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def caption(self, values: np.ndarray, label: np.ndarray) -> list[str]:
        confusion = confusion_of_row(values, label, len(self.names))
        if not confusion.sum():
            return ["no pixel counts"]
        lines = [f"{accuracy(confusion):.1%} of pixels right", f"mean IoU {mean_overlap(confusion):.2f}"]
        wrong = confusion - np.diag(np.diagonal(confusion))
        most = np.argsort(-wrong, axis=None, kind="stable")[:2]
        for true, found in (divmod(int(each), len(self.names)) for each in most):
            if share := wrong[true, found] / confusion.sum():
                lines.append(f"{self.names[true]} taken for {self.names[found]}: {share:.1%}")
        return lines

    def table(self, values: Any, labels: Any) -> tuple[list[str], list[list[str]]]:
        confusion = self._confusions(values, labels).sum(axis=0)
        each, total = overlaps(confusion), max(1, int(confusion.sum()))
        lines = []
        for k, name in enumerate(self.names):
            true, found, right = int(confusion[k].sum()), int(confusion[:, k].sum()), int(confusion[k, k])
            shares = (each[k], right / true if true else math.nan, right / found if found else math.nan)
            others = confusion[k].copy()
            others[k] = 0
            most = self.names[int(others.argmax())] if others.any() else ""
            said = ("" if math.isnan(share) else f"{share:.1%}" for share in shares)
            lines.append([name, f"{true / total:.1%}", *said, most])
        return ["class", "of all pixels", "IoU", "found", "of what is found right", "most often taken for"], lines

    def panels(self, values: Any, labels: Any) -> list[Panel]:
        confusion = self._confusions(values, labels).sum(axis=0)
        return [Panel("confusion", "Confusion of pixels", {"names": list(self.names), "counts": confusion.tolist()})]

    def draw(self, picture: Image.Image, scale: float, values: np.ndarray, label: np.ndarray) -> Image.Image:
        """Truth and what was found, side by side."""
        both = Image.new("RGB", (2 * picture.width + BESIDE, picture.height), (128, 128, 128))
        both.paste(overlay(picture, label), (0, 0))
        both.paste(overlay(picture, values), (picture.width + BESIDE, 0))
        return both


def _main(outputs: OutputsOfNetwork) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs[0]


def _read(targets: Tensor) -> Tensor:
    """bool [rows]: whether the image of a row could be read."""
    return targets.flatten(1)[:, 0] != UNREAD_PIXEL


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


TASK = Segmentation
