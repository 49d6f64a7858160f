"""Masks are read in every form to the same pixels, and what is none is refused in one sentence."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.unit.data.mask_sets import NAMES, drawn, save, write_pairs, write_shapes

from lehr.data.load import OpenedSources
from lehr.data.masks import draw_shape, letterbox_mask, read_palette, values_of
from lehr.data.sources import open_source
from lehr.data.sources.base import Source
from lehr.errors import JobError, LehrError
from lehr.job import DataSection, TrainJob, from_dict
from lehr.tasks.mask_arrays import as_palette_png, colours

IGNORED = 255


def opened(path: Path, **section: Any) -> Source:
    return open_source(
        DataSection.model_validate({"path": str(path), **section}), lambda f, what: JobError(what, field=f), "mask"
    )


def masks_of(source: Source) -> list[np.ndarray]:
    from lehr.data.labels import from_column

    return [mask for part in source.parts for mask in from_column(part.read()["label"])]


def png(mask: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


# ── forms ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def pairs(folder: Path, images: np.ndarray, masks: np.ndarray) -> Path:
    return write_pairs(folder, {"train": len(images)})


def other_names(folder: Path, images: np.ndarray, masks: np.ndarray) -> Path:
    for row, (image, mask) in enumerate(zip(images, masks, strict=True)):
        save(folder / "train" / "img" / f"{row:03}_image.png", image)
        save(folder / "train" / "labels" / f"{row:03}_label.png", mask)
    (folder / "classes.txt").write_text("\n".join(NAMES))
    return folder


def beside(folder: Path, images: np.ndarray, masks: np.ndarray) -> Path:
    for row, (image, mask) in enumerate(zip(images, masks, strict=True)):
        save(folder / f"{row:03}.png", image)
        save(folder / f"{row:03}_mask.png", mask)
    (folder / "classes.txt").write_text("\n".join(NAMES))
    return folder


def in_colours(folder: Path, images: np.ndarray, masks: np.ndarray) -> Path:
    table = np.array(colours(11), np.uint8)
    for row, (image, mask) in enumerate(zip(images, masks, strict=True)):
        save(folder / "images" / f"{row:03}.png", image)
        save(folder / "masks" / f"{row:03}.png", table[mask])
    lines = [",".join(map(str, (name, *colour))) for name, colour in zip(NAMES, table.tolist(), strict=True)]
    (folder / "class_dict.csv").write_text("\n".join(["name,r,g,b", *lines]))
    return folder


def pascal(folder: Path, images: np.ndarray, masks: np.ndarray) -> Path:
    for row, (image, mask) in enumerate(zip(images, masks, strict=True)):
        save(folder / "JPEGImages" / f"{row:03}.png", image)
        save(folder / "JPEGImages" / f"{row:03}_without.png", image)
        path = folder / "SegmentationClass" / f"{row:03}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(as_palette_png(mask))
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(f"{row:03}" for row in range(len(images))))
    (folder / "classes.txt").write_text("\n".join(NAMES))
    return folder


def table(folder: Path, images: np.ndarray, masks: np.ndarray) -> Path:
    other_names(folder, images, masks)
    rows = [f"train/img/{row:03}_image.png,train/labels/{row:03}_label.png" for row in range(len(images))]
    (folder / "list.csv").write_text("\n".join(["file,mask", *rows]))
    return folder / "list.csv"


def parquet(folder: Path, images: np.ndarray, masks: np.ndarray) -> Path:
    folder.mkdir()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {
        name: pa.array([{"bytes": png(each), "path": None} for each in found], kind)
        for name, found in (("image", images), ("label", masks))
    }
    pq.write_table(pa.table(columns), folder / "train.parquet", row_group_size=4)
    return folder


def lists_in_parquet(folder: Path, images: np.ndarray, masks: np.ndarray) -> Path:
    folder.mkdir()
    columns = {"image": pa.array([png(each) for each in images]), "mask": pa.array(masks.tolist())}
    pq.write_table(pa.table(columns), folder / "set.parquet")
    return folder / "set.parquet"


FORMS: list[Callable[[Path, np.ndarray, np.ndarray], Path]] = [
    *(pairs, other_names, beside, in_colours, pascal, table, parquet, lists_in_parquet),
]


@pytest.mark.parametrize("write", FORMS, ids=[each.__name__ for each in FORMS])
def test_every_form_gives_the_same_pixels(write: Callable[..., Path], tmp_path: Path) -> None:
    images, masks = (each[:6] for each in drawn("train"))
    path = write(tmp_path / "set", images, masks)
    source = opened(path, **({"classes": list(NAMES)} if write in (table, parquet, lists_in_parquet) else {}))
    assert source.classes == NAMES
    assert source.rows == 6
    assert all(np.array_equal(found, mask) for found, mask in zip(masks_of(source), masks, strict=True))
    assert any("6 rows" in note or "masks" in note or "mask" in note for note in source.notes), source.notes


def test_polygons_and_run_lengths_of_one_shape_are_the_same_pixels(tmp_path: Path) -> None:
    wanted = np.zeros((8, 10), bool)
    wanted[2:6, 3:7] = True
    counts = [26, 4, 4, 4, 4, 4, 4, 4, 26]
    assert np.array_equal(draw_shape({"size": [8, 10], "counts": counts}, (8, 10)), wanted)
    assert np.array_equal(draw_shape({"size": [8, 10], "counts": compressed(wanted)}, (8, 10)), wanted)
    polygon = [[3, 2, 7, 2, 7, 6, 3, 6]]
    assert np.array_equal(draw_shape(polygon, (8, 10)), wanted)
    write_shapes(tmp_path / "instances_train.json", [{"size": [8, 10], "counts": counts}])
    source = opened(tmp_path)
    assert source.classes == ("background", "cell")
    assert np.array_equal(masks_of(source)[0], wanted.astype(np.uint8))


def compressed(mask: np.ndarray) -> str:
    """As COCO's tools write run lengths (`rleToString` of its maskApi.c), by another way than they are read."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [2]])))
    counts, letters = np.diff(np.concatenate([[0], edges])).tolist(), ""
    for number, count in enumerate(counts):
        value, more = count - counts[number - 2] if number > 2 else count, True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            letters += chr(48 + bits + 32 * more)
    return letters


