"""Every source gives the same rows in the same order, or one sentence that says what is wrong."""

from __future__ import annotations

import inspect
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lehr.data.decode import FORMATS
from lehr.data.door import cache_policy, in_bytes
from lehr.data.load import OpenedSources, splits
from lehr.data.sources import Source, opener
from lehr.errors import JobError, LehrError
from lehr.job import TrainJob, from_dict, to_dict
from lehr.job.sources import SOURCES, SourceForm
from lehr.trust import give

from .conftest import CLASSES, image_of, png, write_parquet


def opened(**data: Any) -> OpenedSources:
    job = from_dict({"kind": "train", "data": {key: str(v) if isinstance(v, Path) else v for key, v in data.items()}})
    assert isinstance(job, TrainJob)
    give(to_dict(job))
    return OpenedSources(job, to_train=False)


def rows_of(source: Source) -> int:
    """The number of rows of a source, which is the same by every way of counting."""
    assert source.rows == len(source.labels()) == sum(len(part.read()) for part in source.parts)
    return source.rows


@pytest.mark.parametrize("form", SOURCES.values(), ids=SOURCES)
def test_every_source_that_a_job_can_name_has_a_module_that_opens_it(form: SourceForm) -> None:
    wanted = ["section", "job_error", *(["kind"] if form.labels or form.several else [])]
    assert [*inspect.signature(opener(form)).parameters] == wanted


def test_parquet_of_encoded_images(parquet_file: Path) -> None:
    found = opened(source="parquet", path=parquet_file)
    images = found.decode()["train"]
    assert rows_of(found.main) == 97
    assert images.classes == CLASSES
    assert all((images.pixels[row] == image_of(row)).all() and images.labels[row] == row % 3 for row in range(97))
    assert found.main.name_of(25) == f"{parquet_file} row 25"


@pytest.mark.parametrize("where", ["metadata", "column"])
def test_parquet_of_raw_pixels(tmp_path: Path, where: str) -> None:
    table = pa.table(
        {"image": [image_of(row, (6, 5)).tobytes() for row in range(9)], "label": [row % 2 for row in range(9)]}
    )
    metadata = {"classes": "a,b"}
    if where == "metadata":
        metadata["shape"] = "6,5,3"
    else:
        table = table.append_column("shape", pa.array([[6, 5, 3]] * 9, pa.list_(pa.int32())))
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "raw.parquet", row_group_size=4)
    images = opened(source="parquet", path=tmp_path / "raw.parquet").decode()["train"]
    assert all((images.pixels[row] == image_of(row, (6, 5))).all() for row in range(9))
    resized = opened(source="parquet", path=tmp_path / "raw.parquet", image_size=12).decode()["train"]
    assert resized.pixels.shape == (9, 12, 12, 3)


def test_class_folders_contain_only_files_with_an_image_ending(class_folders: Path) -> None:
    found = opened(source="images", path=class_folders)
    images = found.decode()["train"]
    assert rows_of(found.main) == 30
    assert images.classes == CLASSES
    for row in range(30):
        name = found.main.name_of(row)
        number = int(name.split("nº ")[1].split(".")[0])
        assert (images.pixels[row] == image_of(number)).all()
        assert CLASSES[images.labels[row]] == Path(name).parent.name
    assert found.main.notes == (
        f"1 folder in {class_folders} has no images and is ignored: empty",
        f"2 files left out of {class_folders}: 1 .md, 1 .txt",
    )


def test_rows_of_class_folders_are_ordered_so_that_classes_mix(class_folders: Path) -> None:
    labels = opened(source="images", path=class_folders).main.labels()
    assert len(set(labels[:10])) == 3


