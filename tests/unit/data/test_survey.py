"""What is known of the rows before training: counts, blank and repeated images, leaks, what a linear model reaches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lehr.data import survey as module
from lehr.data.dataset import Images, Splits
from lehr.data.survey import survey

CLASSES = ("a", "b", "c")


def rows(count: int, seed: int, classes: int = 3, signal: float = 60.0) -> tuple[np.ndarray, np.ndarray]:
    """Noise, brighter in a place that depends on the class."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = draw.normal(100, 20, (count, 8, 8, 1))
    for label in range(classes):
        images[labels == label, 2 * label : 2 * label + 2] += signal
    return images.clip(0, 255).astype(np.uint8), labels.astype(np.int64)


def splits(train: tuple[np.ndarray, np.ndarray], validation: tuple[np.ndarray, np.ndarray]) -> Splits:
    both = [Images(images, labels, CLASSES) for images, labels in (train, validation)]
    return Splits(*(each.rows(torch.arange(len(each))) for each in both))


def test_labels_are_counted_and_sound_rows_have_no_faults() -> None:
    found = survey(splits(rows(301, 0), rows(90, 1)), seed=0)
    assert found.train.counts == (101, 100, 100)
    assert found.validation.counts == (30, 30, 30)
    assert (found.train.blank, found.train.repeated, found.shared) == (0, 0, 0)
    assert found.train.mean == pytest.approx(rows(301, 0)[0].mean() / 255)
    assert found.train.deviation == pytest.approx(rows(301, 0)[0].std() / 255)


def test_blank_repeated_and_shared_images_are_told_apart() -> None:
    train, validation = rows(300, 0), rows(90, 1)
    train[0][:30] = 0  # blank
    train[0][30:90] = train[0][200]  # repeats of one image
    validation[0][:45] = train[0][100:145]
    found = survey(splits(train, validation), seed=0)
    assert found.train.blank == pytest.approx(0.1)
    assert found.train.repeated == pytest.approx(0.2)
    assert found.shared == pytest.approx(0.5)


def test_a_linear_model_tells_what_is_reachable_on_both_splits() -> None:
    sound = survey(splits(rows(300, 0), rows(90, 1)), seed=0)
    assert sound.linear == sound.held_out == 1.0
    assert sound.held_out_rows == 75
    train, (images, labels) = rows(300, 0), rows(90, 1)
    other_order = survey(splits(train, (images, (labels + 1) % 3)), seed=0)
    assert (other_order.held_out, other_order.linear) == (1.0, 0.0)
    unlearnable = survey(splits(rows(300, 0, signal=0), rows(90, 1, signal=0)), seed=0)
    assert unlearnable.linear == pytest.approx(1 / 3, abs=0.2)


def test_of_many_rows_some_are_looked_at_and_a_leak_is_found_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 60)
    train, validation = rows(300, 0), rows(90, 1)
    validation[0][:] = train[0][:90]
    found = survey(splits(train, validation), seed=0)
    assert (found.train.rows, found.train.seen, found.validation.seen) == (300, 60, 60)
    assert sum(found.train.counts) == 300
    assert found.shared == 1.0
    assert survey(splits(train, validation), seed=0) == found
    assert survey(splits(train, validation), seed=1).train.mean != found.train.mean


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_handful_of_rows_is_surveyed_too(count: int) -> None:
    found = survey(splits(rows(count, 0), rows(2, 1)), seed=0)
    assert found.train.rows == count
    assert found.linear is None
    assert found.held_out is None
