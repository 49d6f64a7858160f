"""Training a head on cached features, against a training loop that recomputes the frozen network's features.

Both sides train the same linear head on a frozen ResNet-18 with 64 x 64 pixels and batches of 64, in this process. Ours
is an epoch of `strategy: features` for a grid of 16 learning rates and weight decays at once; the other side is the
training loop with `finetune.head_first: 100%`, which trains a single head. The cost of the features is printed as well.

    python -m tests.benchmarks.feature_cache [images] [rounds]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import torch

from lehr import models
from lehr.data.batches import batches
from lehr.data.dataset import DataSubset, Images, Splits
from lehr.job import TrainJob, from_dict
from lehr.job.transfer import FeaturesSection
from lehr.training.group import Group
from lehr.training.prepare import prepare_model
from lehr.training.setup import Plan
from lehr.training.train_step import TrainStep
from lehr.transfer.features import Features, compute_locally
from lehr.transfer.head_search import train_heads
from tests.benchmarks.alternating import compare

SIZE, BATCH, CLASSES = 64, 64, 10


def main(count: int, rounds: int) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    images = Images(pixels, np.arange(count) % CLASSES, tuple(map(str, range(CLASSES))))
    rows = DataSubset(images, torch.arange(count))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "resnet18.pth"
        torch.save(models.build("resnet18", 3, 1000, {}, seed=0).state_dict(), file)
        job = from_dict(
            {
                "model": {"name": "resnet18", "weights": str(file)},
                "finetune": {"head_first": "100%"},
                "train": {"batch_size": BATCH, "epochs": 1},
            }
        )
        assert isinstance(job, TrainJob)
        plan = Plan.make(job, Splits(rows, rows))
        began = time.perf_counter()
        features = Features.concatenate(list(compute_locally(plan, "train", torch.arange(count))))
        seconds = time.perf_counter() - began
        recomputed, cached = loop(plan), heads(plan, features)
        recomputed()  # both sides run once before they are measured
        cached()
        print(f"computing the features of {count} images, once: {seconds:.1f} s")
        ratio = 1 / compare(
            "an epoch of head training", "ms", {"cached": cached, "recomputed": recomputed}, rounds, "at most 0.1"
        )
        print(
            f"cached features: {ratio:.0f} times as fast per epoch (expected: at least 10), for 16 heads instead of one"
        )


def loop(plan: Plan) -> Callable[[], float]:
    """Times an epoch of the training loop with a frozen backbone, in milliseconds."""
    model = prepare_model(plan, Group())
    train_step = TrainStep(plan, model, Group())

    def epoch() -> float:
        began = time.perf_counter()
        for batch in batches(plan.splits.train, plan.sampler, plan.augment, 0):
            train_step(batch, len(batch.inputs), 0)
        return 1000 * (time.perf_counter() - began)

    return epoch


def heads(plan: Plan, features: Features) -> Callable[[], float]:
    """Times an epoch of the head search on cached features, in milliseconds."""
    section = FeaturesSection(batch_size=BATCH, steps=len(features) // BATCH)
    grid = list(product(section.rates, section.weight_decays))

    def epoch() -> float:
        began = time.perf_counter()
        train_heads(features, plan.task, section, grid, seed=0)
        return 1000 * (time.perf_counter() - began)

    return epoch


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(given[0] if given else 640, given[1] if len(given) > 1 else 3)