@pytest.mark.parametrize("form", ["images", "parquet"])
@pytest.mark.parametrize(("validation", "test"), [("val", "test"), ("valid", "testing"), ("validation", None)])
def test_nested_split_folders_are_the_splits_of_the_source(
    tmp_path: Path, form: str, validation: str, test: str | None
) -> None:
    for split, rows in (("train", range(30)), (validation, range(30, 45)), (test, range(45, 54))):
        if split is None:
            continue
        (tmp_path / "set" / split).mkdir(parents=True)
        if form == "parquet":
            write_parquet(tmp_path / "set" / split / "part-0.parquet", rows)
            continue
        for row in rows:
            (tmp_path / "set" / split / CLASSES[row % 3]).mkdir(exist_ok=True)
            (tmp_path / "set" / split / CLASSES[row % 3] / f"{row}.png").write_bytes(png(row))
    found = opened(source=form, path=tmp_path / "set")
    made = splits(found.job, found.decode())
    assert (len(made.train), len(made.validation)) == (30, 15)
    assert (made.test is None) == (test is None)
    assert made.test is None or len(made.test) == 9
    share = opened(source=form, path=tmp_path / "set", validation=0.2, test="none")
    made = splits(share.job, share.decode())
    assert (len(made.train), len(made.validation), made.test) == (24, 6, None)


def test_hidden_folders_beside_split_folders_are_ignored(tmp_path: Path) -> None:
    for folder in ("train/cat", "test/cat", ".cache/thumbnails"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "1.png").write_bytes(png(1))
    found = opened(source="images", path=tmp_path)
    assert rows_of(found.main) == 1
    assert [*found.main.other_splits] == ["test"]


def test_a_split_with_fewer_classes_has_the_labels_of_the_training_rows(class_folders: Path, tmp_path: Path) -> None:
    (tmp_path / "later" / "dog").mkdir(parents=True)
    (tmp_path / "later" / "dog" / "1.png").write_bytes(png(1))
    found = opened(source="images", path=class_folders, test=tmp_path / "later")
    assert found.decode()["test"].labels.tolist() == [CLASSES.index("dog")]
    (tmp_path / "later" / "zebra").mkdir()
    (tmp_path / "later" / "zebra" / "1.png").write_bytes(png(1))
    with pytest.raises(JobError, match=r"data\.test: its classes zebra are not among those of the training data"):
        opened(source="images", path=class_folders, test=tmp_path / "later")


def test_a_greyscale_image_among_colour_images_fills_all_channels(tmp_path: Path) -> None:
    (tmp_path / "set" / "a").mkdir(parents=True)
    for row in range(300):  # more than one part
        (tmp_path / "set" / "a" / f"{row}.png").write_bytes(png(row, channels=3 if row == 7 else 1))
    images = opened(source="images", path=tmp_path / "set").decode()["train"]
    assert images.pixels.shape == (300, 8, 8, 3)
    assert sum(int((image[..., 0] != image[..., 1]).any()) for image in images.pixels) == 1


def test_photographs_are_rotated_upright(tmp_path: Path) -> None:
    (tmp_path / "set" / "a").mkdir(parents=True)
    image, file = Image.fromarray(image_of(0, (4, 6))), io.BytesIO()
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90°
    image.save(file, "PNG", exif=exif)
    (tmp_path / "set" / "a" / "1.png").write_bytes(file.getvalue())
    assert opened(source="images", path=tmp_path / "set").decode()["train"].pixels.shape == (1, 6, 4, 3)


def test_unreadable_images_are_skipped_up_to_a_share_and_row_ids_do_not_change(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "set.parquet", range(97), broken=(3, 50))
    found = opened(source="parquet", path=path, skip_unreadable="3%")
    images = found.decode()["train"]
    assert images.unreadable == (3, 50)
    made = splits(found.job, {"train": images})
    ids = {*made.train.ids.tolist(), *made.validation.ids.tolist()}
    assert ids == set(range(97)) - {3, 50}
    whole = write_parquet(tmp_path / "whole.parquet", range(97))
    unbroken = splits(found.job, opened(source="parquet", path=whole).decode())
    assert set(made.validation.ids.tolist()) == set(unbroken.validation.ids.tolist()) - {3, 50}
    assert (
        made.train.gather(made.train.ids.new_tensor([5])).ids == unbroken.train.ids[unbroken.train.ids != 3][5]
    ).all()


