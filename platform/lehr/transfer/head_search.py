"""Heads trained on features, a whole grid of learning rates and weight decays at once: one stack of small matrices."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lehr.data.randomness import key, permutation, uniform
from lehr.job.transfer import FeaturesSection
from lehr.tasks.base import Task
from lehr.training.metrics import NONE, Metrics
from lehr.transfer.features import Features

ENOUGH_ROWS = 500  # validation rows that tell learning rates apart; with fewer, cross-validation decides
FOLDS = 5
LOSS_EVERY = 20  # steps between records of the loss, which costs more than a step of small heads
BETAS, EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class Measured:
    """What is measured of heads: what the task does itself, and the job's metrics."""

    task: Task
    metrics: Metrics = NONE
    classes: tuple[str, ...] = ()

    def __call__(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """The metrics of outputs [rows, classes]."""
        with torch.inference_mode():
            sums = self.task.sums(outputs, targets)
        found = self.task.metrics({name: float(value) for name, value in sums.items()}, max(1, len(outputs)))
        return found | self.metrics.measure(outputs, targets, self.task, self.classes) if self.metrics else found


@dataclass(frozen=True)
class Judge:
    """The metric that heads are compared by.

    Attributes:
        metric: as `Measured` names it.
        lower: whether lower values of it are better.
        column: its name in the record.
    """

    metric: str
    lower: bool = False
    column: str = ""

    @classmethod
    def of(cls, wanted: str, lower: bool) -> Judge:
        """For `train.metric` of a job. The average of a head's weights is not kept, so that it is the head itself."""
        column = wanted.removeprefix("averaged_")
        metric = re.sub("^(validation|clean_train|train)_", "", column)
        return cls(metric, lower, column)

    @property
    def on_training_rows(self) -> bool:
        """Whether it is measured on the training images."""
        return "train_" in self.column.partition(self.metric)[0]


@dataclass(frozen=True)
class HeadStack:
    """Several heads of the same shape.

    Attributes:
        layers: (weights [heads, inputs, outputs], biases [heads, 1, outputs]) of each layer; ReLU between layers.
        mean, scale: [dimension]: what the features were normalised by.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    mean: Tensor
    scale: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        """Features [rows, dimension] → outputs [heads, rows, outputs]."""
        return _forward(self.layers, (values - self.mean) / self.scale)

    def module(self, number: int) -> nn.Module:
        """One head as a layer that takes features without normalisation, which is folded into its weights."""
        linear = []
        for index, (weight, bias) in enumerate(self.layers):
            w, b = weight[number].T.double(), bias[number, 0].double()
            if index == 0:
                w = w / self.scale.double()
                b = b - w @ self.mean.double()
            layer = nn.Linear(w.shape[1], w.shape[0])
            with torch.no_grad():
                layer.weight.copy_(w)
                layer.bias.copy_(b)
            linear.append(layer)
        return linear[0] if len(linear) == 1 else nn.Sequential(linear[0], nn.ReLU(), *linear[1:])


@dataclass(frozen=True)
class HeadSearch:
    """The result of a search over learning rates and weight decays.

    Attributes:
        heads: trained on all training rows, one for each pair in `grid`.
        grid: (learning rate, weight decay) pairs.
        best: the index of the best pair.
        scores: (metric, minus the loss) of each pair, signed so that higher is better.
        scored_on: the images that the scores were measured on, in words.
        steps, losses: the training loss of the best head at these steps.
    """

    heads: HeadStack
    grid: tuple[tuple[float, float], ...]
    best: int
    scores: tuple[tuple[float, float], ...]
    scored_on: str
    steps: tuple[int, ...]
    losses: tuple[float, ...]


def _nobody(share: float) -> None: ...


def search_heads(
    train: Features,
    validation: Features,
    measured: Measured,
    section: FeaturesSection,
    by: Judge,
    seed: int,
    told: Callable[[float], None] = _nobody,
) -> HeadSearch:
    """Trains a head for every pair of learning rate and weight decay, and picks the best by a metric.

    The loss breaks ties. With fewer than `ENOUGH_ROWS` validation rows, the pairs are compared by cross-validation on
    the training rows, so that the validation rows still give a fair estimate of the chosen head. `told` hears now and
    then what share of all steps is done.
    """
    grid = tuple(product(section.rates, section.weight_decays))
    task = measured.task
    enough = len(validation) >= ENOUGH_ROWS or len(train.ids.unique()) < 2 * FOLDS
    count = 1 if by.on_training_rows or enough else 1 + FOLDS

    def part(number: int) -> Callable[[float], None]:
        return lambda share: told((number + share) / count)

    heads, losses = train_heads(train, task, section, grid, seed, part(0))
    if by.on_training_rows:
        parts = [(heads, train.originals())]
        scored_on = f"{len(parts[0][1]):,} training images"
    elif enough:
        parts = [(heads, validation)]
        scored_on = f"{len(validation):,} validation images"
    else:
        folds = _folds(train, seed)
        parts = [
            (train_heads(inside, task, section, grid, seed, part(number))[0], outside)
            for number, (inside, outside) in enumerate(folds, 1)
        ]
        rows = sum(len(outside) for _, outside in parts)
        scored_on = f"{FOLDS}-fold cross-validation on {rows:,} training images"
    with torch.inference_mode():
        outputs = torch.cat([trained(features.values) for trained, features in parts], dim=1)
    labels = torch.cat([features.labels for _, features in parts])
    scores = []
    for each in outputs:
        found = measured(each, labels)
        scores.append((-found[by.metric] if by.lower else found[by.metric], -found["loss"]))
    best = max(range(len(grid)), key=lambda number: scores[number])
    curve = {step: float(each[best]) for step, each in losses.items()}
    return HeadSearch(heads, grid, best, tuple(scores), scored_on, tuple(curve), tuple(curve.values()))


def train_heads(
    train: Features,
    task: Task,
    section: FeaturesSection,
    grid: Sequence[tuple[float, float]],
    seed: int,
    told: Callable[[float], None] = _nobody,
) -> tuple[HeadStack, dict[int, Tensor]]:
    """Trains a head for each (learning rate, weight decay) on the same rows and batches.

    AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019) with cosine decay of the learning rate,
    normalised features, and no weight decay on biases. Batches are a function of the seed and the step.

    Returns:
        (the heads, the training losses [heads] at some of the steps).
    """
    mean = train.values.mean(dim=0)
    spread = train.values.std(dim=0, correction=0)
    scale = torch.where(spread > 1e-6 * spread.max().clamp(min=1e-30), spread, torch.ones_like(spread))
    values = (train.values - mean) / scale
    sizes = [values.shape[1], *([section.hidden] if section.hidden else []), task.outputs]
    layers = _new_layers(sizes, len(grid), seed)
    flat = [tensor for layer in layers for tensor in layer]
    rates = torch.tensor([rate for rate, _ in grid])[:, None, None]
    decays = torch.tensor([decay for _, decay in grid])[:, None, None]
    first, second = ([torch.zeros_like(tensor) for tensor in flat] for _ in range(2))
    history = {}
    for step in range(section.steps):
        told(step / section.steps)
        rows = _batch(len(values), section.batch_size, step, seed)
        inputs, targets = values[rows], train.labels[rows]
        for tensor in flat:
            tensor.requires_grad_(True)
        outputs = _forward(layers, inputs)
        # The sum over all heads: no head contributes to another's gradient.
        loss = task.loss(outputs.flatten(0, 1), targets.repeat(len(grid))) / len(inputs)
        gradients = torch.autograd.grad(loss, flat)
        with torch.no_grad():
            if step % LOSS_EVERY == 0 or step == section.steps - 1:
                history[step] = torch.stack([task.sums(each, targets)["loss"] for each in outputs]) / len(inputs)
            factor = 0.5 * (1 + math.cos(math.pi * step / section.steps))
            for index, (tensor, gradient) in enumerate(zip(flat, gradients, strict=True)):
                if index % 2 == 0:
                    tensor -= factor * rates * decays * tensor
                first[index].lerp_(gradient, 1 - BETAS[0])
                second[index].lerp_(gradient.square(), 1 - BETAS[1])
                size = (second[index] / (1 - BETAS[1] ** (step + 1))).sqrt() + EPSILON
                tensor -= factor * rates * first[index] / (1 - BETAS[0] ** (step + 1)) / size
    trained = tuple((weight.detach(), bias.detach()) for weight, bias in layers)
    return HeadStack(trained, mean, scale), history


def evaluate_head(head: nn.Module, features: Features, measured: Measured) -> dict[str, float]:
    """What is measured of one head over all rows."""
    with torch.inference_mode():
        outputs = head(features.values)
    return measured(outputs, features.labels)


def _folds(train: Features, seed: int) -> list[tuple[Features, Features]]:
    """(training part, held-out part) of each fold, stratified by class.

    All views of an image are in the same fold, and held-out images are not augmented.
    """
    originals = train.originals()
    order = permutation(key(seed, "folds"), len(originals))
    order = order[originals.labels[order].argsort(stable=True)]
    fold = torch.empty(len(originals), dtype=torch.int64)
    fold[order] = torch.arange(len(originals)) % FOLDS
    return [(train.select(originals.ids[fold != number]), originals[fold == number]) for number in range(FOLDS)]


def _forward(layers: Sequence[tuple[Tensor, Tensor]], values: Tensor) -> Tensor:
    """[rows, inputs] → [heads, rows, outputs]."""
    outputs = values.expand(layers[0][0].shape[0], *values.shape)
    for index, (weight, bias) in enumerate(layers):
        outputs = torch.baddbmm(bias, F.relu(outputs) if index else outputs, weight)
    return outputs


def _new_layers(sizes: Sequence[int], heads: int, seed: int) -> tuple[tuple[Tensor, Tensor], ...]:
    """Initial weights, the same in all heads: zeros for a linear head, as in He et al., 2015, with hidden layers."""
    layers = []
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        weight = torch.zeros(inputs, outputs)
        if len(sizes) > 2:
            drawn = uniform(key(seed, "head", index), torch.arange(inputs * outputs)).float()
            weight = ((2 * drawn - 1) * math.sqrt((6 if index == 0 else 3) / inputs)).reshape(inputs, outputs)
        layers.append((weight.repeat(heads, 1, 1), torch.zeros(heads, 1, outputs)))
    return tuple(layers)


def _batch(rows: int, size: int, step: int, seed: int) -> Tensor:
    """The positions of the rows of one step: all of them if they fit, else consecutive slices of a shuffled epoch."""
    if rows <= size:
        return torch.arange(rows)
    per_epoch = rows // size
    order = permutation(key(seed, "head order", step // per_epoch), rows)
    return order[step % per_epoch * size : (step % per_epoch + 1) * size]
