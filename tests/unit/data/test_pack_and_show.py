"""`lehr data`: packed rows equal the rows of the source, and the sample grid shows them with their counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lehr.cli.data import app
from lehr.data import pack as packing
from lehr.data.load import OpenedSources
from lehr.errors import LehrError
from lehr.job import from_dict

from .conftest import image_of, png


def lehr_data(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def opened(source: str, path: Path) -> OpenedSources:
    job = from_dict({"kind": "train", "data": {"source": source, "path": str(path)}})
    return OpenedSources(job, to_train=False)  # type: ignore[arg-type]


def test_packed_class_folders_have_the_same_rows(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "GROUP_ROWS", 7)
    monkeypatch.setattr(packing, "FILE_BYTES", 2000)
    words = lehr_data("pack", class_folders, tmp_path / "packed")
    files = sorted((tmp_path / "packed").iterdir())
    assert words == f"30 images in {len(files)} files: {tmp_path}/packed\n"
    assert len(files) > 1
    before, after = opened("images", class_folders).decode()["train"], opened("parquet", tmp_path / "packed")
    assert [part.rows for part in after.main.parts] == [7, 7, 7, 7, 2]
    assert np.array_equal(before.pixels, after.decode()["train"].pixels)
    assert np.array_equal(before.labels, after.decode()["train"].labels)
    assert before.classes == after.main.classes


def test_other_splits_and_class_names_with_commas_are_packed_too(tmp_path: Path) -> None:
    for split, rows in (("train", range(6)), ("test", range(6, 8))):
        for row in rows:
            folder = tmp_path / "set" / split / ("cat, grey" if row % 2 else "dog")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{row}.png").write_bytes(png(row))
    assert lehr_data("pack", tmp_path / "set", tmp_path / "packed").startswith("6 images, 2 for test in 2 files: ")
    images = opened("parquet", tmp_path / "packed").decode()
    assert {name: (len(rows), rows.classes) for name, rows in images.items()} == {
        "train": (6, ("cat, grey", "dog")),
        "test": (2, ("cat, grey", "dog")),
    }


def test_raw_pixels_are_packed_without_loss(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"image": [image_of(row).tobytes() for row in range(5)], "label": [0] * 5})
    pq.write_table(table.replace_schema_metadata({"classes": "a", "shape": "8,8,3"}), tmp_path / "raw.parquet")
    lehr_data("pack", tmp_path / "raw.parquet", tmp_path / "packed")
    images = opened("parquet", tmp_path / "packed").decode()["train"]
    assert all((images.pixels[row] == image_of(row)).all() for row in range(5))


def test_packing_into_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "thesis.txt").write_text("years of work")
    with pytest.raises(LehrError, match="is not empty; allowed: an empty folder, or one that does not exist yet"):
        lehr_data("pack", "digits", tmp_path / "there")


def test_the_sample_grid_shows_samples_unchanged_and_augmented(class_folders: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    flipped = "data.augment=[{name: flip, probability: 1.0}]"
    words = lehr_data("show", class_folders, flipped, "-o", sheet, "--samples", 1, "--epochs", 1)
    lines = [line.split() for line in words.splitlines()]
    assert [line for line in lines if line[-1] == "10"] == [["cat", "10"], ["dog", "10"], ["élan", "10"]]
    assert ["all", "30"] in lines
    assert "empty" in words
    pixels = np.asarray(Image.open(sheet))
    rows = opened("images", class_folders)
    first = rows.decode()["train"].pixels[int(np.flatnonzero(rows.main.labels() == 0)[0])].repeat(8, 0).repeat(8, 1)
    assert contains(pixels, first)
    assert contains(pixels, first[:, ::-1])


def contains(picture: np.ndarray, tile: np.ndarray) -> bool:
    """Whether the picture contains the tile."""
    corners = np.argwhere((picture == tile[0, 0]).all(axis=2))
    height, width = tile.shape[:2]
    return any(np.array_equal(picture[y : y + height, x : x + width], tile) for y, x in corners)


def test_data_and_augmentations_may_come_from_a_job_file(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("kind: train\ndata: {source: digits, augment: [shift, mixup]}\n")
    assert "1,797" in lehr_data("show", tmp_path / "job.yaml", "-o", tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size[0] > 500
