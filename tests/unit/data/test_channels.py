"""The channels of a set are those of any of its training images, or what the job says: cached, streamed, predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import lehr
from lehr.data.load import OpenedSources, splits
from lehr.data.streaming import ThreadDecoder
from lehr.errors import JobError
from lehr.job import TrainJob, from_dict
from lehr.runs import ModelFile

from .files import encoded, png, tiff

SIZE = 8


def pixels(row: int, shape: tuple[int, ...]) -> np.ndarray:
    """An image whose brightness says its class, row % 2."""
    noise = np.random.default_rng(row).integers(0, 100, shape)
    return (noise + 150 * (row % 2)).astype(np.uint8)


def grey(row: int) -> bytes:
    return encoded(pixels(row, (SIZE, SIZE)))


def colour(row: int) -> bytes:
    return encoded(pixels(row, (SIZE, SIZE, 3)))


def parquet(path: Path, images: list[bytes]) -> Path:
    """Images with label row % 2, in row groups of 10."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": images, "label": [row % 2 for row in range(len(images))]})
    pq.write_table(table.replace_schema_metadata({"classes": "dark,bright"}), path, row_group_size=10)
    return path


def opened(path: Path, **data: Any) -> OpenedSources:
    job = from_dict({"kind": "train", "data": {"source": "parquet", "path": str(path), **data}})
    assert isinstance(job, TrainJob)
    return OpenedSources(job)


def both(found: OpenedSources) -> tuple[Any, Any]:
    """The splits of the cached and of the streamed data."""
    return splits(found.job, found.decode()), splits(found.job, found.stream(ThreadDecoder(1)))


@pytest.mark.parametrize("at", [0, 70, 119, None])
def test_one_coloured_image_anywhere_makes_a_set_coloured_however_it_is_held(tmp_path: Path, at: int | None) -> None:
    images = [colour(row) if row == at else grey(row) for row in range(120)]
    found = opened(parquet(tmp_path / "set.parquet", images))
    channels = 1 if at is None else 3
    assert found.shape == (SIZE, SIZE, channels)
    assert found.nbytes == 120 * SIZE * SIZE * channels
    for cached, streamed in zip(*(vars(each).values() for each in both(found)), strict=True):
        if cached is not None:
            assert cached.shape == streamed.shape == (channels, SIZE, SIZE)
            rows = torch.arange(len(cached))
            assert torch.equal(cached.gather(rows).inputs, streamed.gather(rows).inputs)


@pytest.mark.parametrize(("train", "other", "channels"), [(colour, grey, 3), (grey, colour, 1)])
def test_validation_images_are_converted_to_the_channels_of_the_training_images(
    tmp_path: Path, train: Any, other: Any, channels: int
) -> None:
    parquet(tmp_path / "set/train/a.parquet", [train(row) for row in range(20)])
    parquet(tmp_path / "set/val/a.parquet", [other(row) for row in range(8)])
    found = opened(tmp_path / "set")
    for made in both(found):
        assert made.train.shape == made.validation.shape == (channels, SIZE, SIZE)
    theirs, ours = ("grey", "in colour") if channels == 3 else ("in colour", "grey")
    said = f"the images for validation are {theirs}; they are converted, since those for training are {ours}"
    assert found.notes == (said,)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_job_says_the_channels(tmp_path: Path, channels: int) -> None:
    found = opened(parquet(tmp_path / "set.parquet", [colour(0), *map(grey, range(1, 20))]), channels=channels)
    for made in both(found):
        assert made.train.shape == (channels, SIZE, SIZE)


def test_a_stream_of_grey_images_is_read_to_its_end_unless_the_job_says_their_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lehr.data.sources.parquet import ParquetPart

    read: list[int] = []
    whole = ParquetPart.read

    def counted(part: ParquetPart, rows: Any = None) -> pa.Table:
        read.append(part.row_group)
        return whole(part, rows)

    monkeypatch.setattr(ParquetPart, "read", counted)
    path = parquet(tmp_path / "set.parquet", [grey(row) for row in range(50)])
    assert opened(path).shape[2] == 1
    assert {*read} == {0, 1, 2, 3, 4}
    read.clear()
    assert opened(path, channels=1).shape[2] == 1
    assert {*read} == {0}
    read.clear()
    assert opened(parquet(tmp_path / "colour.parquet", [colour(row) for row in range(50)])).shape[2] == 3
    assert {*read} == {0}


@pytest.mark.parametrize(
    ("value", "said"),
    [(2, "2 is not a number of channels; allowed: auto, 1, 3, 4"), ("rgb", '"rgb" is not a number of channels')],
)
def test_other_channels_are_refused(value: Any, said: str) -> None:
    with pytest.raises(JobError, match=said):
        from_dict({"kind": "train", "data": {"channels": value}})


@pytest.mark.parametrize("value", [[0], [5, 5], [9, 1], "0-1", [0, float("inf")], {"low": 0}])
def test_a_range_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(JobError, match=r"data\.pixel_range: .* is not a range of values; allowed: \[BLACK, WHITE\]"):
        from_dict({"kind": "train", "data": {"pixel_range": value}})


# ── from files to answers ───────────────────────────────────────────────────────────────────────────────────────────

