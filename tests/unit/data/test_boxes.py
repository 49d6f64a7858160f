"""Boxes move with the pixels they are around, by the same draws, whatever the worker and the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lehr.data.augment import Augment
from lehr.data.dataset import Batch
from lehr.data.targets import RaggedTensor
from lehr.tasks.detection.moving import move_boxes

ROWS, HEIGHT, WIDTH = 40, 48, 64


def marked() -> Batch:
    """Black images with one, two or no white rectangles, and the boxes around these."""
    random = np.random.default_rng(0)
    images, boxes = torch.zeros(ROWS, 1, HEIGHT, WIDTH, dtype=torch.uint8), []
    for row in range(ROWS):
        found = []
        for number in range(row % 3):
            x, y = int(random.integers(4, 20)) + 32 * number, int(random.integers(6, 24))
            wide, tall = int(random.integers(6, 10)), int(random.integers(8, 16))
            images[row, 0, y : y + tall, x : x + wide] = 255
            found.append([number, x, y, x + wide, y + tall])
        boxes.append(torch.tensor(found, dtype=torch.float64).reshape(-1, 5))
    return Batch(images, RaggedTensor.of(boxes), torch.arange(ROWS) + 1000)


def augmented(batch: Batch, *steps: tuple[str, dict[str, Any]], epoch: int = 3) -> Batch:
    return Augment(list(steps), 5, move=move_boxes)(batch, epoch)


STEPS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "flip": [("flip", {"probability": 0.5})],
    "vertical flip": [("flip", {"probability": 0.5, "direction": "vertical"})],
    "shift": [("shift", {"pixels": 4})],
    "crop": [("crop", {"padding": 4, "outside": "black"})],
    "jitter": [("scale_jitter", {"zoom": 1.5})],
    "window": [("random_resized_crop", {"smallest": 0.5})],
    "all": [("flip", {}), ("random_resized_crop", {"smallest": 0.6}), ("crop", {"padding": 3, "outside": "black"})],
}


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS.keys())
def test_boxes_stay_around_what_they_were_around(steps: list[tuple[str, dict[str, Any]]]) -> None:
    batch = marked()
    found = augmented(batch, *steps)
    checked = 0
    for row, boxes in enumerate(found.targets.rows()):
        bright = found.inputs[row, 0].float() > 127
        if len(boxes) == 1 and len(batch.targets.rows()[row]) == 1:
            y, x = bright.nonzero().unbind(1)
            seen = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).double()
            assert (boxes[0, 1:] - seen).abs().max() <= 1.01, (
                row,
                boxes,
                seen,
            )  # half-bright edges of a resized window
            checked += 1
        for _, x0, y0, x1, y1 in boxes.tolist():
            assert 0 <= x0 < x1 <= WIDTH
            assert 0 <= y0 < y1 <= HEIGHT
    assert checked >= 8


def test_a_row_is_moved_alike_in_any_batch() -> None:
    batch, steps = marked(), STEPS["all"]
    whole = augmented(batch, *steps)
    chosen = torch.arange(1, ROWS, 3)
    part = augmented(Batch(batch.inputs[chosen], batch.targets[chosen], batch.ids[chosen]), *steps)
    for mine, number in zip(part.targets.rows(), chosen.tolist(), strict=True):
        assert torch.equal(mine, whole.targets.rows()[number])
    other = augmented(batch, *steps, epoch=4)
    assert not torch.equal(other.targets.values, whole.targets.values)


def test_a_box_that_leaves_the_image_is_left_out() -> None:
    boxes = RaggedTensor.of([torch.tensor([[0.0, 1.0, 1.0, 9.0, 9.0], [1.0, 40.0, 20.0, 60.0, 40.0]])])
    far = torch.tensor([[[1.0, 0.0, -30.0], [0.0, 1.0, 0.0]]], dtype=torch.float64)
    moved = move_boxes(boxes, far, (HEIGHT, WIDTH))
    assert moved.values.tolist() == [[1.0, 10.0, 20.0, 30.0, 40.0]]
    assert moved.lengths.tolist() == [1]
