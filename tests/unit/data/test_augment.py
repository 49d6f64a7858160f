"""A row's augmentation depends on (seed, epoch, row id) alone: not on its neighbours, its position or the workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lehr.data.augment import AUGMENTATIONS, MIXES, Augment
from lehr.data.augment.mixing import beta
from lehr.data.augment.rand_augment import COLOURS, MOVES, rand_augment
from lehr.data.batches import batches
from lehr.data.dataset import Batch, BatchSampler, DataSubset, Images, MixPartners
from lehr.data.randomness import draws
from lehr.errors import JobError
from lehr.job import TrainJob, from_dict
from lehr.training.setup import check_job

ROWS, CLASSES = 53, 7
EVERY: list[list[tuple[str, dict[str, Any]]]] = [
    [("flip", {})],
    [("flip", {"direction": "vertical", "probability": 1.0})],
    [("shift", {"pixels": 2})],
    [("crop", {"outside": "reflect"})],
    [("crop", {"outside": "edge", "padding": 3})],
    [("random_resized_crop", {})],
    [("scale_jitter", {})],
    [("rand_augment", {"magnitude": 15.0})],
    [("erasing", {})],
    [("mixup", {"alpha": 1.0})],
    [("cutmix", {})],
    [("crop", {}), ("flip", {}), ("mixup", {}), ("cutmix", {}), ("erasing", {})],
]
names = pytest.mark.parametrize("steps", EVERY, ids=lambda steps: "+".join(name for name, _ in steps))


@pytest.fixture(scope="module")
def rows() -> DataSubset:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (ROWS, 12, 10, 3), dtype=np.uint8)
    images = Images(pixels, np.arange(ROWS) % CLASSES, tuple("abcdefg"))
    return DataSubset(images, torch.arange(ROWS))


def epoch_of(
    rows: DataSubset, steps: list[tuple[str, dict[str, Any]]], workers: int, epoch: int = 0
) -> dict[int, tuple[Tensor, Tensor]]:
    """Every row after the augmentation of an epoch: id -> (image, target)."""
    augment, sampler = Augment(steps, seed=3), BatchSampler(len(rows), 16, seed=3)
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for rank in range(workers):
        for batch in batches(rows, sampler, augment, epoch, 0, rank, workers):
            found |= {int(i): (x, y) for i, x, y in zip(batch.ids, batch.inputs, batch.targets, strict=True)}
    return found


def test_every_registered_augmentation_is_in_these_tests() -> None:
    assert {name for steps in EVERY for name, _ in steps} == {*AUGMENTATIONS, *MIXES}


@names
def test_1_2_and_4_workers_see_the_same_rows_with_the_same_augmentation(rows: DataSubset, steps: list[Any]) -> None:
    alone = epoch_of(rows, steps, 1)
    assert sorted(alone) == list(range(ROWS))
    for workers in (2, 4):
        together = epoch_of(rows, steps, workers)
        assert sorted(together) == sorted(alone)
        for row, (image, target) in alone.items():
            assert torch.equal(together[row][0], image)
            assert torch.equal(together[row][1], target)


@names
def test_epochs_differ_and_the_same_epoch_repeats(rows: DataSubset, steps: list[Any]) -> None:
    first, again, second = (epoch_of(rows, steps, 1, epoch) for epoch in (0, 0, 1))
    assert all(torch.equal(first[row][0], again[row][0]) for row in first)
    if steps[0][1].get("probability") != 1.0:
        assert sum(not torch.equal(first[row][0].float(), second[row][0].float()) for row in first) > ROWS / 4


@names
def test_each_row_of_a_batch_has_its_own_parameters(steps: list[Any]) -> None:
    """The same image is augmented differently under different ids, and equally under one id, wherever it is."""
    image = torch.randint(0, 256, (1, 3, 12, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    other = image.flip(2)  # what it is mixed with
    ids = torch.tensor([5, 9, 5, 11, 12, 13, 14, 15, 16, 17, 18, 5])
    inputs = torch.cat([image.expand(12, -1, -1, -1), other])
    batch = Batch(inputs, torch.zeros(13, dtype=torch.int64), torch.cat([ids, torch.tensor([99])]))
    augment = Augment(steps, seed=1)
    partners = MixPartners(torch.arange(12), torch.full((12,), 12)) if augment.mixes else None
    inputs = augment(batch, 0, partners, CLASSES).inputs[:12]
    assert torch.equal(inputs[0], inputs[2])
    assert torch.equal(inputs[0], inputs[11])
    if steps[0][1].get("probability") != 1.0:
        assert len({tuple(x.flatten().tolist()) for x in inputs}) > 1


@names
def test_pixels_stay_in_range_and_the_cache_unchanged(rows: DataSubset, steps: list[Any]) -> None:
    before = rows._pixels.clone()
    for image, target in epoch_of(rows, steps, 1).values():
        assert image.shape == (3, 12, 10)
        assert image.min() >= 0
        assert image.max() <= 255
        if target.is_floating_point():
            assert abs(float(target.sum()) - 1) < 1e-12
    assert torch.equal(rows._pixels, before)


@names
def test_a_worker_may_have_no_rows_of_a_batch(rows: DataSubset, steps: list[Any]) -> None:
    """53 rows in batches of 16: the last batch has 5 rows, so some of 8 workers have none."""
    assert len(epoch_of(rows, steps, 8)) == ROWS


def draw_of(*values: float) -> Any:
    return lambda k: torch.tensor([values[k]], dtype=torch.float64)


IMAGE = torch.arange(12, dtype=torch.uint8).view(1, 1, 3, 4)


@pytest.mark.parametrize(
    ("name", "options", "draws", "expected"),
    [
        ("flip", {}, (0.4,), [[3, 2, 1, 0], [7, 6, 5, 4], [11, 10, 9, 8]]),
        ("flip", {}, (0.6,), [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]),
        ("flip", {"direction": "vertical"}, (0.4,), [[8, 9, 10, 11], [4, 5, 6, 7], [0, 1, 2, 3]]),
        ("shift", {"pixels": 1}, (0.0, 0.0), [[0, 0, 0, 0], [0, 0, 1, 2], [0, 4, 5, 6]]),
        ("shift", {"pixels": 1}, (0.99, 0.5), [[4, 5, 6, 7], [8, 9, 10, 11], [0, 0, 0, 0]]),
        ("crop", {"padding": 1, "outside": "reflect"}, (0.0, 0.0), [[5, 4, 5, 6], [1, 0, 1, 2], [5, 4, 5, 6]]),
        ("crop", {"padding": 1, "outside": "edge"}, (0.0, 0.99), [[1, 2, 3, 3], [1, 2, 3, 3], [5, 6, 7, 7]]),
        ("crop", {"padding": 1}, (0.5, 0.5), [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]),
        ("erasing", {"smallest": 1.0, "largest": 1.0}, (0.0, 0, 0.5, 0, 0), [[6, 6, 6, 6]] * 3),
        ("erasing", {}, (0.9, 0.5, 0.5, 0.5, 0.5), [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]),
    ],
)
def test_results_worked_out_by_hand(
    name: str, options: dict[str, Any], draws: tuple[float, ...], expected: list[list[int]]
) -> None:
    assert AUGMENTATIONS[name](IMAGE, draw_of(*draws), **options)[0, 0].tolist() == expected


def test_the_whole_window_of_random_resized_crop_is_the_image() -> None:
    same = AUGMENTATIONS["random_resized_crop"](IMAGE, draw_of(0, 0.5, 0.5, 0.5), smallest=1.0)
    assert (same - IMAGE).abs().max() < 1e-4


def test_mixup_mixes_images_and_targets_with_the_same_share() -> None:
    batch = Batch(
        torch.tensor([0, 100], dtype=torch.uint8).view(2, 1, 1, 1), torch.tensor([0, 1]), torch.tensor([4, 8])
    )
    mixed = Augment([("mixup", {"alpha": 1.0})], seed=0)(
        batch, 0, MixPartners(torch.arange(2), torch.tensor([1, 0])), 2
    )
    assert torch.allclose(mixed.inputs.flatten().double(), mixed.targets[:, 1] * 100, atol=1e-4)


def test_cutmix_targets_are_the_shares_of_the_pixels() -> None:
    pixels = torch.stack([torch.zeros(1, 9, 9), torch.ones(1, 9, 9)]).to(torch.uint8)
    batch = Batch(pixels, torch.tensor([0, 1]), torch.tensor([4, 8]))
    for epoch in range(20):
        mixed = Augment([("cutmix", {})], seed=0)(batch, epoch, MixPartners(torch.arange(2), torch.tensor([1, 0])), 2)
        assert torch.allclose(mixed.inputs.double().mean(dim=(1, 2, 3)), mixed.targets[:, 1])


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 4.0])
def test_beta_has_the_quantiles_that_sampling_finds(alpha: float) -> None:
    ours = beta(torch.linspace(0.05, 0.95, 19, dtype=torch.float64), alpha).numpy()
    sampled = np.quantile(np.random.default_rng(0).beta(alpha, alpha, 400_000), np.linspace(0.05, 0.95, 19))
    assert np.abs(ours - sampled).max() < 0.01


def test_partners_are_other_rows_of_the_same_global_batch() -> None:
    sampler = BatchSampler(53, 16, seed=0)
    order = sampler.order(0)
    for step in range(sampler.steps):
        batch = order[step * 16 : (step + 1) * 16]
        for rank in range(3):
            positions, partners = sampler.positions_and_partners(order, step, rank, 3)
            own, others = positions[partners.own], positions[partners.others]
            assert torch.equal(own, sampler.positions(order, step, rank, 3))
            assert set(others.tolist()) <= set(batch.tolist())
            assert not (own == others).any()


@pytest.mark.parametrize("operation", [*MOVES, *COLOURS])
def test_each_operation_changes_an_image_at_full_level_and_not_at_level_0(operation: str) -> None:
    """Except operations without a level, and up to rounding."""
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 200 + 20

    def apply(level: float) -> Tensor:
        levels = torch.full((2,), level)
        if operation in COLOURS:
            return COLOURS[operation](image, levels)
        from lehr.data.augment.geometry import affine

        return affine(image, MOVES[operation](levels, 1.0))

    assert (apply(1.0) - image).abs().mean() > 1
    if operation not in ("autocontrast", "equalize"):
        assert (apply(0.0) - image).abs().max() <= (1 if operation == "posterize" else 1e-3)


def test_rand_augment_of_grey_images() -> None:
    images = torch.randint(0, 256, (64, 1, 8, 8), dtype=torch.uint8)
    out = rand_augment(images, lambda k: torch.rand(64, dtype=torch.float64), operations=3, magnitude=30.0)
    assert out.shape == images.shape
    assert torch.isfinite(out).all()


@pytest.mark.parametrize(
    ("augment", "sentence"),
    [
        ([{"name": "flop"}], 'data.augment.0: "flop" is not an augmentation; allowed: flip, shift'),
        ([{"name": "flip", "probabilty": 0.5}], "data.augment.0.probabilty: unknown option"),
        ([{"name": "flip", "probability": 1.5}], "data.augment.0.probability: 1.5 is out of range; allowed: 0 to 1"),
        ([{"name": "flip", "direction": "up"}], "data.augment.0.direction: "),
        (["flip", {"name": "crop", "padding": -1}], "data.augment.1.padding: -1 is out of range"),
        ([{"name": "erasing", "smallest": 0.5, "largest": 0.1}], "data.augment.0.largest: 0.1 is below smallest"),
        ([{"name": "mixup", "alpha": 0}], "data.augment.0.alpha: 0 is out of range"),
    ],
)
def test_a_wrong_augmentation_is_one_sentence(augment: list[Any], sentence: str) -> None:
    job = from_dict({"kind": "train", "data": {"augment": augment}})
    assert isinstance(job, TrainJob)
    with pytest.raises(JobError) as caught:
        check_job(job)
    assert str(caught.value).startswith(sentence)


def test_many_strong_operations_stay_within_the_range_of_pixels() -> None:
    images = torch.arange(64 * 3 * 16 * 16).reshape(64, 3, 16, 16).remainder(256).to(torch.float32) - 1e-5
    for epoch in range(20):
        mixed = rand_augment(images, draws(epoch, torch.arange(64)), operations=12, magnitude=30)
        assert mixed.min() >= 0
        assert mixed.max() <= 255
