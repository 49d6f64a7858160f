"""What `lehr data show` says of planted faults: duplicates, leaks between splits, doubtful labels, what is missing."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageEnhance
from typer.testing import CliRunner

from lehr.cli.data import app
from lehr.data.audit import Audit, audit
from lehr.data.audit_told import as_plain, audit_page, sentences
from lehr.data.door import LocalHost, open_data
from lehr.data.leaks import leaks
from lehr.data.likeness import likeness, mirrored, near_pairs, same_pairs
from lehr.data.load import OpenedSources, held_out_rows
from lehr.job import TrainJob, from_dict

NAMES = ("flat", "steep", "round")


def photograph(seed: int, side: int = 48) -> Image.Image:
    """Smooth blobs of colour: no two seeds look alike."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def file_of(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def written(folder: Path, **splits: tuple[Any, list[Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, (images, labels) in splits.items():
        pq.write_table(pa.table({"image": pa.array(images, pa.binary()), "label": labels}), folder / f"{name}.parquet")
    return folder


def opened(path: Path, **data: Any) -> OpenedSources:
    job = from_dict({"kind": "train", "data": {"path": str(path), "skip_unreadable": 0.5, **data}})
    assert isinstance(job, TrainJob)
    return OpenedSources(job, to_train=False)


def audited(path: Path, **data: Any) -> tuple[Audit, OpenedSources]:
    sources = opened(path, **data)
    return audit(sources.sources, sources.wanted, held_out=held_out_rows(sources.job, sources)), sources


def told(path: Path, **data: Any) -> list[str]:
    found, sources = audited(path, **data)
    return [sentence for _, sentence in sentences(found, sources.main.classes)]


CLEAN = [file_of(photograph(seed)) for seed in range(40)]
TRAIN = (CLEAN[:30], [NAMES[k % 3] for k in range(30)])


def test_clean_rows_raise_no_alarm(tmp_path: Path) -> None:
    data = written(tmp_path / "set", train=TRAIN, test=(CLEAN[30:], ["flat"] * 10))
    found, sources = audited(data)
    assert found.pairs == []
    assert found.compared == found.looked_at == 40
    assert all("leak" not in what for what, _ in sentences(found, sources.main.classes))


CHANGED = {
    "same pixels": lambda image: file_of(image.convert("RGBA"), "WEBP", lossless=True),
    "JPEG": lambda image: file_of(image, "JPEG", quality=50),
    "smaller": lambda image: file_of(image.resize((32, 32), Image.Resampling.BILINEAR)),
    "brighter": lambda image: file_of(ImageEnhance.Brightness(image).enhance(1.15)),
}


@pytest.mark.parametrize("change", CHANGED)
def test_a_row_in_two_splits_is_found_in_show_and_before_training(tmp_path: Path, change: str) -> None:
    planted = CHANGED[change](photograph(7))
    test = [*CLEAN[30:39], planted]
    data = written(tmp_path / "set", train=TRAIN, test=(test, ["steep"] * 10))
    how = "the pixels" if change == "same pixels" else "nearly the pixels"
    assert f"1 row of 10 for test has {how} of a row of train" in told(data, image_size=48)
    (pair,) = audited(data)[0].pairs
    assert (pair.first, pair.second, pair.exact) == (("train", 7), ("test", 9), change == "same pixels")

    class Told:
        def __init__(self) -> None:
            self.said: list[str] = []

        def say(self, line: str) -> None:
            self.said.append(line)

        def status(self, text: str) -> None: ...

        note_data = note_unreadable = note_fingerprint = status

    listener = Told()
    open_data(opened(data, image_size=48).job, LocalHost(), listener)  # type: ignore[arg-type]
    (leak,) = [line for line in listener.said if line.startswith("leak: ")]
    count = "1 with the same pixels" if change == "same pixels" else "1 nearly the same"
    assert leak.startswith(f"leak: of 10 rows for test, {count} is among those to train on, so ")
    assert leak.endswith(f"to see which: lehr data show {data}")


