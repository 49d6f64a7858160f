"""The training core on one CUDA GPU, without Ray: equal to the CPU, in every precision, and without waiting in a step.

pytest -m gpu        # or: make gpu
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lehr.data.augment import AUGMENTATIONS, MIXES
from lehr.data.batches import batches
from lehr.data.dataset import DataSubset, Images, Splits
from lehr.errors import JobError
from lehr.job import TrainJob, from_dict, to_dict
from lehr.predict import load_predictor
from lehr.runs import Folder, RunFolder
from lehr.training.failures import describe
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.prepare import prepare_model
from lehr.training.setup import Plan
from lehr.training.train_step import TrainStep

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

CPU, GPU = torch.device("cpu"), torch.device("cuda")
ROWS, SIZE, CLASSES = 600, 32, 5


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    """Convolutions in full float32, as on the CPU; restores the process-wide settings that a job changes."""
    cudnn, precision = torch.backends.cudnn, torch.get_float32_matmul_precision()
    before, cudnn.allow_tf32 = (cudnn.allow_tf32, cudnn.benchmark), False
    yield
    cudnn.allow_tf32, cudnn.benchmark = before
    torch.set_float32_matmul_precision(precision)


def images() -> Splits:
    """Noise, brighter in the colours that encode the class; a sixth of the rows for validation."""
    random = np.random.default_rng(0)
    labels = np.arange(ROWS) % CLASSES
    pixels = random.integers(0, 128, (ROWS, SIZE, SIZE, 3), dtype=np.uint8)
    for colour in range(3):
        pixels[(labels + 1 >> colour) % 2 == 1, ..., colour] += 60
    every = Images(pixels, labels.astype(np.int64), tuple("abcde"))
    everything = torch.arange(ROWS)
    return Splits(every.rows(everything[ROWS // 6 :]), every.rows(everything[: ROWS // 6]))


def job_of(changes: dict[str, Any]) -> TrainJob:
    base = {
        "data": {"augment": ["flip", "crop"]},
        "model": {"name": "small_cnn", "width": 16, "norm": "batch"},
        "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4},
        "train": {"epochs": 4, "batch_size": 64, "evaluated_training_rows": 50},
        "seed": 3,
    }
    job = from_dict(base, changes)
    assert isinstance(job, TrainJob)
    return job


Train = Callable[..., RunFolder]


@pytest.fixture
def train_on(tmp_path: Path) -> Train:
    def run(device: torch.device, changes: dict[str, Any], name: str = "run", stop: int | None = None) -> RunFolder:
        """Trains to the end, or asks to stop once `stop` epochs are recorded."""
        job = job_of(changes)
        place = Folder.at(tmp_path / f"{name}-{device.type}")
        made = RunFolder.open(place) if place.exists("job.yaml") else RunFolder.create(place, to_dict(job))

        def should_stop() -> str | None:
            progress = made.progress().training
            return "enough" if stop and progress and progress.epochs_done >= stop else None

        train(Plan.make(job, images()), made, Group(device=device), should_stop)
        return made

    return run


def losses(run: RunFolder) -> list[float]:
    return run.steps()["loss"].to_numpy().tolist()


def accuracy(run: RunFolder, metric: str = "validation_accuracy") -> float:
    return run.epochs().to_pylist()[-1][metric]


@pytest.mark.parametrize("cache", ["memory", "device"])
def test_a_gpu_takes_the_same_steps_as_a_cpu(cache: str, train_on: Train) -> None:
    ours = losses(train_on(GPU, {"data.cache": cache}))
    theirs = losses(train_on(CPU, {"data.cache": "memory"}))
    assert ours[:10] == pytest.approx(theirs[:10], rel=2e-3)
    assert len(ours) == len(theirs)


@pytest.mark.parametrize(
    ("names", "compiled"),
    [
        *(([name], False) for name in (*AUGMENTATIONS, *MIXES)),
        (["flip", "crop", "erasing"], True),
        (["shift", "random_resized_crop", "mixup", "flip"], True),
        (["rand_augment", "flip"], True),  # which is not compiled
    ],
)
def test_every_augmentation_does_on_a_gpu_what_it_does_on_a_cpu(names: list[str], compiled: bool) -> None:
    plan = Plan.make(job_of({"data.augment": names, "train.compile": compiled}), images())
    rows = plan.splits.train

    def two(held: DataSubset, device: torch.device) -> list[Any]:
        return list(islice(batches(held, plan.sampler, plan.augment, 1, device=device), 2))

    for there in (rows, plan.splits.to(GPU).train):
        for ours, theirs in zip(two(there, GPU), two(rows, CPU), strict=True):
            assert ours.inputs.is_cuda
            assert ours.ids.tolist() == theirs.ids.tolist()
            torch.testing.assert_close(ours.targets.cpu(), theirs.targets, rtol=1e-6, atol=1e-6)
            difference = (ours.inputs.cpu().float() - theirs.inputs.float()).abs()
            # A pixel right at a border may fall on either side, by the last digit of a sine.
            assert (difference > 0.5).float().mean() < 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {"train.precision": "bf16"},
        {"train.precision": "fp16"},
        {"train.precision": "bf16", "train.channels_last": True, "data.cache": "device"},
        {"train.precision": "bf16", "train.gradient_accumulation": 3, "train.max_gradient_norm": 1.0},
        {"train.precision": "bf16", "train.compile": True, "train.channels_last": True},
        {"train.precision": "bf16", "train.compile": "reduce-overhead", "train.averaging": {"kind": "ema"}},
        {"train.precision": "bf16", "optimizer": {"name": "adamw", "lr": 0.003, "fused": True}},
    ],
    ids=lambda changes: "-".join(map(str, changes.values()))[:40],
)
def test_every_precision_learns(changes: dict[str, Any], train_on: Train) -> None:
    run = train_on(GPU, changes)
    assert all(map(math.isfinite, losses(run)))
    assert accuracy(run) > 0.9
    assert run.status() == "finished"
    progress = run.progress().training
    assert progress is not None
    assert progress.gpu_memory_bytes is not None
    assert progress.gpu_memory_bytes > 0


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_averages_and_their_batch_norm_statistics(kind: str, train_on: Train) -> None:
    averaging = {"kind": "ema", "decay": 0.9} if kind == "ema" else {"kind": "swa", "start": "50%"}
    run = train_on(GPU, {"train.averaging": averaging, "train.metric": "averaged_validation_accuracy"})
    assert accuracy(run, "averaged_validation_accuracy") > 0.9


def test_a_resumed_run_equals_an_uninterrupted_one(train_on: Train) -> None:
    """Up to rounding error, since kernels are chosen by their speed."""
    changes = {"train.checkpoint.every": "1ep", "train.averaging": {"kind": "ema"}, "train.precision": "bf16"}
    whole = train_on(GPU, changes, "whole")
    train_on(GPU, changes, "broken", stop=2)
    broken = train_on(GPU, changes, "broken")
    progress = broken.progress().training
    assert progress is not None
    assert progress.attempt == 2
    assert len(losses(broken)) == len(losses(whole))
    assert losses(broken) == pytest.approx(losses(whole), rel=0.05, abs=0.05)


def test_a_trained_network_predicts_alike_on_gpu_and_cpu(train_on: Train) -> None:
    run = train_on(GPU, {})
    pixels = images().validation.gather(torch.arange(32)).inputs
    predictor = load_predictor(run.folder)
    with torch.inference_mode():
        there = predictor(pixels)
        here = predictor.to(GPU)(pixels.to(GPU)).cpu()
    torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "augment", [["flip", "crop", "erasing"], ["shift", "random_resized_crop"], ["mixup", "cutmix"]]
)
def test_no_step_waits_for_the_gpu(augment: list[str]) -> None:
    """A copy back from the GPU in each step would leave it idle while Python prepares the next one."""
    job = job_of(
        {"data.augment": augment, "data.cache": "device", "train.precision": "bf16", "train.max_gradient_norm": 1.0}
    )
    plan = Plan.make(job, images()).to(GPU)
    group = Group(device=GPU)
    model = prepare_model(plan, group)
    train_step = TrainStep(plan, model, group)
    found = batches(plan.splits.train, plan.sampler, plan.augment, 0, device=GPU)
    for step in range(3):
        train_step(next(found), plan.sampler.size(step), step)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(3, 6):
            train_step(next(found), plan.sampler.size(step), step)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_full_gpu_gets_a_sentence_with_the_setting_to_change() -> None:
    with pytest.raises(torch.OutOfMemoryError) as caught:
        torch.empty(1 << 44, dtype=torch.uint8, device=GPU)
    sentence = describe(caught.value).sentence
    assert "the GPU's memory is full; try a smaller train.batch_size" in sentence


def test_images_that_do_not_fit_into_the_gpu_are_a_mistake_in_the_job() -> None:
    pixels = np.zeros((4096, 64, 64, 3), np.uint8)
    every = Images(pixels, np.arange(4096) % 2, ("a", "b"))
    rows = every.rows(torch.arange(4096))
    plan = Plan.make(job_of({"data.cache": "device"}), Splits(rows, rows))
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-5)
    try:
        with pytest.raises(JobError, match=r"data.cache: the decoded images do not fit into the GPU; allowed: memory"):
            plan.to(GPU)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
