"""A linear model of small images, fitted in seconds: what is doubtful about labels without any network.

It gets histograms of gradients (Dalal and Triggs, "Histograms of oriented gradients", 2005) and coarse colours.
"""

from __future__ import annotations

import numpy as np
import torch

from lehr.data.randomness import key, permutation

SIDE = 32
"""Pixels of the images that it gets."""
FOLDS = 5
CELLS, DIRECTIONS = 8, 9


def chances(features: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """float64 [rows, classes]: chances from a model that was fitted on the other rows."""
    order = permutation(key(0, "audit folds"), len(labels)).numpy()
    found = np.zeros((len(labels), classes))
    for fold in range(FOLDS):
        held = order[fold::FOLDS]
        others = np.setdiff1d(order, held)
        centre, scale = features[others].mean(axis=0), features[others].std(axis=0) + 1e-3
        weights = _logistic((features[others] - centre) / scale, labels[others], classes)
        scores = torch.from_numpy((features[held] - centre) / scale).float() @ weights[:-1] + weights[-1]
        found[held] = torch.softmax(scores.double(), dim=1).numpy()
    return found


def _logistic(x: np.ndarray, labels: np.ndarray, classes: int) -> torch.Tensor:
    """Multinomial logistic regression with a small penalty: weights [features + 1, classes]."""
    inputs, targets = torch.from_numpy(x).float(), torch.from_numpy(labels)
    weights = torch.zeros(inputs.shape[1] + 1, classes, requires_grad=True)
    steps = torch.optim.LBFGS([weights], lr=1.0, max_iter=60, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        steps.zero_grad()
        scores = inputs @ weights[:-1] + weights[-1]
        loss = torch.nn.functional.cross_entropy(scores, targets) + 2e-3 * weights[:-1].square().sum()
        loss.backward()
        return loss

    steps.step(closure)
    return weights.detach()


def features_of(thumbs: np.ndarray) -> np.ndarray:
    """float32 [rows, 624]: histograms of gradients in 8 × 8 cells of 9 directions, and colours of 4 × 4 cells."""
    return np.concatenate([_of_some(thumbs[at : at + 512]) for at in range(0, max(1, len(thumbs)), 512)])


def _of_some(thumbs: np.ndarray) -> np.ndarray:
    images = thumbs.astype(np.float32) / 255
    grey = images.mean(axis=3)
    across, down = np.gradient(grey, axis=2), np.gradient(grey, axis=1)
    strength, angle = np.hypot(across, down), np.mod(np.arctan2(down, across), np.pi)
    at = angle / np.pi * DIRECTIONS
    low = np.floor(at).astype(np.int64) % DIRECTIONS
    part = (at - np.floor(at)).astype(np.float32)
    side = SIDE // CELLS
    histograms = np.zeros((len(thumbs), CELLS, CELLS, DIRECTIONS), np.float32)
    for direction in range(DIRECTIONS):
        share = np.where(low == direction, 1 - part, 0) + np.where((low + 1) % DIRECTIONS == direction, part, 0)
        cells = (strength * share).reshape(-1, CELLS, side, CELLS, side)
        histograms[..., direction] = cells.sum(axis=(2, 4))
    flat = np.sqrt(histograms.reshape(len(thumbs), -1))
    flat /= np.linalg.norm(flat, axis=1, keepdims=True) + 1e-3
    colours = images.reshape(-1, 4, 8, 4, 8, 3).mean(axis=(2, 4)).reshape(len(thumbs), -1)
    return np.concatenate([flat, colours], axis=1).astype(np.float32)
