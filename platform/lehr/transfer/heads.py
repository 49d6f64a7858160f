"""Heads on features: a whole grid of rates and weight decays trained side by side, as one stack of small matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lehr.data.randomness import key, permutation, uniform
from lehr.job.transfer import FeaturesSection
from lehr.tasks import Task
from lehr.transfer.features import Features

ENOUGH = 500  # validation rows that tell rates apart; with fewer, cross-validation on the training rows chooses
FOLDS = 5
LOSS_EVERY = 20  # steps between records of the loss, which cost more than the steps of small heads
BETAS, TINY = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class Heads:
    """A stack of heads of one shape.

    Attributes:
        layers: (weights [heads, inputs, outputs], biases [heads, 1, outputs]) of each layer; ReLU between them.
        mean, scale: [dimension]: what the features were normalised by.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    mean: Tensor
    scale: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        """Features [rows, dimension] → outputs [heads, rows, outputs]."""
        return _forward(self.layers, (values - self.mean) / self.scale)

    def module(self, number: int) -> nn.Module:
        """One head as a layer that takes the features as they are; the normalisation is in its weights."""
        linear = []
        for place, (weight, bias) in enumerate(self.layers):
            w, b = weight[number].T.double(), bias[number, 0].double()
            if place == 0:
                w = w / self.scale.double()
                b = b - w @ self.mean.double()
            layer = nn.Linear(w.shape[1], w.shape[0])
            with torch.no_grad():
                layer.weight.copy_(w)
                layer.bias.copy_(b)
            linear.append(layer)
        return linear[0] if len(linear) == 1 else nn.Sequential(linear[0], nn.ReLU(), *linear[1:])


@dataclass(frozen=True)
class Search:
    """What the search over rates and weight decays found.

    Attributes:
        heads: trained on all training rows, one for each of `grid`.
        grid: (learning rate, weight decay).
        chosen: the number of the best.
        scores: of each, what it was chosen by: the metric, and minus the loss.
        by: what the scores were measured on, in words.
        losses: the training loss of the chosen head at the steps in `steps`.
    """

    heads: Heads
    grid: tuple[tuple[float, float], ...]
    chosen: int
    scores: tuple[tuple[float, float], ...]
    by: str
    steps: tuple[int, ...]
    losses: tuple[float, ...]


def search(
    train: Features, validation: Features, task: Task, section: FeaturesSection, metric: str, seed: int
) -> Search:
    """Trains a head for every pair of rate and weight decay and chooses the best by `metric`, the loss breaking ties.

    Where validation rows are fewer than `ENOUGH`, the pairs are judged by cross-validation on the training rows, so
    that the validation rows still tell how good the chosen one is.
    """
    grid = tuple(product(section.rates, section.weight_decays))
    heads, losses = fit(train, task, section, grid, seed)
    if len(validation) >= ENOUGH or len(train.ids.unique()) < 2 * FOLDS:
        sums, rows = [_sums(heads, validation, task)], len(validation)
        by = f"{rows:,} validation images"
    else:
        sums, rows = [], 0
        for inside, outside in _folds(train, seed):
            part, _ = fit(inside, task, section, grid, seed)
            sums.append(_sums(part, outside, task))
            rows += len(outside)
        by = f"{FOLDS}-fold cross-validation on {rows:,} training images"
    scores = []
    for number in range(len(grid)):
        total = {name: sum(part[number][name] for part in sums) for name in sums[0][number]}
        found = task.metrics(total, max(1, rows))
        sign = -1.0 if metric.endswith("loss") else 1.0
        scores.append((sign * found[metric], -found["loss"]))
    chosen = max(range(len(grid)), key=lambda number: scores[number])
    curve = {step: float(each[chosen]) for step, each in losses.items()}
    return Search(heads, grid, chosen, tuple(scores), by, tuple(curve), tuple(curve.values()))