def test_compressed_run_lengths_are_the_pixels_that_they_were_made_of() -> None:
    random = np.random.default_rng(0)
    for _ in range(40):
        height, width = random.integers(1, 70, 2).tolist()
        mask = (random.random((height, width)) < random.random()).astype(np.uint8)
        mask = np.repeat(np.repeat(mask, 3, 0), 5, 1) if random.random() < 0.5 else mask
        shape = {"size": list(mask.shape), "counts": compressed(mask)}
        assert np.array_equal(draw_shape(shape, mask.shape), mask.astype(bool))


def test_small_things_stay_visible_on_large_ones(tmp_path: Path) -> None:
    write_shapes(tmp_path / "instances_train.json", [[[2, 2, 4, 2, 4, 4, 2, 4]], [[0, 0, 9, 0, 9, 7, 0, 7]]])
    assert set(np.unique(masks_of(opened(tmp_path))[0])) <= {0, 1}


# ── what values mean ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("values", "names", "found"),
    [
        ([0, 255], ("background", "object"), [0, 1]),
        ([0, 1], ("background", "object"), [0, 1]),
        ([0, 1, 2, 255], ("0", "1", "2"), [0, 1, 2, IGNORED]),
        ([1, 3], ("0", "1", "2", "3"), [1, 3]),
    ],
)
def test_values_that_nobody_named_are_classes(
    values: list[int], names: tuple[str, ...], found: list[int], tmp_path: Path
) -> None:
    save(tmp_path / "images" / "a.png", np.zeros((2, len(values)), np.uint8))
    save(tmp_path / "masks" / "a.png", np.array([values, values], np.uint8))
    source = opened(tmp_path)
    assert source.classes == names
    assert masks_of(source)[0][0].tolist() == found


