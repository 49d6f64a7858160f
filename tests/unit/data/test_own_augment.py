"""Augmentations of one's own: both forms, the same whatever the batch, and one sentence for what cannot be used."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lehr.data.augment import Augment, Own
from lehr.data.batches import batches
from lehr.data.dataset import BatchSampler, DataSubset, Images
from lehr.data.load import augmentations
from lehr.data.sample_grid import draw_sample_grid
from lehr.errors import LehrError
from lehr.job import TrainJob, from_dict, to_dict
from lehr.trust import calls_of, give

MINE = """
import random
import numpy as np
import torch

def brighter(images, draw, *, by: float = 20.0):
    return images.float() + (by * draw(0)).float()[:, None, None, None]

def darker(image, by: int = 2):
    return image // by

class Drawn:
    def __init__(self, least: float = 0.5):
        self.least = least
    def __call__(self, image):
        image.mul_(1)  # in place, which must not reach the cache
        share = (random.random() + np.random.rand() + float(torch.rand(()))) / 3
        return image * (self.least + (1 - self.least) * share)

class Sometimes(Drawn):  # another type for some rows
    def __call__(self, image):
        return super().__call__(image) if random.random() < 0.5 else image

class Fixed:
    pass

def mean(images, draw):
    return images.float() - images.float().mean() + 128

def whole(images, draw):
    return images.float() * torch.rand(())

def count(images, draw, seen=[]):
    seen.append(1)
    return images.float() + len(seen)

def own_generator(image):
    return image + np.random.default_rng().integers(0, 2, image.shape).astype(np.uint8)

def unit(image):
    return image / 255

def nan(image):
    return image / 0 * 0

def smaller(image):
    return image[:, 1:]

def array(image):
    return image.numpy()

def fails(images, draw):
    return images @ images[:, :, :3]

def nothing(x):
    return x

def costly(images, draw, draw_more):
    return images
