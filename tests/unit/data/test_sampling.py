"""Balanced sampling: every class equally often, as a pure function of the key."""

from __future__ import annotations

import pytest
import torch

from lehr.data.sampling import balanced


@pytest.mark.parametrize("counts", [(50, 30, 20), (97, 2, 1), (4, 4), (7,), (1, 1, 1)])
def test_every_class_is_equally_frequent_and_rows_are_repeated_evenly(counts: tuple[int, ...]) -> None:
    labels = torch.cat([torch.full((count,), 3 * label) for label, count in enumerate(counts)])
    order = balanced(labels)
    for key in (0, 5, -(2**63), 2**63 - 1):
        taken = order(key)
        assert taken.shape == labels.shape
        per_class = [int((labels[taken] == 3 * label).sum()) for label in range(len(counts))]
        assert max(per_class) - min(per_class) <= 1
        times = torch.bincount(taken, minlength=len(labels))
        for label in range(len(counts)):
            of_class = times[labels == 3 * label]
            assert of_class.max() - of_class.min() <= 1


def test_the_order_is_fixed_by_the_key_and_mixes_the_classes() -> None:
    labels = torch.tensor([0] * 900 + [1] * 100)
    order = balanced(labels)
    assert torch.equal(order(7), order(7))
    assert not torch.equal(order(7), order(8))
    assert set(order(7).tolist()) != set(order(8).tolist())
    share = labels[order(7)].double().reshape(10, 100).mean(dim=1)
    assert share.min() > 0.3
    assert share.max() < 0.7
