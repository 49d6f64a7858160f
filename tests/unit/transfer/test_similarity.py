"""Similarity is what pretrained features add, not how easy the images are."""

from __future__ import annotations

import torch

from lehr.transfer.similarity import measure_similarity, probe


def points(spread: float, rows: int = 300, dimension: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(round(10 * spread))
    labels = torch.arange(rows) % 4
    centres = torch.nn.functional.one_hot(labels, dimension).float()
    return 3 * centres + spread * torch.randn(rows, dimension, generator=generator), labels


def test_data_is_similar_if_pretrained_features_beat_random_ones_and_not_if_they_only_equal_them() -> None:
    good, labels = points(1.0)
    poor, _ = points(6.0)
    helps, easy = measure_similarity(good, poor, labels), measure_similarity(good, good.flip(1), labels)
    assert helps.gain > 0.3
    assert helps.similar
    assert helps.conclusive
    assert easy.pretrained > 0.9  # easy images on any features: that is not similarity
    assert abs(easy.gain) < 0.05
    assert not easy.similar


def test_a_probe_is_never_trained_on_the_row_it_classifies() -> None:
    """On noise with more dimensions than rows, a probe that had seen its rows would classify all of them correctly."""
    generator = torch.Generator().manual_seed(0)
    values, labels = torch.randn(200, 400, generator=generator), torch.arange(200) % 4
    assert 0.1 < probe(values, labels).float().mean() < 0.4


def test_constant_features_do_no_harm() -> None:
    values, labels = points(1.0)
    more = torch.cat([values, torch.ones(len(values), 3)], dim=1)
    assert probe(more, labels).float().mean() > 0.9


def test_a_class_may_have_a_single_row() -> None:
    values, labels = points(1.0, rows=41)
    labels[-1] = 5
    assert len(probe(values, labels)) == 41


def test_the_error_falls_with_the_number_of_images() -> None:
    few, many = (
        measure_similarity(points(2.0, rows)[0], points(6.0, rows)[0], points(2.0, rows)[1]) for rows in (60, 2000)
    )
    assert many.error < few.error / 3
