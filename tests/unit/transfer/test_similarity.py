"""Likeness: what the pretrained features add, not how easy the images are."""

from __future__ import annotations

import torch

from lehr.transfer.similarity import probe, similarity


def points(spread: float, rows: int = 300, dimension: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(round(10 * spread))
    labels = torch.arange(rows) % 4
    centres = torch.nn.functional.one_hot(labels, dimension).float()
    return 3 * centres + spread * torch.randn(rows, dimension, generator=generator), labels


def test_features_that_tell_more_than_random_ones_are_alike_and_equally_good_ones_are_not() -> None:
    good, labels = points(1.0)
    poor, _ = points(6.0)
    helps, easy = similarity(good, poor, labels), similarity(good, good.flip(1), labels)
    assert helps.gain > 0.3
    assert helps.similar
    assert helps.sure
    assert easy.pretrained > 0.9  # easy images, on any features: that is no likeness
    assert abs(easy.gain) < 0.05
    assert not easy.similar


def test_a_probe_never_sees_the_row_that_it_judges() -> None:
    """On noise with more dimensions than rows, a probe that saw its rows would be right about all of them."""
    generator = torch.Generator().manual_seed(0)
    values, labels = torch.randn(200, 400, generator=generator), torch.arange(200) % 4
    assert 0.1 < probe(values, labels).float().mean() < 0.4


def test_features_that_never_vary_do_no_harm() -> None:
    values, labels = points(1.0)
    more = torch.cat([values, torch.ones(len(values), 3)], dim=1)
    assert probe(more, labels).float().mean() > 0.9


def test_a_class_with_one_row_is_no_obstacle() -> None:
    values, labels = points(1.0, rows=41)
    labels[-1] = 5
    assert len(probe(values, labels)) == 41


def test_the_error_falls_with_the_number_of_images() -> None:
    few, many = (similarity(points(2.0, rows)[0], points(6.0, rows)[0], points(2.0, rows)[1]) for rows in (60, 2000))
    assert many.error < few.error / 3