def test_a_split_by_a_share_can_leak_too(tmp_path: Path) -> None:
    twice: list[bytes | None] = [each for each in CLEAN for _ in range(2)]
    data = written(tmp_path / "set", train=(twice, [NAMES[k % 3] for k in range(80)]))
    found, _ = audited(data)
    assert found.rows == {"train": 65, "validation": 15}
    between = sum(pair.leaks for pair in found.pairs)
    assert 0 < between < len(found.pairs) == 40
    assert any("of 15 for validation" in sentence for sentence in told(data))


def test_the_same_pixels_with_other_labels_are_told(tmp_path: Path) -> None:
    data = written(tmp_path / "set", train=([*CLEAN, CLEAN[3]], ["flat"] * 20 + ["steep"] * 21))
    assert "1 pair of rows has the same pixels and different labels" in told(data)
    data = written(tmp_path / "same", train=([*CLEAN, CLEAN[33]], ["flat"] * 20 + ["steep"] * 21))
    assert not any("different labels" in sentence for sentence in told(data))


def test_images_of_one_colour_are_no_duplicates(tmp_path: Path) -> None:
    blank = file_of(Image.new("RGB", (48, 48), (9, 9, 9)))
    data = written(tmp_path / "set", train=([blank] * 6 + CLEAN[:6], ["flat", "steep"] * 6))
    assert audited(data)[0].pairs == []


def stripes(label: int, seed: int) -> bytes:
    """A class is a direction of stripes."""
    random = np.random.default_rng(seed)
    across, down = np.meshgrid(np.arange(32), np.arange(32))
    angle, phase = np.pi * label / 3 + random.normal(0, 0.05), random.uniform(0, 6)
    waves = np.sin(0.9 * (np.cos(angle) * across + np.sin(angle) * down) + phase)
    noisy = np.clip(127 + 90 * waves + random.normal(0, 12, waves.shape), 0, 255)
    return file_of(Image.fromarray(noisy.astype(np.uint8)))


def test_flipped_labels_are_found_and_sound_ones_are_not_doubted(tmp_path: Path) -> None:
    labels = [k % 3 for k in range(240)]
    images: list[bytes | None] = [stripes(label, seed) for seed, label in enumerate(labels)]
    found, _ = audited(written(tmp_path / "clean", train=(images, [NAMES[k] for k in labels])))
    assert found.doubts == []
    assert found.model_accuracy is not None
    assert found.model_accuracy > 0.98
    flipped = list(range(5, 240, 20))
    for row in flipped:
        labels[row] = (labels[row] + 1) % 3
    found, sources = audited(written(tmp_path / "noisy", train=(images, [NAMES[k] for k in labels])))
    assert {doubt.row for doubt in found.doubts} == set(flipped)
    assert all(doubt.likely != doubt.label for doubt in found.doubts)
    assert any("12 labels may be wrong" in sentence for _, sentence in sentences(found, sources.main.classes))


def test_labels_are_not_doubted_by_a_model_that_guesses(tmp_path: Path) -> None:
    found, sources = audited(written(tmp_path / "set", train=(CLEAN * 3, [NAMES[k % 3] for k in range(120)])))
    assert found.doubts == []
    said = [sentence for what, sentence in sentences(found, sources.main.classes) if what == "note"]
    assert len(said) == 1
    assert said[0].startswith("labels were not judged: ")


def test_missing_unreadable_and_uneven_rows_are_told(tmp_path: Path) -> None:
    images: list[bytes | None] = [*CLEAN[:22], b"no image", None]
    labels = ["flat"] * 22 + ["steep"] * 2
    found, sources = audited(written(tmp_path / "set", train=(images, labels)))
    said = "\n".join(sentence for _, sentence in sentences(found, sources.main.classes))
    assert "2 images of train cannot be read" in said
    assert "row 22 (no image of a known format" in said
    assert "flat has 22 rows and steep has 2; data.sampling=balanced" in said
    facts = found.splits["train"]
    assert (facts.smallest, facts.largest, facts.modes) == ((48, 48), (48, 48), {"in colour": 22})