def test_too_many_unreadable_images_fail_the_job_with_their_names(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "set.parquet", range(97), broken=(3, 50))
    with pytest.raises(LehrError) as caught:
        opened(source="parquet", path=path).decode()
    assert str(caught.value).startswith(
        "data: 2 of 97 images are unreadable, more than data.skip_unreadable allows (0.01 of"
    )
    assert f"{path} row 3 (no image of a known format: {', '.join(FORMATS)})" in str(caught.value)
    assert f"{path} row 50" in str(caught.value)


def test_a_truncated_jpeg_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "set" / "a").mkdir(parents=True)
    file = io.BytesIO()
    Image.fromarray(image_of(0, (64, 64))).save(file, "JPEG")
    (tmp_path / "set" / "a" / "1.jpg").write_bytes(file.getvalue()[: len(file.getvalue()) // 2])
    (tmp_path / "set" / "a" / "2.jpg").write_bytes(file.getvalue())
    images = opened(source="images", path=tmp_path / "set", skip_unreadable=0.5).decode()["train"]
    assert len(images.unreadable) == 1


def _text(path: Path) -> Path:
    path.write_text("text")
    return path


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            lambda t: {"source": "csv", "path": t},
            'data.source: "csv" is not a data source; allowed: digits, auto, images, files, parquet, arrow, table,',
        ),
        (lambda t: {"source": "images", "path": t / "no"}, '/no" does not exist'),
        (lambda t: {"source": "images", "path": _text(t / "x")}, '/x" is a file; allowed: a folder with one folder of'),
        (
            lambda t: {"source": "images", "path": _folder(t / "x")},
            "no folder with images; allowed: one folder of images",
        ),
        (lambda t: {"source": "parquet", "path": _folder(t / "x")}, '/x" contains no .parquet file'),
        (lambda t: {"source": "parquet", "path": _text(t / "x")}, '/x" is not a Parquet file'),
        (lambda t: {"source": "nowhere.at:all"}, "data.source: there is no module nowhere, neither beside"),
        (lambda t: {"source": "json:all"}, "data.source: json has no all; it"),
    ],
)
def test_a_wrong_source_is_one_sentence(tmp_path: Path, data: Any, sentence: str) -> None:
    with pytest.raises(JobError) as caught:
        opened(**data(tmp_path))
    assert sentence in str(caught.value)


def test_images_of_different_sizes_ask_for_a_size(tmp_path: Path) -> None:
    (tmp_path / "set" / "a").mkdir(parents=True)
    for row in range(2):
        (tmp_path / "set" / "a" / f"{row}.png").write_bytes(png(row, (8 + row, 8)))
    with pytest.raises(LehrError, match=r"differ in size \(8 × 8, 8 × 9\); to resize them, type: data.image_size=32$"):
        opened(source="images", path=tmp_path / "set").decode()
    sized = opened(source="images", path=tmp_path / "set", image_size=[4, 6]).decode()["train"]
    assert sized.pixels.shape == (2, 4, 6, 3)


@pytest.mark.parametrize(
    ("choice", "nbytes", "room", "stream", "words"),
    [
        ("auto", 30, 100, False, "cached, decoded once (within 30% of memory, 100 bytes)"),
        ("auto", 31, 100, True, "streamed, decoded as they are needed (more than 30% of memory, 100 bytes)"),
        ("memory", 31, 100, False, "cached, decoded once (more than 30% of memory, 100 bytes; data.cache=memory asks"),
        ("stream", 30, 100, True, "streamed, decoded as they are needed (within 30% of memory, 100 bytes; data.cache="),
    ],
)
def test_cached_if_it_fits_a_share_of_memory(choice: str, nbytes: int, room: int, stream: bool, words: str) -> None:
    policy = cache_policy(choice, nbytes, room, "memory")
    assert policy.streamed is stream
    assert words in policy.sentence


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 bytes"), (999, "999 bytes"), (115008, "115 kB"), (1.5e9, "1.5 GB"), (2e15, "2e+03 TB")]
)
def test_bytes_in_words(count: float, words: str) -> None:
    assert in_bytes(count) == words


