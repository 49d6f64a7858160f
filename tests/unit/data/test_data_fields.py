"""Each field of `data` is used, told or refused; none is accepted and ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import lehr
from lehr.data.augment import AUGMENTATIONS, MIXES
from lehr.data.load import OpenedSources, splits
from lehr.errors import JobError
from lehr.job import DataSection, TrainJob, from_dict
from lehr.job.predict import OF_PREDICTIONS

from .files import tree

PETS = tuple(f"{name}/{number}.png" for name in ("cat", "dog") for number in range(10))


def opened(**data: Any) -> OpenedSources:
    job = from_dict({"kind": "train", "data": {name: str(v) if isinstance(v, Path) else v for name, v in data.items()}})
    assert isinstance(job, TrainJob)
    return OpenedSources(job)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_other_rows_of_a_source_without_paths_are_refused_and_never_its_training_rows(
    split: str, tmp_path: Path
) -> None:
    with pytest.raises(
        JobError, match=rf'data\.{split}: the source digits has no other rows at ".*/more"; allowed: auto'
    ):
        opened(source="digits", **{split: str(tmp_path / "more")})


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_training_rows_are_not_the_rows_to_validate_on(split: str, tmp_path: Path) -> None:
    tree(tmp_path / "set", *PETS)
    with pytest.raises(JobError, match=rf'data\.{split}: ".*/set" is data\.path, the rows to train on; allowed: other'):
        opened(source="images", path=tmp_path / "set", **{split: tmp_path / "set"})
    tree(tmp_path / "both/train", *PETS)
    tree(tmp_path / "both/test", *PETS)
    with pytest.raises(
        JobError, match=rf"data\.{split}: .* has splits of its own, train, test; allowed: the path of one"
    ):
        opened(source="images", path=tmp_path / "set", **{split: tmp_path / "both"})
    assert opened(source="images", path=tmp_path / "set", **{split: tmp_path / "both/test"}).extra[split].rows == 20


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            {"validation": "none"},
            r'data\.validation: "none" means nothing here; allowed: auto, a share \(0\.2 or 20%\)',
        ),
        ({"validation": "pretrained"}, r'data\.validation: "pretrained" means nothing here'),
        ({"test": "pretrained"}, r'data\.test: "pretrained" means nothing here; allowed: auto, none, a path'),
    ],
)
def test_a_word_without_a_meaning_is_refused(data: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        from_dict({"kind": "train", "data": data})


def test_a_seed_that_draws_nothing_is_told(tmp_path: Path) -> None:
    tree(tmp_path / "set", *PETS)
    tree(tmp_path / "more", *PETS)
    where = {"source": "images", "path": tmp_path / "set", "split_seed": 3}
    told = "data.split_seed changes nothing: validation has rows of its own, and no limit draws others"
    assert told in opened(**where, validation=tmp_path / "more").notes
    for used in ({}, {"validation": tmp_path / "more", "limit": 4}, {"validation": tmp_path / "more", "per_class": 3}):
        assert told not in opened(**where, **used).notes


def test_decoding_smaller_is_refused_without_a_size_and_told_where_it_changes_nothing(tmp_path: Path) -> None:
    tree(tmp_path, *PETS)
    with pytest.raises(JobError, match=r"data\.decode: scaled is for .* resized.*type data\.image_size=224"):
        opened(source="images", path=tmp_path, decode="scaled")
    told = "data.decode=scaled changes none of the first images: no JPEG files twice as large as needed"
    assert told in opened(source="images", path=tmp_path, decode="scaled", image_size=4).notes
    Image.new("RGB", (9, 8)).save(tmp_path / "cat/0.jpg")
    assert told not in opened(source="images", path=tmp_path, decode="scaled", image_size=4).notes
    assert told not in opened(source="images", path=tmp_path, image_size=4).notes


def test_a_cache_on_a_gpu_is_told_where_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("here is a GPU")
    job = {"kind": "train", "storage": str(tmp_path), "data": {"cache": "device", "limit": 100}, "train": {"epochs": 1}}
    lehr.run(job, debug=True)
    assert "data.cache=device: there is no GPU, so the images stay in this machine's memory" in capsys.readouterr().out


@pytest.mark.parametrize("data", [{"limit": 1}, {"limit": 2, "split_seed": 1}])
def test_rows_of_one_class_are_no_training(data: dict[str, Any], tmp_path: Path) -> None:
    tree(tmp_path, *(f"cat/{number}.png" for number in range(40)), "dog/1.png")
    found = opened(source="images", path=tmp_path, **data)
    said = rf"data\.limit: all {data['limit']} rows to train on are of one class, cat; allowed: rows of two classes"
    with pytest.raises(JobError, match=said):
        splits(found.job, found.decode())


@pytest.mark.parametrize(
    "data",
    [
        *(
            {name: value}
            for name, value in (("limit", 3), ("per_class", 3), ("classes", ["0", "1"]), ("split_seed", 1))
        ),
        *({name: value} for name, value in (("image_size", 9), ("channels", 3), ("pixel_range", [0, 1]))),
        *({name: value} for name, value in (("validation", 0.3), ("test", "none"), ("cache", "stream"))),
        *({name: value} for name, value in (("sampling", "balanced"), ("augment", ["flip"]))),
        *({name: value} for name, value in (("stratify", "labels"), ("fold", "1/5"), ("decode", "scaled"))),
    ],
    ids=lambda data: next(iter(data)),
)
def test_a_prediction_refuses_every_field_that_it_does_not_use(data: dict[str, Any], tmp_path: Path) -> None:
    job = {"kind": "predict", "run": "none", "storage": str(tmp_path), "data": {"source": "digits", **data}}
    with pytest.raises(
        JobError,
        match=rf"data\.{next(iter(data))}: has no effect on a prediction, which uses every image, prepared as for the",
    ):
        lehr.run(job, debug=True)


def test_the_fields_above_are_all_there_are() -> None:
    tried = {
        "decode",
        "limit",
        "per_class",
        "classes",
        "split_seed",
        "image_size",
        "channels",
        "pixel_range",
        "validation",
    }
    tried |= {"decode", "test", "cache", "sampling", "augment", "stratify", "fold", "shards"}
    of_columns = {"split", "group"}  # digits have neither: refused for that, which the table of every field shows
    assert {*DataSection.model_fields} == {*tried, *of_columns, *OF_PREDICTIONS}


@pytest.mark.parametrize("name", [*AUGMENTATIONS, *MIXES])
def test_every_augmentation_takes_four_channels(name: str, tmp_path: Path) -> None:
    from lehr.data.augment import Augment
    from lehr.data.batches import batches
    from lehr.data.dataset import BatchSampler

    tree(tmp_path, *PETS)
    found = opened(source="images", path=tmp_path, channels=4, augment=[name], image_size=8)
    rows = splits(found.job, found.decode()).train
    sampler = BatchSampler(len(rows), 8, 0)
    for batch in batches(rows, sampler, Augment([(name, {})], 0), 0):
        assert batch.inputs.shape[1:] == (4, 8, 8)
