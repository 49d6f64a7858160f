"""What a task is: the labels it reads, the outputs it trains, its loss and metrics, and how its outputs are told.

The loop never looks into targets or outputs. A task says what the network is called with, and gives *sums over rows*
(of the loss and of whatever its own metrics need): sums add up exactly over workers and batches, which means of means
do not. `metrics` turns the sums over a whole split into the numbers that are recorded. What needs all rows at once, as
a ranking does, is computed by `whole` from the outputs of all workers, brought together in the order of the rows.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor, nn

from lehr.errors import LehrError
from lehr.tasks.forms import LabelKind
from lehr.tasks.losses import Activation, Loss

Outputs: TypeAlias = "Tensor | Sequence[Outputs] | Mapping[str, Outputs]"
"""What a network may return: a tensor, or tensors in a tuple, list or mapping."""

OutputsOfTask = TypeVar("OutputsOfTask")


class Learned(NamedTuple):
    """What a task is made of.

    Attributes:
        names: of the classes or numbers, in the order of the outputs.
        targets: the labels of all training rows, as a batch has them; a tensor, or a `RaggedTensor`. Classification
            gets none of them: it needs no more than their counts.
        trained: the loss that is minimised. plain: the same without label smoothing and weights; it is what is
            measured.
    """

    names: tuple[str, ...]
    targets: Any
    trained: Loss = Loss()
    plain: Loss = Loss()


class Panel(NamedTuple):
    """A picture of the report beside the table: plain values, which any reader of a run can draw.

    Attributes:
        kind: `confusion`: `names` and `counts` [true, found]; `curves`: `lines`, each a name with x and y from 0 to 1,
            and what the axes are, `x` and `y`.
        title: its heading. content: what is drawn.
    """

    kind: str
    title: str
    content: Mapping[str, Any]


class Task(ABC, Generic[OutputsOfTask]):
    """What is learned. A task of your own is a subclass; the class attributes below have defaults that fit one class.

    Attributes:
        labels: what it reads of each row, see `lehr.tasks.forms.LabelKind`.
        losses: the losses that a job may name beside one of its own, by name; empty: the task has a loss of its own,
            and the job's section `loss` is refused.
        activation: what turns outputs into probabilities, where the loss does not say.
        mixes: whether targets may be mixed with those of another row (mixup, cutmix), as shares of the classes.
        places: whether its labels are places in the image; then `move` moves them along with the pixels.
        varies: whether a row learns something else in each epoch; then `vary` chooses it.
        mirrored: what `flip` does to its labels, as a sentence for whoever asks for it; empty where nothing is to say.
        score: its metric that goes from `chance` to 1, by which training and validation rows are compared.
        metric: what decides which checkpoint is the best where the job does not say.
        refused_average: why the outputs of several networks cannot be averaged; empty if they can.
        names: of the classes or numbers.
    """

    labels: ClassVar[LabelKind] = "class"
    losses: ClassVar[Mapping[str, Callable[..., Tensor]]] = {}
    usual_activation: ClassVar[Activation] = "softmax"
    mixes: ClassVar[bool] = False
    places: ClassVar[bool] = False
    varies: ClassVar[bool] = False
    mirrored: ClassVar[str] = ""
    score: ClassVar[str] = ""
    metric: ClassVar[str] = "loss"
    refused_average: ClassVar[str] = ""
    names: tuple[str, ...]

    # ── how it is made, and kept with a model ───────────────────────────────────────────────────────────────────────

    @classmethod
    def fit(cls, learned: Learned, **options: Any) -> Self:
        """The task for these training rows. `options` are those of the job's section `task`. Raises ValueError, as
        `option: what is wrong` or a sentence about the labels."""
        raise _missing(cls, "fit(learned, **options)")

    @classmethod
    def restore(cls, names: Sequence[str], state: Mapping[str, Any], activation: Activation) -> Self:
        """The task of a finished model: what is needed to predict and measure. `state` is what `state()` returned."""
        raise _missing(cls, "restore(names, state, activation)")

    def state(self) -> dict[str, Any]:
        """What the file of a model keeps of it, as plain values: scales, thresholds."""
        return {}

    chooses: ClassVar[bool] = False
    """Whether something is chosen on the validation rows once the model is: thresholds, say."""

    def choices(self, values: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        """What is chosen on all validation rows, as plain values."""
        return {}

    def with_choices(self, chosen: Mapping[str, Any]) -> Self:
        """The task with what `choices` returned."""
        return self

    def told_apart(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """What the outputs of its head stand for, as the file of a model names it: by default the classes, or numbers,
        of the data."""
        return classes

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever trains it should know of it and its rows, a sentence each."""
        return ()

    # ── training and measuring ──────────────────────────────────────────────────────────────────────────────────────

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Size of the head."""

    @property
    @abstractmethod
    def metric_names(self) -> tuple[str, ...]:
        """What `metrics` and `whole` return together; `loss` is always among them."""

    wraps: ClassVar[bool] = False
    """Whether `network` makes another network of the one that the job names."""

    def network(self, backbone: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
        """The network that is trained, made of the one that the job names; by default that one itself.

        Args:
            shape: (channels, height, width) of the images.

        Raises:
            ValueError: it cannot be made of this one.
        """
        return backbone

    def arguments(self, inputs: Tensor, targets: Any) -> tuple[object, ...]:
        """What the network is called with: the prepared images, and whatever else it needs to learn from targets."""
        return (inputs,)

    @abstractmethod
    def loss(self, outputs: OutputsOfTask, targets: Any) -> Tensor:
        """The training loss summed over the rows: a scalar with a gradient, of outputs in the type of the weights."""

    @abstractmethod
    def sums(self, outputs: OutputsOfTask, targets: Any) -> dict[str, Tensor]:
        """What to add up over a split: tensors of fixed shapes, such as counts by score for a precision-recall curve.
        `loss` is among them, a scalar: the plain loss, without smoothing or weights."""

    @abstractmethod
    def metrics(self, sums: Mapping[str, Any], rows: int) -> dict[str, float]:
        """The metrics of a split from its sums (numbers, and lists of them) and its number of rows."""

    ranks: ClassVar[bool] = False
    """Whether `whole` has to be called: it takes memory for the outputs of all rows on the first worker."""

    def kept(self, outputs: OutputsOfTask) -> Any:
        """What `whole` needs of the outputs, one for each row: it is kept for all rows of a split."""
        return outputs

    def whole(self, outputs: Any, targets: Any) -> dict[str, float]:
        """The metrics that need all rows of a split at once, from what was `kept` of the outputs and from the targets
        of all of them, on the CPU."""
        return {}

    @property
    def activation(self) -> Activation:
        """What makes the outputs of its networks probabilities."""
        return self.usual_activation

    def chance_loss(self, dtype: torch.dtype) -> float:
        """The plain loss of a row, if the network tells nothing apart: with outputs that are all zero.

        NaN where that means nothing.
        """
        return math.nan

    @property
    def chance(self) -> float:
        """The level of `score` that a guess without a look at the image reaches; NaN where nothing is known."""
        return math.nan

    # ── what is made of the outputs ─────────────────────────────────────────────────────────────────────────────────

    def values(self, outputs: OutputsOfTask) -> Any:
        """What the outputs mean, as prediction gives it: probabilities [rows, classes], numbers in their own unit."""
        return outputs

    def decided(self, values: Any) -> Any:
        """What is kept of the values of each row, once those of several networks are averaged: by default all of it.
        It is what `errors`, `caption`, `table` and all that prediction needs get."""
        return values

    @property
    def shape_of_values(self) -> tuple[int, ...]:
        """The shape of the values of one row."""
        return (len(self.names),)

    def average(self, values: Tensor, weights: Tensor) -> Tensor:
        """What several networks mean together: by default the weighted mean of what each means.

        Args:
            values: [networks, rows, …]. weights: float32 [networks], which add up to 1.
        """
        return (values * weights.reshape(-1, *[1] * (values.ndim - 1))).sum(dim=0)

    def for_metrics(self, outputs: OutputsOfTask) -> Any:
        """What the metrics that a job lists get: the network's own outputs, unless these are in no unit of the
        targets."""
        return outputs

    @classmethod
    def example(cls, outputs: int, rows: int, dtype: torch.dtype) -> tuple[Any, Any]:
        """Made-up outputs and targets, on which losses and metrics are tried before the first step."""
        raise _missing(cls, "example(outputs, rows, dtype)")

    def measure(self, values: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """The metrics without the loss of what was predicted for a whole data set, as `lehr evaluate` tells them."""
        raise _missing(type(self), "measure(values, labels)")

    def columns(self, values: np.ndarray, unreadable: np.ndarray) -> dict[str, pa.Array[Any]]:
        """The columns of a prediction's files, null where `unreadable` [rows] is true."""
        raise _missing(type(self), "columns(values, unreadable)")

    def told(self, values: np.ndarray, top: int) -> list[tuple[str, str]]:
        """What is predicted for one image, for people: (name, figure), the most important first, at most `top`."""
        raise _missing(type(self), "told(values, top)")

    def to_json(self, values: np.ndarray, top: int) -> dict[str, Any]:
        """The same for programs."""
        return dict(self.told(values, top))

    def in_original(self, values: np.ndarray, sizes: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """The same values for the images as they were, where they are places in them.

        Args:
            sizes: int64 [rows, 2], height and width of the images before they were letterboxed.
            scale: float64 [rows, 2], what lengths along both were multiplied by.
        """
        return values

    def draw(self, picture: Image.Image, scale: float, values: np.ndarray, label: np.ndarray) -> Image.Image:
        """The picture of an image for the report, with prediction and truth where they are places in it.

        Args:
            scale: pixels of the picture for one of the image.
        """
        return picture

    def picture(self, picture: Image.Image, values: np.ndarray) -> Image.Image | None:
        """An image with what was found in it, for people; None for a task that finds no places."""
        return None

    def recorded(self, values: Any) -> Any:
        """What the record of a run keeps of the values, or labels, of each row: by default all of it."""
        return values

    def panels(self, values: np.ndarray, labels: np.ndarray) -> list[Panel]:
        """Further pictures of a whole split for the report."""
        return []

    legend: ClassVar[str] = ""
    """What the colours of `draw` mean, as a sentence."""

    shows: ClassVar[bool] = False
    """Whether the report shows single predictions: then `errors`, `caption` and `table` are there, and values and
    labels are arrays [rows, names]."""

    def table(self, values: np.ndarray, labels: np.ndarray) -> tuple[list[str], list[list[str]]]:
        """What was predicted for a whole split, as a table with a line for each name: its head, and its lines."""
        raise _missing(type(self), "table(values, labels)")

    def errors(self, values: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """float64 [rows]: how wrong each prediction is; 0 is right. The report shows the highest first."""
        raise _missing(type(self), "errors(values, labels)")

    def distances(self, values: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """float64 [rows]: how far each prediction is from the truth, by which the members of an ensemble are chosen."""
        return self.errors(values, labels)

    def caption(self, values: np.ndarray, label: np.ndarray) -> list[str]:
        """One prediction beside the truth, in a few short lines."""
        raise _missing(type(self), "caption(values, label)")

    def vary(self, targets: Any, draw: Callable[[int], Tensor]) -> Any:
        """What is learned of the targets in this epoch, for a task that `varies`.

        Args:
            draw: `draw(k)` is the k-th random number of each row in this epoch, float64 [rows] in [0, 1).
        """
        return targets

    def label_column(self, labels: Any) -> pa.Array[Any] | None:
        """The labels as a column of a prediction's files; None for numbers, as they are."""
        return None

    def move(self, targets: Any, matrices: Tensor, size: tuple[int, int]) -> Any:
        """The targets after their images were moved, for a task with `places`.

        Args:
            matrices: float64 [rows, 2, 3]: (x, y, 1) of a point in pixels, from the upper left corner, → where it went.
            size: height and width of the images.
        """
        return targets


def _missing(task: type[Task[Any]], method: str) -> LehrError:
    """What a task of a user's own lacks for what is asked of it."""
    return LehrError(f"the task {task.__name__} has no method {method}, which is needed here; add it to the class")


def of_each(metric: str, values: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """A metric of each class or number, under its own name: `f1_cat`, `f1_dog`."""
    return {f"{metric}_{name}": float(value) for name, value in zip(names, values, strict=True)}