"""
V2 = "torchvision.transforms.v2:"
GOOD: list[list[tuple[str, dict[str, Any]]]] = [
    [("mine:brighter", {"by": 90.0})],
    [("mine:darker", {"by": 3})],
    [("mine:Drawn", {"least": 0.1})],
    [("mine:Sometimes", {})],
    [("flip", {}), ("mine:Drawn", {}), ("mixup", {}), ("mine:brighter", {}), ("mine:Drawn", {})],
    [(f"{V2}ColorJitter", {"brightness": 0.5, "contrast": [0.5, 1.5]})],
    [(f"{V2}RandomAffine", {"degrees": 30, "translate": [0.1, 0.1]}), (f"{V2}TrivialAugmentWide", {})],
]
ROWS = 21


@pytest.fixture(autouse=True)
def _mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("lehr.own_modules._places", [])  # where the jobs of other tests had modules of this name
    sys.modules.pop("mine", None)


def job_of(*augment: Any, **data: Any) -> TrainJob:
    job = from_dict({"data": {"augment": list(augment), **data}})
    assert isinstance(job, TrainJob)
    give(to_dict(job))
    return job


def made(steps: list[tuple[str, dict[str, Any]]]) -> Augment:
    return augmentations(job_of(*({"name": name, **options} for name, options in steps)))


@pytest.fixture(scope="module")
def rows() -> DataSubset:
    pixels = np.random.default_rng(0).integers(0, 256, (ROWS, 12, 10, 3), dtype=np.uint8)
    return DataSubset(Images(pixels, np.arange(ROWS) % 3, tuple("abc")), torch.arange(ROWS))


def epoch_of(rows: DataSubset, augment: Augment, workers: int, epoch: int = 0) -> dict[int, Tensor]:
    sampler = BatchSampler(len(rows), 8, seed=3)
    found: dict[int, Tensor] = {}
    for rank in range(workers):
        for batch in batches(rows, sampler, augment, epoch, 0, rank, workers):
            found |= {int(i): image for i, image in zip(batch.ids, batch.inputs, strict=True)}
    return found


@pytest.mark.parametrize("steps", GOOD, ids=lambda steps: "+".join(name for name, _ in steps))
def test_a_row_depends_on_seed_epoch_and_id_alone(rows: DataSubset, steps: list[tuple[str, dict[str, Any]]]) -> None:
    before, augment = rows._pixels.clone(), made(steps)
    augment.probe(*rows.shape)
    alone, again, second = (epoch_of(rows, augment, 1, epoch) for epoch in (0, 0, 1))
    together = epoch_of(rows, made(steps), 3)
    for row, image in alone.items():
        assert image.equal(again[row])
        assert image.float().equal(together[row].float())
        assert image.shape == (3, 12, 10)
    if steps[0][0] != "mine:darker":
        assert any(not image.float().equal(second[row].float()) for row, image in alone.items())
    assert rows._pixels.equal(before)


def test_an_image_gets_the_draws_of_its_row_and_position() -> None:
    """What a transform drew is known from the seed alone; two of the same name draw different numbers."""
    job_of({"name": "mine:Drawn", "least": 0.0})
    image = torch.full((1, 1, 2, 2), 200, dtype=torch.uint8)
    one = Own("mine:Drawn", {"least": 0.0}).build()(image, lambda k: torch.tensor([0.25], dtype=torch.float64))
    seed = 2**51
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    share = (random.random() + np.random.rand() + float(torch.rand(()))) / 3
    assert one.flatten().tolist() == pytest.approx([200 * share] * 4)
    twice = made([("mine:Drawn", {}), ("mine:Drawn", {})])
    assert [step[0] for step in twice._before] == [0, 1]


def test_the_generators_of_the_process_are_as_they_were(rows: DataSubset) -> None:
    augment = made([("mine:Drawn", {})])
    for _ in range(2):  # the second time for what the first compared
        states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]
        epoch_of(rows, augment, 1)
        after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]
        assert states[0] == after[0]
        assert states[1] == after[1]
        assert states[2].equal(after[2])


def test_a_torchvision_transform_of_no_chance_is_applied_as_it_is(rows: DataSubset) -> None:
    flipped = epoch_of(rows, made([(f"{V2}RandomVerticalFlip", {"p": 1.0})]), 1)
    plain = epoch_of(rows, made([]), 1)
    assert all(image.equal(plain[row].flip(1)) for row, image in flipped.items())


def test_a_name_of_torchvision_is_no_code_and_one_of_one_s_own_is() -> None:
    named = to_dict(job_of(f"{V2}ColorJitter", {"name": "mine:darker", "by": 2}, "flip"))
    assert [(call.field, call.path, call.options) for call in calls_of(named)] == [
        ("augmentation", "mine:darker", {"by": 2})
    ]


def test_augmentations_of_one_s_own_are_never_compiled() -> None:
    assert not augmentations(job_of("mine:brighter", "flip"), compiled=True)._compiles
    assert augmentations(job_of("flip"), compiled=True)._compiles


def test_the_sample_grid_shows_them(rows: DataSubset, tmp_path: Path) -> None:
    def drawn(*steps: tuple[str, dict[str, Any]]) -> list[int]:
        draw_sample_grid(rows, made(list(steps)), [7, 7, 7], 1, tmp_path / "grid.png")
        with Image.open(tmp_path / "grid.png") as picture:
            return list(picture.convert("L").tobytes())

    assert drawn(("mine:darker", {})) != drawn()


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("nowhere", '"nowhere" is not an augmentation; allowed: flip, shift, crop, random_resized_crop, scale'),
        ("nobody:it", '"nobody:it" is not an augmentation: there is no module nobody, neither beside the job file'),
        ("mine:it", '"mine:it" is not an augmentation: mine has no it; it has brighter, darker'),
        ("mine:nothing", '"mine:nothing" is not an augmentation; allowed: a function (images, draw, **options)'),
        ("mine:Fixed", 'objects of "mine:Fixed" cannot be called; allowed: a function (images, draw, **options)'),
        ({"name": "mine:brighter", "bye": 3}, "bye: unknown option; did you mean by? allowed: by"),
        ({"name": "mine:brighter", "by": "much"}, 'by: "much" is not a number'),
        ({"name": "mine:brighter", "draw": 1}, "draw: unknown option; allowed: by"),
        ({"name": "mine:darker", "image": 1}, "image: unknown option; allowed: by"),
        ({"name": "mine:Drawn", "probability": 7}, "probability: unknown option; allowed: least"),
        ("mine:costly", "needs draw_more"),
        ("mine:mean", "mine:mean gives an image another result in another batch; allowed: an augmentation of each row"),
        ("mine:whole", "mine:whole gives another result for the same images the second time; allowed: random numbers"),
        ("mine:count", "mine:count gives another result for the same images the second time; allowed: random numbers"),
        ("mine:own_generator", "mine:own_generator gives another result for the same images the second time"),
        ("mine:unit", "mine:unit returned values from 0 to 1; allowed: from 0 to 255, as it was given"),
        ("mine:nan", "mine:nan returned values that are not finite; allowed: numbers from 0 to 255"),
        ("mine:smaller", "mine:smaller returned uint8 [3, 11, 10] for uint8 [3, 12, 10]; allowed: a tensor"),
        ("mine:array", "mine:array returned a ndarray for uint8 [3, 12, 10]; allowed: a tensor of the same shape"),
        ("mine:fails", "mine:fails failed: RuntimeError: "),
        (f"{V2}Jitter", "torchvision.transforms.v2 has no transform Jitter; did you mean ScaleJitter or ColorJitter"),
        (f"{V2}functional", "torchvision.transforms.v2 has no transform functional"),
        (f"{V2}MixUp", f"{V2}MixUp mixes the images of a batch; allowed: mixup"),
        (f"{V2}RandomAffine", "needs degrees"),
        ({"name": f"{V2}ColorJitter", "brightnes": 1}, "brightnes: unknown option; did you mean brightness?"),
        ({"name": f"{V2}ColorJitter", "brightness": "a"}, f"{V2}ColorJitter failed: "),
        ({"name": f"{V2}Resize", "size": 4}, f"{V2}Resize returned uint8 [3, 4, 4] for uint8 [3, 12, 10]"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_gets_one_sentence(entry: Any, sentence: str, rows: DataSubset) -> None:
    with pytest.raises((LehrError, ValueError)) as caught:
        augmentations(job_of(entry)).probe(*rows.shape)
    told = str(caught.value)
    assert (
        told.removeprefix("data.augment.0.").removeprefix("data.augment.0: ").removeprefix("0: ").startswith(sentence)
    )
    assert "\n" not in told


def test_a_result_that_is_wrong_for_some_rows_only_ends_training_with_one_sentence() -> None:
    job_of("mine:nan")
    with pytest.raises(LehrError, match="mine:nan returned values that are not finite"):
        Own("mine:nan", {}).build()(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), lambda k: torch.zeros(1).double())
