"""Decoded images are shared by all processes of a node; nobody's work on a batch may reach the others."""

from __future__ import annotations

import numpy as np
import pytest

from lehr.data.dataset import Images

pytestmark = pytest.mark.ray


def test_in_place_work_in_a_worker_cannot_reach_the_shared_cache(ray_cluster: None) -> None:
    import ray
    import torch

    from lehr.data.dataset import DataSubset
    from lehr.data.ray_data import Shared

    pixels = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(64) % 10
    shared = Shared.put(Images(pixels.copy(), labels.copy(), tuple("0123456789")))

    @ray.remote
    def vandal(handle: Shared) -> bool:
        rows = DataSubset(handle.open(), torch.arange(64))
        for positions in (torch.arange(64), torch.arange(8, 16)):
            batch = rows.gather(positions)
            batch.inputs.add_(1)
            batch.inputs.numpy()[:] = 7
            batch.targets.zero_()
            batch.ids.zero_()
        rows.labels.zero_()
        everything = rows.subset(torch.arange(64)).gather(torch.arange(64))
        everything.inputs.fill_(9)
        with pytest.raises(ValueError, match="read-only"):
            handle.open().pixels[0] = 0
        return True

    assert ray.get(vandal.remote(shared))
    seen = shared.open()
    assert (seen.pixels == pixels).all()
    assert (seen.labels == labels).all()


def test_opening_the_cache_copies_nothing(ray_cluster: None) -> None:
    """Two processes of one node see the same object in shared memory: private memory grows by a fraction of it."""
    import psutil
    import ray

    from lehr.data.ray_data import Shared

    megabytes = 64
    shared = Shared.put(
        Images(np.zeros((megabytes, 1024, 1024, 1), np.uint8), np.zeros(megabytes, np.int64), ("only",))
    )

    @ray.remote
    def private_growth(handle: Shared) -> int:
        process = psutil.Process()
        before = process.memory_full_info().uss
        images = handle.open()
        assert int(images.pixels[::7, ::512].sum()) == 0
        return process.memory_full_info().uss - before

    assert ray.get(private_growth.remote(shared)) < megabytes * 2**20 / 4
