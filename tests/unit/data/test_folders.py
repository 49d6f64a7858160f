"""Folders as people have them: splits beside strays, links, odd endings and names. Nothing is taken or left unsaid."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lehr.data.load import OpenedSources
from lehr.data.sources import Source, open_source
from lehr.errors import JobError
from lehr.job import TrainJob, from_dict

from .files import encoded, tree

PETS = tuple(f"{name}/{number}.png" for name in ("cat", "dog") for number in range(3))


def opened(path: Path, *, source: str = "images", to_train: bool = True, **data: Any) -> OpenedSources:
    job = from_dict({"kind": "train", "data": {"source": source, "path": str(path), **data}})
    assert isinstance(job, TrainJob)
    return OpenedSources(job, to_train=to_train)


def refused(path: Path, **data: Any) -> str:
    with pytest.raises(JobError) as caught:
        opened(path, **data)
    return str(caught.value)


def names(source: Source) -> list[str]:
    """The files of a source, relative to it, sorted."""
    return sorted(os.path.relpath(source.name_of(row), source.name) for row in range(source.rows))


def splits_in(root: Path, *folders: str) -> Path:
    return tree(root, *(f"{folder}/{pet}" for folder in folders for pet in PETS))


# ── splits ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("training", "validation", "testing"),
        ("Train", "Valid", "Test"),
        ("TRAIN", "DEV", None),
    ],
)
@pytest.mark.parametrize("stray", ["__MACOSX", "@eaDir", ".ipynb_checkpoints", "readme", "empty/deep"])
def test_folders_without_images_beside_splits_are_told_and_left_out(
    tmp_path: Path, train: str, validation: str, test: str | None, stray: str
) -> None:
    splits_in(tmp_path, *filter(None, (train, validation, test)))
    (tmp_path / stray).mkdir(parents=True)
    (tmp_path / stray / "about.txt").write_text("thumbnails")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    found = opened(tmp_path)
    assert found.main.classes == ("cat", "dog")
    assert {name: source.rows for name, source in found.sources.items()} == {
        "train": 6,
        "validation": 6,
        **({"test": 6} if test else {}),
    }
    assert all(name.startswith(f"{train}/") for name in names(found.main))
    told = " ".join(found.notes)
    assert stray.startswith(".") or stray.split("/")[0] in told or "1 .txt" in told


def test_thumbnails_that_a_system_made_are_no_images_of_a_class(tmp_path: Path) -> None:
    tree(tmp_path, *PETS, "cat/@eaDir/0.png/THUMB_M.jpg", "__MACOSX/cat/0.png", "@eaDir/dog/1.png")
    found = opened(tmp_path)
    assert names(found.main) == sorted(PETS)
    assert found.notes == (
        f"left out of {tmp_path}, as folders that an operating system made: @eaDir, __MACOSX, cat/@eaDir",
    )


def test_a_split_beside_a_folder_with_images_is_refused_with_what_to_type(tmp_path: Path) -> None:
    splits_in(tmp_path, "train", "test", "extra")
    assert (
        f'data.path: "{tmp_path}" has folders that are named as splits, test, train, and others with data, extra; '
        f"allowed: data: {{path: {tmp_path}/train, test: {tmp_path}/test}}; or, if all of them are classes, "
        "data.classes: [extra, test, train]"
    ) in refused(tmp_path)
    assert opened(tmp_path, classes=["extra", "test", "train"]).main.rows == 18
    assert opened(tmp_path / "train", test=str(tmp_path / "test")).extra["test"].rows == 6


def test_two_folders_for_one_split_and_splits_without_training_rows_are_refused(tmp_path: Path) -> None:
    splits_in(tmp_path / "a", "train", "val", "dev")
    assert "has several folders for one split, dev, val; allowed: data: {path: " in refused(tmp_path / "a")
    splits_in(tmp_path / "b", "val", "test")
    assert "has test, val, and no folder train; allowed: data: {path: " in refused(tmp_path / "b")


@pytest.mark.parametrize(
    ("train", "test"), [("train_set", "test_set"), ("seg_train", "seg_test"), ("trainset", "valset")]
)
def test_classes_are_never_the_splits_under_other_names(tmp_path: Path, train: str, test: str) -> None:
    splits_in(tmp_path, train, test)
    said = refused(tmp_path)
    assert "has folders that are named as splits and have the same folders in them" in said
    assert f"data: {{path: {tmp_path}/{train}, " in said
    assert opened(tmp_path, classes=[train, test]).main.classes == (train, test)


def test_splits_without_classes_are_not_the_classes(tmp_path: Path) -> None:
    tree(tmp_path, "train/1.png", "train/2.png", "test/3.png")
    said = refused(tmp_path)
    assert f'"{tmp_path}/test" contains no folder with images; allowed: one folder of images per class' in said
    assert "1 image lies in it directly; if test is no split but a class, name it in data.classes" in said
    assert opened(tmp_path, classes=["train", "test"]).main.rows == 3


def test_an_image_may_be_called_as_a_split_is(tmp_path: Path) -> None:
    tree(tmp_path, *PETS, "cat/train.png", "dog/photo of test tubes.png", "dog/test/1.png")
    assert opened(tmp_path).main.rows == 9


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    tree(tmp_path, "bus/1.png", "car/1.png", "train/1.png")
    assert opened(tmp_path).main.classes == ("bus", "car", "train")
    tree(tmp_path / "stations", "train_station/inside/1.png", "test_tube/glass/1.png")
    assert opened(tmp_path / "stations").main.classes == ("test_tube", "train_station")


# ── one level too high or too low ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("above", ["photos", "a/b/photos"])
@pytest.mark.parametrize("kind", ["train", "recipe", "search", "ensemble"])
def test_a_path_one_level_too_high_is_refused_with_the_path_to_type(tmp_path: Path, kind: str, above: str) -> None:
    import lehr

    tree(tmp_path, *(f"{above}/{name}" for name in PETS))
    data = {"source": "images", "path": str(tmp_path)}
    more: dict[str, Any] = {
        "train": {"data": data},
        "search": {"base": {"data": data}, "space": {"model.width": {"choice": [8, 16]}}},
        "recipe": {"base": {"data": data}},
        "ensemble": {"base": {"data": data}, "method": "independent", "members": 2},
    }
    job = {"kind": kind, "name": "one", "storage": str(tmp_path / "runs"), **more[kind]}
    with pytest.raises(lehr.LehrError, match="has one class") as caught:
        lehr.run(job, debug=True)
    folder = tmp_path / above
    assert f"{folder} holds cat, dog; if these are the classes, type data.path: {folder}" in str(caught.value)


def test_splits_one_level_below_are_named(tmp_path: Path) -> None:
    splits_in(tmp_path / "set", "train", "test")
    assert f"holds test, train; if these are the splits, type data.path: {tmp_path}/set" in refused(tmp_path)


def test_images_directly_in_the_folder_name_the_one_above(tmp_path: Path) -> None:
    tree(tmp_path, *PETS)
    said = refused(tmp_path / "cat")
    assert f"3 images lie in it directly; if cat is a class itself, type data.path: {tmp_path}" in said


def test_one_class_of_its_own_is_refused_for_training_alone(tmp_path: Path) -> None:
    tree(tmp_path, "cat/1.png", "cat/2.png")
    assert f'"{tmp_path}" has one class, cat; allowed: two or more' in refused(tmp_path)
    assert opened(tmp_path, to_train=False).main.rows == 2


# ── links ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_links_that_lead_back_add_no_image(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", *PETS)
    (tmp_path / "else").mkdir()
    shutil.copy(root / "cat/0.png", tmp_path / "else")
    (root / "cat" / "loop").symlink_to(root)
    (root / "dog" / "up").symlink_to(tmp_path)
    (root / "dog" / "self").symlink_to(".")
    (root / "again").symlink_to("cat")
    (root / "dog" / "nowhere").symlink_to("nowhere")
    os.mkfifo(root / "dog" / "pipe")
    found = opened(root)
    assert names(found.main) == sorted(PETS)
    told = f"4 links left out of {root}, to what is listed already or contains it: again, cat/loop, dog/self, dog/up"
    assert told in found.notes
    assert f"2 files left out of {root}: 2 without an ending" in found.notes


def test_links_to_elsewhere_are_followed_once(tmp_path: Path) -> None:
    pool = tree(tmp_path / "pool", "1.png", "2.png", "3.png")
    root = tree(tmp_path / "set", "cat/0.png")
    (root / "dog").symlink_to(pool)
    (root / "fox").symlink_to(pool)
    for name in ("cat/a.png", "cat/b.png"):
        (root / name).symlink_to(tree(tmp_path / "other", "x.png") / "x.png")
    (root / "cat/c.png").symlink_to("0.png")
    os.link(root / "cat/0.png", root / "cat/hard.png")
    found = opened(root)
    assert names(found.main) == ["cat/0.png", "cat/a.png", "cat/hard.png", "dog/1.png", "dog/2.png", "dog/3.png"]
    assert any(
        note.startswith("3 links left out") and note.endswith("cat/b.png, cat/c.png, fox") for note in found.notes
    )


def test_the_same_image_is_never_in_two_splits_by_links(tmp_path: Path) -> None:
    splits_in(tmp_path / "set", "train")
    (tmp_path / "set" / "test").symlink_to("train")
    found = opened(tmp_path / "set")
    assert [*found.sources] == ["train"]
    assert "1 link left out" in " ".join(found.notes)


# ── endings and names ───────────────────────────────────────────────────────────────────────────────────────────────


def test_every_ending_of_a_format_that_is_read_is_taken_and_the_rest_is_counted_by_kind(tmp_path: Path) -> None:
    folder = tmp_path / "cat"
    folder.mkdir()
    taken = ("a.jfif", "b.jpe", "c.JPG", "d.apng", "e.dib", "f.pnm", "g.avif", "h.mpo", "none", "v1.2")
    image = Image.fromarray(np.zeros((4, 4, 3), np.uint8))
    for name in taken:
        (folder / name).write_bytes(encoded(image, "JPEG" if name in ("a.jfif", "b.jpe", "c.JPG") else "PNG"))
    for name in ("x.txt", "y.TXT", "z.heic", "LICENSE"):
        (folder / name).write_bytes(b"\0\0\0\x18ftypheic")
    found = opened(tmp_path, to_train=False)
    assert [os.path.basename(name) for name in names(found.main)] == sorted({*taken} - {"v1.2"})
    (note,) = found.notes
    assert note.startswith(f"5 files left out of {tmp_path}: 2 .txt, ")
    heic = "1 .heic (pip install pillow-heif reads it)"
    assert sorted(note.split(": ")[1].split(", ")) == ["1 .2", heic, "1 without an ending", "2 .txt"]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"])
def test_a_file_without_an_ending_is_taken_if_it_is_an_image(tmp_path: Path, form: str) -> None:
    tree(tmp_path, "dog/1.png")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "7f3a").write_bytes(encoded(np.zeros((4, 4, 3), np.uint8), form))
    assert names(opened(tmp_path).main) == ["cat/7f3a", "dog/1.png"]


def test_images_outside_the_class_folders_are_told(tmp_path: Path) -> None:
    tree(tmp_path, *PETS, "logo.png", "map.png")
    assert opened(tmp_path).notes == (f"2 images directly in {tmp_path}, outside its folders, are left out",)


def test_a_prediction_tells_what_it_leaves_out(tmp_path: Path) -> None:
    tree(tmp_path, "1.png")
    (tmp_path / "list.csv").write_text("x")
    job = from_dict({"kind": "train", "data": {"source": "files", "path": str(tmp_path)}})
    assert isinstance(job, TrainJob)
    assert open_source(job.data, job.error).notes == (f"1 file left out of {tmp_path}: 1 .csv",)
    (tmp_path / "1.png").unlink()
    with pytest.raises(
        JobError, match=r"contains no images; allowed: files ending in \.jpg.*; 1 file left out.*1 \.csv"
    ):
        open_source(job.data, job.error)


@pytest.mark.parametrize("name", [b"cat/\xff.png", b"caf\xe9/1.png"])
@pytest.mark.parametrize("source", ["images", "files", "parquet"])
def test_a_name_that_is_not_utf8_is_named_with_what_renames_it(tmp_path: Path, name: bytes, source: str) -> None:
    tree(tmp_path, *PETS)
    path = os.path.join(os.fsencode(tmp_path), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(os.fsdecode(path)).write_bytes(b"x")
    said = refused(tmp_path, source=source)
    assert r"\xff.png is not UTF-8" in said or r"caf\xe9 is not UTF-8" in said
    assert f"rename it, such as with: convmv -f latin1 -t utf8 -r --notest {tmp_path}" in said
    said.encode()