def test_the_job_names_classes_and_leaves_some_out(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", np.zeros((1, 3), np.uint8))
    save(tmp_path / "masks" / "a.png", np.array([[0, 1, 2]], np.uint8))
    assert opened(tmp_path, classes=["sky", "sea", "land"]).classes == ("sky", "sea", "land")
    (tmp_path / "classes.txt").write_text("sky\nsea\nland\n")
    chosen = opened(tmp_path).select_classes(("land", "sky"))
    assert masks_of(chosen)[0].tolist() == [[1, IGNORED, 0]]


def test_cityscapes_masks_are_its_nineteen_classes(tmp_path: Path) -> None:
    for split in ("train", "val"):
        name = f"{split}/bonn/bonn_000001_000019"
        save(tmp_path / "leftImg8bit" / f"{name}_leftImg8bit.png", np.zeros((1, 4, 3), np.uint8))
        save(tmp_path / "gtFine" / f"{name}_gtFine_labelIds.png", np.array([[7, 26, 0, 3]], np.uint8))
        save(tmp_path / "gtFine" / f"{name}_gtFine_color.png", np.zeros((1, 4, 3), np.uint8))
        save(tmp_path / "gtFine" / f"{name}_gtFine_instanceIds.png", np.array([[7, 26, 0, 3]], np.uint8))
    source = opened(tmp_path)
    assert len(source.classes) == 19
    assert list(source.other_splits) == ["validation"]
    assert masks_of(source)[0].tolist() == [[0, source.classes.index("car"), IGNORED, IGNORED]]


def test_palettes_of_other_tools_are_read() -> None:
    cvat = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nsea lion:10,20,30::\n"
    for text in (cvat, "0 0 0 background\n10 20 30 sea lion", "name,r,g,b\nbackground,0,0,0\nsea lion,10,20,30"):
        names, palette = read_palette(text)
        assert names == ("background", "sea lion")
        assert palette is not None
        assert palette[10, 20, 30] == 1


def test_colours_count_where_they_are_named_whatever_their_numbers_are(tmp_path: Path) -> None:
    # CVAT writes PNG files with a palette of their own order beside labelmap.txt.
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([9, 9, 9, 0, 0, 0, 224, 224, 192])
    assert values_of(image, read_palette("background:0,0,0::\ncell:9,9,9::")[1]).tolist() == [[1, 0, IGNORED]]
    assert values_of(image, read_palette("background:0,0,0::\ncell:7,7,7::")[1]).tolist() == [[0, 1, 2]]


# ── malformed ───────────────────────────────────────────────────────────────────────────────────────────────────────

GREY = np.zeros((4, 6), np.uint8)


@pytest.mark.parametrize(
    ("mask", "names", "said"),
    [
        (np.zeros((4, 5), np.uint8), "a\nb", r"masks/a.png has 5 × 4 pixels, and its image 6 × 4; allowed: a pixel"),
        (np.full((4, 6), 7, np.uint8), "a\nb", r"masks/a.png has the value 7; allowed: 0 to 1, one for each of its 2"),
        (np.dstack([GREY, GREY + 9, GREY]), "", r"has colours, such as \(0, 9, 0\), and nothing says their classes"),
        (np.dstack([GREY, GREY + 9, GREY]), "a,0,0,0\nb,1,1,1", r"has the colour \(0, 9, 0\), which is none of the 3"),
        (np.full((4, 6), 26001, np.uint16), "a\nb", r"has values from 26001 to 26001, as masks of single things"),
        (np.full((4, 6), 255, np.uint8), "", r"a.png"),
        (b"no image", "a\nb", r"the mask .*a.png cannot be read: no image of a known format"),
        (b"", "a\nb", r"the mask .*a.png is missing or empty"),
        (GREY, "a\na", r"the class a is named twice"),
        (GREY, "a,0,0,0\nb,300,0,0", r'line 2 is "b,300,0,0"; allowed: name,r,g,b'),
    ],
)
def test_a_malformed_mask_is_one_sentence(mask: Any, names: str, said: str, tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", GREY)
    if isinstance(mask, bytes):
        (tmp_path / "masks").mkdir()
        (tmp_path / "masks" / "a.png").write_bytes(mask)
    else:
        save(tmp_path / "masks" / "a.png", mask)
    if names:
        (tmp_path / ("class_dict.csv" if "," in names else "classes.txt")).write_text(names)
    if isinstance(mask, np.ndarray) and (mask == 255).all():  # not wrong: it is all object
        assert opened(tmp_path).classes == ("background", "object")
        return
    with pytest.raises((JobError, LehrError), match=said) as caught:
        masks_of(opened(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (
            {"size": [9, 9], "counts": [80]},
            r"the size \[9, 9\], and its image is 8 high and 10 wide",
        ),
        ({"size": [8, 10], "counts": [70]}, r"has run lengths of 70 pixels in all, and its image has 80"),
        ({"size": [8, 10], "counts": "\x01"}, r"has compressed run lengths that are cut off or damaged"),
        ({"size": [8, 10], "counts": [-1, 81]}, r"run lengths that are no whole numbers from 0"),
        ([[1, 1, 2, 2]], r"annotation of a.png has a polygon of 2 points; allowed: three or more"),
        ([[1, 1, 2, 2, 3]], r"has a polygon that is no list of x, y, x, y"),
        ([[1, 1, 2, float("nan"), 3, 3]], r"has a polygon with a number that is not finite"),
        ("everything", r"has no segmentation; allowed: polygons"),
    ],
)
def test_a_malformed_segmentation_is_one_sentence(shape: Any, said: str, tmp_path: Path) -> None:
    write_shapes(tmp_path / "instances_train.json", [shape])
    with pytest.raises((JobError, LehrError), match=said) as caught:
        masks_of(opened(tmp_path))
    assert "\n" not in str(caught.value)


def test_images_without_masks_are_left_out_and_told(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        save(tmp_path / "images" / f"{name}.png", GREY)
    save(tmp_path / "masks" / "a.png", np.eye(4, 6, dtype=np.uint8))
    save(tmp_path / "masks" / "z.png", np.eye(4, 6, dtype=np.uint8))
    source = opened(tmp_path)
    assert source.rows == 1
    assert any("2 of 3 images have no mask and are left out: images/b.png, images/c.png" in n for n in source.notes)
    assert any("1 masks have no image and are left out: masks/z.png" in note for note in source.notes)
    (tmp_path / "masks" / "a.png").unlink()
    with pytest.raises(JobError, match=r"no mask has the name of an image, such as masks/z.png and images/a.png"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (
            {"source": "digits"},
            r"its rows have no masks, which segmentation learns; allowed: folders",
        ),
        ({"group": "folder"}, r"its masks are files, which data.group says nothing about; leave it out"),
        ({"columns": {"label": "x"}}, r"its masks are files, which data.columns says nothing about; leave it out"),
    ],
)
def test_what_masks_cannot_have_is_refused(section: dict[str, Any], said: str, tmp_path: Path) -> None:
    write_pairs(tmp_path / "set", {"train": 2})
    where = {} if section.get("source") == "digits" else {"path": str(tmp_path / "set")}
    with pytest.raises(JobError, match=said):
        open_source(DataSection.model_validate({**where, **section}), lambda f, what: JobError(what, field=f), "mask")


# ── into the letterbox ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_letterbox_takes_nearest_pixels_and_leaves_the_grey_out() -> None:
    mask = np.arange(8, dtype=np.uint8).reshape(2, 4)
    assert letterbox_mask(mask, (4, 4))[:2].tolist() == mask.tolist()
    assert (letterbox_mask(mask, (4, 4))[2:] == IGNORED).all()
    assert letterbox_mask(mask, (8, 8))[:4].tolist() == np.repeat(np.repeat(mask, 2, 0), 2, 1).tolist()


def test_masks_lie_where_their_images_do(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "set", {"train": 5}, wide=96)
    job = from_dict({"kind": "train", "data": {"path": str(path), "image_size": 48}, "task": "segmentation"})
    assert isinstance(job, TrainJob)
    images = OpenedSources(job).decode()["train"]
    assert images.labels.shape == (5, 48, 48)
    assert (images.pixels[:, 32:] == 114).all()
    assert (images.labels[:, 32:] == IGNORED).all()
    bright, inked = images.pixels[:, :32, :, 0] > 90, (images.labels[:, :32] > 0) & (images.labels[:, :32] < 255)
    assert (bright & inked).sum() / inked.sum() > 0.7


def test_a_mask_in_any_mode_of_a_file_has_its_values() -> None:
    values = np.array([[0, 1], [1, 0]], np.uint8)
    for mode in ("L", "1", "P", "I", "LA", "RGB"):
        image = Image.fromarray(values * 255).convert("1") if mode == "1" else Image.fromarray(values)
        if mode == "P":
            image = Image.open(io.BytesIO(as_palette_png(values)))
        elif mode != "1":
            image = image.convert(mode)
        assert values_of(image).tolist() == values.tolist(), mode
