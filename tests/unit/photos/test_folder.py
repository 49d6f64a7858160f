"""What a folder of photographs holds is understood, or one sentence says which layout is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lehr.errors import JobError, LehrError
from lehr.job import DataSection
from lehr.photos import Photographs, look_at


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def photo(path: str, width: int = 20, height: int = 10) -> None:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path)).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG" if file.suffix in (".png", "") else "JPEG")


def photos(*folders: str, count: int = 3) -> None:
    for folder in folders:
        for number in range(count):
            photo(f"{folder}/{number}.jpg")


def broken(*files: str) -> None:
    for file in files:
        Path(file).parent.mkdir(parents=True)
        Path(file).touch()


def look(folder: str = "photos") -> Photographs:
    return look_at(DataSection(source="images", path=folder))


def test_classes_counts_and_sizes_are_told() -> None:
    photos("photos/cat")
    photo("photos/my dog (old)/big.jpg", 200, 100)
    photo("photos/my dog (old)/small.png", 4, 5)
    found = look()
    assert found.counts == {"cat": 3, "my dog (old)": 2}
    assert found.told[:2] == [
        "photos: 5 images of 2 classes: cat 3, my dog (old) 2",
        "Sizes: 4 × 5 to 200 × 100 pixels; all become the size that the network takes",
    ]


def test_names_of_any_script_are_classes() -> None:
    photos("fotos/größe", "fotos/猫", "fotos/ñ' \" $x")
    assert look("fotos").counts == {"größe": 3, "猫": 3, "ñ' \" $x": 3}


def test_splits_of_its_own_are_told_and_counted_together() -> None:
    photos("photos/train/cat", "photos/train/dog", count=4)
    photos("photos/val/cat", "photos/val/dog", count=2)
    found = look()
    assert found.rows == {"train": 8, "validation": 4}
    assert found.counts == {"cat": 6, "dog": 6}
    assert "Splits of its own: train 8, validation 4" in found.told


def test_what_systems_and_notebooks_leave_is_no_class() -> None:
    photos("photos/cat", "photos/dog", "photos/.ipynb_checkpoints", "photos/__MACOSX/cat")
    Path("photos/.DS_Store").write_bytes(b"x")
    Path("photos/cat/.DS_Store").write_bytes(b"x")
    assert look().counts == {"cat": 3, "dog": 3}


@pytest.mark.parametrize("above", ["photos/photos", "photos/a/b c/d"])
def test_classes_further_down_are_found(above: str) -> None:
    photos(f"{above}/cat", f"{above}/dog")
    found = look()
    assert found.folder == above
    assert f"The classes were found further down, in {above}" in found.told


def test_folders_inside_of_a_class_belong_to_it() -> None:
    photos("photos/cat/young/first", "photos/cat/old", "photos/dog")
    assert look().counts == {"cat": 6, "dog": 3}


def test_photographs_that_cannot_be_read_are_named_and_the_job_skips_them() -> None:
    photos("photos/cat", "photos/dog", count=5)
    Path("photos/cat/0.jpg").write_bytes(b"\xff\xd8\xff broken")
    Path("photos/dog/1.jpg").write_bytes(b"")
    found = look()
    [told] = [line for line in found.told if "cannot be read" in line]
    assert told.startswith("2 images cannot be read and will be skipped: ")
    assert "photos/cat/0.jpg" in told
    assert 0.2 < found.skipped < 0.3


def test_what_is_left_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lehr.data.sources.images._reads_heif", lambda: False)
    photos("photos/cat", "photos/dog")
    Path("photos/cat/IMG_1.HEIC").write_bytes(b"x")
    photo("photos/loose.jpg")
    Path("photos/empty").mkdir()
    told = "\n".join(look().told)
    assert "1 file left out of photos: 1 .heic (pip install pillow-heif reads it)" in told
    assert "1 image directly in photos, outside its folders, is left out" in told
    assert "1 folder in photos has no images and is ignored: empty" in told


def test_a_class_of_one_image_is_told() -> None:
    photos("photos/cat", "photos/dog")
    photos("photos/rare", count=1)
    assert "rare has one image, which is trained on and never measured; more would help" in look().told


LAYOUT = "make one folder for each class, such as photos/cat/1.jpg and photos/dog/7.jpg"
REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "there is no such folder": (lambda: None, f"photos does not exist; {LAYOUT}"),
    "no image": (lambda: Path("photos").mkdir(), f"photos has no image that can be read in it .*; {LAYOUT}"),
    "loose images": (lambda: photos("photos"), f"photos has 3 images directly in it and no folder .*; {LAYOUT}"),
    "one class": (lambda: photos("photos/cat"), f"photos has one class, cat, and .*; {LAYOUT}"),
    "a zip": (lambda: Path("photos").write_bytes(b""), "photos is a file; name the folder that has a folder"),
    "splits without training": (lambda: photos("photos/val/cat", "photos/test/cat"), "no folder train"),
    "all broken": (
        lambda: broken("photos/a/1.jpg", "photos/b/1.jpg"),
        r"photos: 2 of 2 images cannot be read, such as .*; remove them, or save them again as JPEG",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_folder_of_classes_is_refused_with_the_layout_to_make(what: str) -> None:
    make, sentence = REFUSED[what]
    make()
    with pytest.raises(LehrError, match=sentence) as refused:
        look()
    assert refused.value.exit_code == 2
    assert "\n" not in str(refused.value)


def test_a_class_in_place_of_all_says_which_folder_holds_them() -> None:
    photos("photos/cat", "photos/dog")
    with pytest.raises(JobError, match=r"photos/cat has 3 images directly in it .*, or, if .* classes, name photos$"):
        look("photos/cat")


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("my photos.zip", "unzip 'my photos.zip' -d 'my photos'"),
        ("p.tar.gz", "mkdir p && tar -xf p.tar.gz -C p"),
        ("p.tgz", "mkdir p && tar -xf p.tgz -C p"),
    ],
)
def test_an_archive_is_refused_with_what_unpacks_it(name: str, typed: str) -> None:
    Path(name).write_bytes(b"")
    with pytest.raises(JobError, match="is an archive; unpack it first: ") as refused:
        look(name)
    assert str(refused.value).endswith(typed)


def test_a_folder_of_heic_alone_says_what_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lehr.data.sources.images._reads_heif", lambda: False)
    for name in ("cat/1", "dog/2"):
        Path(f"photos/{name}.heic").parent.mkdir(parents=True)
        Path(f"photos/{name}.heic").write_bytes(b"x")
    with pytest.raises(JobError, match=r"2 files left out of photos: 2 .heic \(pip install pillow-heif reads it\)"):
        look()


def test_a_heic_image_under_another_name_says_what_it_is() -> None:
    photos("photos/cat", "photos/dog")
    Path("photos/cat/IMG_2.jpg").write_bytes(b"\0\0\0\x20ftypheic" + bytes(100))
    [told] = [line for line in look().told if "cannot be read" in line]
    assert told.endswith("IMG_2.jpg (a HEIC image; what reads it: pip install pillow-heif)")


@pytest.mark.skipif(sys.platform != "linux", reason="chmod means less elsewhere")
def test_escapes_in_names_are_shown_and_not_obeyed() -> None:
    photos("photos/\x1b[31mred", "photos/dog")
    assert not any("\x1b" in line for line in look().told)