def test_reading_a_part_in_one_go_and_row_by_row_gives_the_same_images(parquet_file: Path) -> None:
    part = opened(source="parquet", path=parquet_file).main.parts[2]
    some = part.read([7, 0, 7])
    assert some["image"].to_pylist() == [part.read()["image"][row].as_py() for row in (7, 0, 7)]
    assert np.array_equal(some["label"].to_numpy(), part.labels()[[7, 0, 7]])


# ── torchvision ─────────────────────────────────────────────────────────────────────────────────────────────────────


def write_mnist(raw: Path, split: str, rows: int) -> None:
    """MNIST's own files, with our images."""
    raw.mkdir(parents=True, exist_ok=True)
    pixels = np.stack([image_of(row, (28, 28), 1) for row in range(rows)])
    header = b"".join(number.to_bytes(4, "big") for number in (0x803, rows, 28, 28))
    (raw / f"{split}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
    header = b"".join(number.to_bytes(4, "big") for number in (0x801, rows))
    (raw / f"{split}-labels-idx1-ubyte").write_bytes(header + bytes(row % 10 for row in range(rows)))


def test_a_torchvision_set_from_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEHR_CACHE", str(tmp_path / "cache"))
    write_mnist(tmp_path / "cache" / "MNIST" / "raw", "train", 40)
    write_mnist(tmp_path / "cache" / "MNIST" / "raw", "t10k", 20)
    found = opened(source="torchvision:MNIST")
    images = found.decode()
    assert rows_of(found.main) == 40
    assert images["train"].classes[:2] == ("0 - zero", "1 - one")
    assert len(images["test"]) == 20  # its own test split
    for row in range(40):
        item = int(found.main.name_of(row).removeprefix("torchvision:MNIST item "))
        assert (images["train"].pixels[row, ..., 0] == image_of(item, (28, 28), 1)).all()
        assert images["train"].labels[row] == item % 10


def test_without_a_network_the_error_says_where_to_put_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setenv("LEHR_CACHE", str(tmp_path / "cache"))
    for name, folder in (("CIFAR10", "cifar-10-batches-py"), ("MNIST", "MNIST/raw")):
        with pytest.raises(JobError) as caught:
            opened(source=f"torchvision:{name}")
        assert f"{name} could not be read or downloaded (" in str(caught.value)
        there = f"into {tmp_path}/cache/{folder}, or set another folder with data.path or LEHR_CACHE"
        assert there in str(caught.value)
    with pytest.raises(JobError, match=r'torchvision\.datasets has no data set "CIFAR11" that is stored in a folder'):
        opened(source="torchvision:CIFAR11")


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("CIFAR10", ("train", "test")),
        ("SVHN", ("train", "test")),
        ("STL10", ("train", "test")),
        ("Food101", ("train", "test")),
        ("Flowers102", ("train", "validation", "test")),
        ("OxfordIIITPet", ("train", "test")),
        ("DTD", ("train", "validation", "test")),
        ("FGVCAircraft", ("train", "validation", "test")),
        ("Country211", ("train", "validation", "test")),
        ("GTSRB", ("train", "test")),
        ("Imagenette", ("train", "validation")),
        ("PCAM", ("train", "validation", "test")),
        ("EuroSAT", ("train",)),
        ("USPS", ("train", "test")),
    ],
)
def test_the_splits_of_torchvision_sets_are_found(name: str, splits: tuple[str, ...]) -> None:
    from lehr.data.sources import torchvision_sets
    from lehr.models.vision import torchvision

    assert tuple(torchvision_sets._splits(getattr(torchvision().datasets, name))) == splits