TINY = {
    "kind": "train",
    "model": {"name": "small_cnn", "width": 8},
    "optimizer": {"name": "adam", "lr": 0.01},
    "train": {"epochs": 2, "batch_size": 16},
}


def deep(row: int) -> np.ndarray:
    """12 bits in 16: dark and bright differ only in the low bits."""
    return (pixels(row, (SIZE, SIZE)).astype(np.uint16) * 16)[..., None]


def signed(row: int) -> bytes:
    return tiff(deep(row)[..., 0].astype(np.int16) - 1024)


def only_alpha(row: int) -> bytes:
    """Black everywhere: the transparency alone says the class."""
    return encoded(np.dstack([np.zeros((SIZE, SIZE, 3), np.uint8), pixels(row, (SIZE, SIZE))]))


FORMS: dict[str, tuple[Any, dict[str, Any], str, int]] = {
    "grey-16": (lambda row: png(deep(row) * 16, 0), {}, "png", 1),
    "grey-12-in-16": (lambda row: png(deep(row), 0), {"pixel_range": [0, 4095]}, "png", 1),
    "signed-tiff": (signed, {"pixel_range": [-1024, 3071]}, "tif", 1),
    "alpha": (only_alpha, {"channels": 4}, "png", 4),
    "grey-as-colour": (grey, {"channels": 3}, "png", 3),
}
"""By name: what makes an image, what the job says of it, the ending of its files, and the channels of the network."""


@pytest.mark.parametrize(("form", "cache"), [*zip(FORMS, ("memory", "stream") * 3, strict=False)])
def test_what_is_learned_is_found_again_by_evaluate_and_predict(tmp_path: Path, form: str, cache: str) -> None:
    from lehr.data.sources import open_source
    from lehr.predict import load_predictor
    from lehr.predict.evaluate import evaluate

    make, data, ending, channels = FORMS[form]
    for row in range(60):
        path = tmp_path / "set" / ("dark", "bright")[row % 2] / f"{row}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make(row))
    section = {"source": "images", "path": str(tmp_path / "set"), "cache": cache, **data}
    run = lehr.run({**TINY, "name": "run", "storage": str(tmp_path), "data": section}, debug=True)
    assert run.best["value"] == 1.0
    predictor = load_predictor(run.record.folder)
    assert (predictor.channels, predictor.wanted.range) == (channels, tuple(data.get("pixel_range", ())) or None)
    assert ModelFile.read(run.record.folder).description["preprocess"].get("pixel_range") == data.get("pixel_range")
    job = from_dict({"kind": "train", "data": {"source": "images", "path": str(tmp_path / "set")}})
    assert isinstance(job, TrainJob)
    measured = evaluate(predictor, open_source(job.data, job.error))
    assert (measured.accuracy, measured.rows, measured.unreadable) == (1.0, 60, [])
    files = sorted((tmp_path / "set" / "bright").iterdir())[:3]
    shares = run.predict([str(path) for path in files])
    assert (shares.argmax(axis=1) == run.classes.index("bright")).all()
    if form == "grey-16":
        arrays = [np.asarray(Image.open(path)) for path in files]
        np.testing.assert_array_equal(run.predict(arrays), shares)
        np.testing.assert_array_equal(run.predict(np.stack(arrays)[:, None]), shares)  # channels first


def test_transparency_that_is_left_out_is_told(tmp_path: Path) -> None:
    path = parquet(tmp_path / "set.parquet", [only_alpha(row) for row in range(20)])
    assert opened(path).notes == ("the images have transparency, which is left out; data.channels: 4 keeps it",)
    assert not opened(path, channels=4).notes


def test_16_bits_are_told_in_one_line(tmp_path: Path) -> None:
    found = opened(parquet(tmp_path / "set.parquet", [png(deep(row), 0) for row in range(20)]))
    assert found.notes == ("the images have 16 bits for each value, which become 8; see data.pixel_range",)
    assert not opened(tmp_path / "set.parquet", pixel_range=[0, 4095]).notes


def test_a_set_without_black_and_white_is_refused_with_the_field_to_set(tmp_path: Path) -> None:
    images = [tiff(np.array([[row, 70000]], np.int32)) for row in range(20)]
    with pytest.raises(lehr.LehrError, match=r"row 0 and what follows cannot be read: .* data\.pixel_range=\[0,"):
        opened(parquet(tmp_path / "set.parquet", images)).shape  # noqa: B018
    assert opened(tmp_path / "set.parquet", pixel_range=[0, 70000]).shape == (1, 2, 1)


def test_weights_for_colour_are_not_given_four_channels(tmp_path: Path) -> None:
    path = parquet(tmp_path / "set.parquet", [colour(row) for row in range(20)])
    section = {"source": "parquet", "path": str(path)}
    lehr.run({**TINY, "name": "first", "storage": str(tmp_path), "data": section, "train": {"epochs": 1}}, debug=True)
    model = {**TINY["model"], "weights": "run:first"}  # type: ignore[dict-item]
    job = {**TINY, "name": "second", "storage": str(tmp_path), "data": {**section, "channels": 4}, "model": model}
    with pytest.raises(
        JobError, match=r"data\.channels: the weights run:first take images of 3 channels; allowed: auto"
    ):
        lehr.run(job, debug=True)