def fit(
    train: Features, task: Task, section: FeaturesSection, grid: Sequence[tuple[float, float]], seed: int
) -> tuple[Heads, dict[int, Tensor]]:
    """A head for each (rate, weight decay) on the same rows and batches; and at some steps the losses [heads].

    AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019) with a cosine rate and without decay of
    biases; normalised features. Batches are a function of the seed and the step.
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
        rows = _batch(len(values), section.batch_size, step, seed)
        inputs, targets = values[rows], train.labels[rows]
        for tensor in flat:
            tensor.requires_grad_(True)
        outputs = _forward(layers, inputs)
        # A sum over all heads: none of them takes part in another's gradient.
        loss = task.loss(outputs.flatten(0, 1), targets.repeat(len(grid))) / len(inputs)
        gradients = torch.autograd.grad(loss, flat)
        with torch.no_grad():
            if step % LOSS_EVERY == 0 or step == section.steps - 1:
                history[step] = torch.stack([task.sums(each, targets)["loss"] for each in outputs]) / len(inputs)
            factor = 0.5 * (1 + math.cos(math.pi * step / section.steps))
            for place, (tensor, gradient) in enumerate(zip(flat, gradients, strict=True)):
                if place % 2 == 0:
                    tensor -= factor * rates * decays * tensor
                first[place].lerp_(gradient, 1 - BETAS[0])
                second[place].lerp_(gradient.square(), 1 - BETAS[1])
                size = (second[place] / (1 - BETAS[1] ** (step + 1))).sqrt() + TINY
                tensor -= factor * rates * first[place] / (1 - BETAS[0] ** (step + 1)) / size
    done = tuple((weight.detach(), bias.detach()) for weight, bias in layers)
    return Heads(done, mean, scale), history


def evaluate(head: nn.Module, features: Features, task: Task) -> dict[str, float]:
    """The task's metrics of one head over all rows."""
    with torch.inference_mode():
        sums = task.sums(head(features.values), features.labels)
    return task.metrics({name: float(value) for name, value in sums.items()}, max(1, len(features)))


def _sums(heads: Heads, features: Features, task: Task) -> list[dict[str, float]]:
    with torch.inference_mode():
        outputs = heads(features.values)
        found = [task.sums(each, features.labels) for each in outputs]
    return [{name: float(value) for name, value in each.items()} for each in found]


def _folds(train: Features, seed: int) -> list[tuple[Features, Features]]:
    """Every view of an image lies in the same fold; what is held out is not augmented. Classes are spread evenly."""
    clean = train.of(train.ids, augmented=False)
    order = permutation(key(seed, "folds"), len(clean))
    order = order[clean.labels[order].argsort(stable=True)]
    fold = torch.empty(len(clean), dtype=torch.int64)
    fold[order] = torch.arange(len(clean)) % FOLDS
    return [
        (train.of(clean.ids[fold != number]), train.of(clean.ids[fold == number], augmented=False))
        for number in range(FOLDS)
    ]


def _forward(layers: Sequence[tuple[Tensor, Tensor]], values: Tensor) -> Tensor:
    """[rows, inputs] → [heads, rows, outputs]."""
    outputs = values.expand(layers[0][0].shape[0], *values.shape)
    for place, (weight, bias) in enumerate(layers):
        outputs = torch.baddbmm(bias, F.relu(outputs) if place else outputs, weight)
    return outputs


def _new_layers(sizes: Sequence[int], heads: int, seed: int) -> tuple[tuple[Tensor, Tensor], ...]:
    """A linear head starts at zero; hidden layers start as He et al., 2015, alike in all heads."""
    layers = []
    for place, (inputs, outputs) in enumerate(pairwise(sizes)):
        weight = torch.zeros(inputs, outputs)
        if len(sizes) > 2:
            drawn = uniform(key(seed, "head", place), torch.arange(inputs * outputs)).float()
            weight = ((2 * drawn - 1) * math.sqrt((6 if place == 0 else 3) / inputs)).reshape(inputs, outputs)
        layers.append((weight.repeat(heads, 1, 1), torch.zeros(heads, 1, outputs)))
    return tuple(layers)


def _batch(rows: int, size: int, step: int, seed: int) -> Tensor:
    if rows <= size:
        return torch.arange(rows)
    per_epoch = rows // size
    order = permutation(key(seed, "head order", step // per_epoch), rows)
    return order[step % per_epoch * size : (step % per_epoch + 1) * size]