def test_the_page_and_the_json_hold_what_was_found(tmp_path: Path) -> None:
    data = written(tmp_path / "set", train=TRAIN, test=([CLEAN[2]], ["round"]))
    found, sources = audited(data)
    page = audit_page("set", found, sources.sources, sources.notes, sources.wanted)
    assert "1 row of 1 for test has the pixels of a row of train" in page
    assert page.count("data:image/png;base64") == 1
    assert json.loads(json.dumps(as_plain(found, sources.main, sources.notes)))["rows"] == {
        "train": 24,
        "validation": 6,
        "test": 1,
    }
    ended = CliRunner().invoke(app, ["show", str(data), "--json"])
    assert ended.exit_code == 0
    told_by = json.loads(ended.stdout)
    assert told_by["form"] == "Parquet"
    assert told_by["pairs"][0]["splits"] == ["train", "test"]
    assert not (Path.cwd() / "data.html").exists()


# ── the core ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_is_to_the_last_pixel() -> None:
    random = np.random.default_rng(0)
    train = random.integers(0, 255, (50, 40, 40, 3), dtype=np.uint8)
    rows = train[[4, 9]].copy()
    rows[1, 13, 17, 1] ^= 1  # none of the values that are compared first
    everything = (np.arange(2), np.arange(50))
    assert same_pairs((rows, everything[0]), (train, everything[1])).tolist() == [[0, 4]]


def test_near_rows_are_found_once_and_within_the_time() -> None:
    images = np.stack([np.asarray(photograph(seed)) for seed in (1, 2, 1, 3)])
    pairs, compared = near_pairs(likeness(images))
    assert (pairs.tolist(), compared) == ([[0, 2]], 4)
    assert near_pairs(likeness(images), until=0.0)[1] == 0


def test_a_mirrored_image_is_what_its_likeness_says_mirrored() -> None:
    images = np.stack([np.asarray(photograph(seed)) for seed in range(6)])
    ours, theirs = mirrored(likeness(images)), likeness(images[:, :, ::-1].copy())
    np.testing.assert_array_equal(ours.hashes, theirs.hashes)
    np.testing.assert_allclose(ours.small, theirs.small, atol=1e-6)


def test_a_mirrored_row_in_another_split_is_shown(tmp_path: Path) -> None:
    test = [*CLEAN[30:39], file_of(photograph(7).transpose(Image.Transpose.FLIP_LEFT_RIGHT), "JPEG", quality=80)]
    data = written(tmp_path / "set", train=TRAIN, test=(test, ["steep"] * 10))
    (pair,) = audited(data)[0].pairs
    assert (pair.first, pair.second, pair.exact) == (("train", 7), ("test", 9), False)


def test_two_smooth_images_are_not_one_because_their_hash_is() -> None:
    """A difference hash sees only whether it grows brighter to the right."""
    across, down = np.meshgrid(np.arange(64.0), np.arange(64.0))
    images = [3 * across, 60 + across + 40 * np.sin(down / 6), 20 + 0.5 * across + 1.9 * down]
    pixels = np.stack([np.clip(each, 0, 255).astype(np.uint8)[..., None] for each in images])
    found = likeness(pixels)
    assert len(set(found.hashes.tolist())) == 1
    assert len(near_pairs(found)[0]) == 0


def test_a_share_that_time_allows_is_told() -> None:
    images = np.stack([np.asarray(photograph(seed, 256)) for seed in range(120)])
    rows = np.arange(120)
    (line,) = leaks({"train": (images, rows), "test": (images[::-1].copy(), rows)}, near_seconds=0.0)
    assert line.startswith("leak: of 120 rows for test, 120 with the same pixels are among those to train on")
