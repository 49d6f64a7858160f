"""A path is enough: data are recognised in the forms that libraries write, to the pixel, or refused in one sentence.

The forms are those of datasets 5.2, pandas 3.1, polars 2.1, webdataset 1.0 and NumPy 2.4, written here with pyarrow,
tarfile and NumPy as these libraries write them; `tests/benchmarks/forms.py` writes them with the libraries themselves.
"""

from __future__ import annotations

import functools
import http.server
import io
import json
import pickle
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.support import records, train_here

from lehr.data.load import OpenedSources
from lehr.data.reading import read
from lehr.data.sources import open_source
from lehr.data.sources.base import Source
from lehr.data.streaming import ThreadDecoder
from lehr.errors import JobError, LehrError
from lehr.job import TrainJob, from_dict

ROWS = 12
NAMES = ("ant", "bee", "cat")
PIXELS = np.random.default_rng(5).integers(0, 255, (ROWS, 8, 8), dtype=np.uint8)
LABELS = np.arange(ROWS) % 3
WORDS = [NAMES[label] for label in LABELS]


def png(row: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS[row]).save(file, "PNG")
    return file.getvalue()


FILES = [png(row) for row in range(ROWS)]
STRUCT: pa.DataType = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
IN_STRUCTS = pa.array([{"bytes": file, "path": None} for file in FILES], STRUCT)


def job_of(path: Path | str, **data: Any) -> TrainJob:
    job = from_dict({"kind": "train", "data": {"path": str(path), **data}})
    assert isinstance(job, TrainJob)
    return job


def opened(path: Path | str, kind: Any = "class", **data: Any) -> Source:
    return open_source(job_of(path, **data).data, lambda field, what: JobError(what, field=field), kind)


def refused(path: Path | str, kind: Any = "class", **data: Any) -> str:
    with pytest.raises(JobError) as error:
        opened(path, kind, **data)
    assert "\n" not in str(error.value)
    return str(error.value)


# ── written as libraries write them ─────────────────────────────────────────────────────────────────────────────────


def hugging_face(path: Path, rows: slice = slice(None), label: str = "label") -> Path:
    """As `datasets.Dataset.to_parquet` with Image and ClassLabel."""
    features = {"image": {"_type": "Image"}, label: {"names": list(NAMES), "_type": "ClassLabel"}}
    table = pa.table({"image": IN_STRUCTS[rows], label: pa.array(LABELS[rows])})
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(told), path, row_group_size=5)
    return path


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table({"image": FILES, **columns}), path, row_group_size=5)
    return path


def repository(at: Path) -> Path:
    hugging_face(at / "data/train-00000-of-00002.parquet", slice(0, 5))
    hugging_face(at / "data/train-00001-of-00002.parquet", slice(5, 12))
    hugging_face(at / "data/test-00000-of-00001.parquet", slice(0, 3))
    (at / "README.md").write_text("---\n")
    return at


def saved(at: Path) -> Path:
    """As `DatasetDict.save_to_disk`: Arrow streams, and their order in `state.json`."""
    for split in ("train", "test"):
        (at / split).mkdir()
        features = {"image": {"_type": "Image"}, "label": {"names": list(NAMES), "_type": "ClassLabel"}}
        images = pa.array(
            [{"bytes": file, "path": None} for file in FILES],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        )
        schema = pa.table({"image": images, "label": pa.array(LABELS)}).schema
        schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        names = ["data-00001-of-00002.arrow", "data-00000-of-00002.arrow"] if split == "train" else ["data-0.arrow"]
        for number, name in enumerate(names):
            half = slice(number * 7, number * 7 + 7) if split == "train" else slice(0, 3)
            with pa.ipc.new_stream(str(at / split / name), schema) as writer:
                table = pa.table({"image": images, "label": pa.array(LABELS)}).slice(half.start, half.stop - half.start)
                writer.write_table(table.cast(schema), max_chunksize=4)
        (at / split / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
        (at / split / "dataset_info.json").write_text("{}")
    (at / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    return at


def images(at: Path, name: Callable[[int], str] = lambda row: f"im/{row:03d}.png") -> list[str]:
    names = [name(row) for row in range(ROWS)]
    for row, each in enumerate(names):
        (at / each).parent.mkdir(parents=True, exist_ok=True)
        (at / each).write_bytes(FILES[row])
    return names


def listed(at: Path, file: str, header: str, between: str = ",") -> Path:
    lines = [f"{name}{between}{word}" for name, word in zip(images(at), WORDS, strict=True)]
    (at / file).write_text("\n".join([header.replace(",", between), *lines]))
    return at / file


def json_lines(at: Path) -> Path:
    """As `datasets` reads an image folder: `metadata.jsonl` in the folder of each split."""
    for split in ("train", "test"):
        names = images(at / split, lambda row: f"{row}.png")
        lines = [json.dumps({"file_name": name, "label": word}) for name, word in zip(names, WORDS, strict=True)]
        (at / split / "metadata.jsonl").write_text("\n".join(lines))
    return at


def ids(at: Path) -> Path:
    """A table of ids beside a folder of files, as Kaggle has them, and a table to hand in."""
    images(at, lambda row: f"train/{row:04x}.png")
    (at / "labels.csv").write_text("\n".join(["id,breed", *(f"{row:04x},{word}" for row, word in enumerate(WORDS))]))
    (at / "sample_submission.csv").write_text("id,ant,bee,cat\n0000,1,0,0\n")
    return at


def shards(at: Path, members: Callable[[int], dict[str, bytes]], name: str = "set-{:06d}.tar") -> Path:
    """As `webdataset.ShardWriter` writes: the files of a row next to each other, the key up to the first dot."""
    at.mkdir(exist_ok=True, parents=True)
    for number, rows in enumerate((range(5), range(5, 10), range(10, ROWS))):
        with tarfile.open(at / name.format(number), "w") as tar:
            for row in rows:
                for ending, content in sorted(members(row).items()):
                    info = tarfile.TarInfo(f"{row:06d}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return at


def folders(at: Path, name: Callable[[int], str]) -> Path:
    images(at, name)
    return at


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def pair(at: Path) -> Path:
    np.save(at / "X_train.npy", PIXELS)
    np.save(at / "y_train.npy", LABELS[:, None])
    return at


def pixels_csv(path: Path) -> Path:
    """As Kaggle has MNIST."""
    header = ",".join(["label", *(f"pixel{k}" for k in range(64))])
    rows = [",".join(map(str, [label, *image.ravel()])) for label, image in zip(LABELS, PIXELS, strict=True)]
    path.write_text("\n".join([header, *rows]))
    return path


def text_pixels(path: Path) -> Path:
    """As Kaggle has FER2013."""
    rows = [f"{label},{' '.join(map(str, image.ravel()))}" for label, image in zip(LABELS, PIXELS, strict=True)]
    path.write_text("\n".join(["emotion,pixels", *rows]))
    return path


def feather(path: Path) -> Path:
    """As `polars.DataFrame.write_ipc`: views, in batches."""
    table = pa.table({"image": pa.array(FILES, pa.binary_view()), "label": pa.array(WORDS, pa.string_view())})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    return path


def fields(row: int) -> bytes:
    return json.dumps({"label": WORDS[row], "width": 8}).encode()


LISTS = PIXELS.tolist()
ARRAYS = pa.FixedSizeListArray.from_arrays(pa.FixedSizeListArray.from_arrays(pa.array(PIXELS.ravel()), 8), 8)
NUMBERS = tuple(map(str, range(3)))
FORMS: dict[str, tuple[Callable[[Path], Path | str], str, tuple[str, ...]]] = {
    "a file of datasets": (lambda t: hugging_face(t / "a.parquet"), "Parquet as Hugging Face writes it", NAMES),
    "another column": (lambda t: hugging_face(t / "a.parquet", label="fine"), "Parquet as Hugging Face", NAMES),
    "a repository": (repository, "Parquet as Hugging Face writes it, rows: 12 to train, 3 for test", NAMES),
    "a pattern": (lambda t: repository(t) / "data/*.parquet", "12 to train, 3 for test", NAMES),
    "a pattern of one split": (lambda t: repository(t) / "data/train-*.parquet", "12 rows", NAMES),
    "save_to_disk": (saved, "Arrow as Hugging Face saves it, rows: 12 to train, 3 for test", NAMES),
    "names": (lambda t: parquet(t / "a.parquet", label=WORDS), "Parquet, 12 rows", NAMES),
    "another name": (lambda t: parquet(t / "a.parquet", species=WORDS, id=list(range(12))), "and species (3", NAMES),
    "numbers from 4": (lambda t: parquet(t / "a.parquet", label=LABELS + 4), "3 classes: 4, 5, 6", ("4", "5", "6")),
    "floats with gaps": (lambda t: parquet(t / "a.parquet", label=LABELS + 4.0), "classes: 4, 5, 6", ("4", "5", "6")),
    "a dictionary": (
        lambda t: parquet(t / "a.parquet", label=pa.array(WORDS).dictionary_encode()),
        "3 classes: ant",
        NAMES,
    ),
    "nested lists": (lambda t: parquet_of(t / "a.parquet", pixels=LISTS, label=WORDS), "pixels, 8 × 8, uint8", NAMES),
    "arrays": (lambda t: parquet_of(t / "a.parquet", image=ARRAYS, label=WORDS), "pixels, 8 × 8, uint8", NAMES),
    "flat lists": (
        lambda t: parquet_of(t / "a.parquet", image=[np.ravel(each).tolist() for each in LISTS], label=WORDS),
        "pixels, 8 × 8, uint8",
        NAMES,
    ),
    "Feather": (lambda t: feather(t / "a.feather"), "Arrow, 12 rows, columns image (PNG, 8 × 8) and label", NAMES),
    "CSV": (lambda t: listed(t, "t.csv", "filename,label"), "CSV of files, 12 rows, columns filename", NAMES),
    "CSV in a folder": (lambda t: listed(t, "t.csv", "x_path,kind").parent, "columns x_path (PNG, 8 × 8) and", NAMES),
    "TSV": (lambda t: listed(t, "t.tsv", "path,category", "\t"), "TSV of files", NAMES),
    "metadata.jsonl": (json_lines, "JSON lines of files, rows: 12 to train, 12 for test", NAMES),
    "ids": (ids, "CSV of files, 12 rows, columns id (PNG, 8 × 8) and breed (3 classes", NAMES),
    "CSV of pixels": (lambda t: pixels_csv(t / "train.csv"), "CSV of pixels, 12 rows", NUMBERS),
    "CSV of pixels in a text": (lambda t: text_pixels(t / "fer.csv"), "columns pixels (pixels, 8 × 8", NUMBERS),
    "tar, cls": (
        lambda t: shards(t, lambda row: {"png": FILES[row], "cls": str(LABELS[row]).encode()}),
        "tar shards",
        NUMBERS,
    ),
    "tar, braces": (
        lambda t: shards(t, lambda row: {"png": FILES[row], "txt": WORDS[row].encode()}) / "set-{000000..000002}.tar",
        "columns png (PNG, 8 × 8) and txt (3 classes: ant, bee, cat)",
        NAMES,
    ),
    "tar, json": (
        lambda t: shards(t, lambda row: {"png": FILES[row], "json": fields(row)}),
        "and label (3 classes",
        NAMES,
    ),
    "class folders": (lambda t: folders(t, lambda row: f"{WORDS[row]}/{row}.png"), "class folders of images", NAMES),
    "deeper": (lambda t: folders(t, lambda row: f"{WORDS[row]}/a/{row}.png"), "class folders of images", NAMES),
    "in a folder": (lambda t: folders(t, lambda row: f"set/{WORDS[row]}/{row}.png"), "class folders of images", NAMES),
    "npz of Keras": (
        lambda t: npz(t / "m.npz", x_train=PIXELS, y_train=LABELS, x_test=PIXELS, y_test=LABELS),
        "NumPy arrays, rows: 12 to train, 12 for test",
        NUMBERS,
    ),
    "npz of MedMNIST": (
        lambda t: npz(
            t / "m.npz",
            train_images=PIXELS,
            train_labels=LABELS[:, None],
            val_images=PIXELS,
            val_labels=LABELS[:, None],
        ),
        "12 to train, 12 for validation",
        NUMBERS,
    ),
    "one-hot": (lambda t: npz(t / "m.npz", images=PIXELS, labels=np.eye(3)[LABELS]), "NumPy arrays, 12", NUMBERS),
    "npy": (pair, "NumPy arrays, 12 rows, columns X_train (pixels, 8 × 8, uint8) and y_train", NUMBERS),
}


def parquet_of(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=5)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_recognised_to_the_pixel_and_told_in_one_line(tmp_path: Path, form: str) -> None:
    write, said, classes = FORMS[form]
    path = write(tmp_path)
    source = opened(path)
    assert said in source.notes[0]
    assert "\n" not in source.notes[0]
    assert source.classes == classes
    job = OpenedSources(job_of(path))
    whole = read(source, job.wanted)
    found = {row.tobytes(): label for row, label in zip(whole.pixels[..., 0], whole.labels, strict=True)}
    assert found == {row.tobytes(): label for row, label in zip(PIXELS, LABELS, strict=True)}
    assert np.array_equal(source.labels(), whole.labels)
    # Any part can be read alone, in another process, and any of its rows in any order.
    start = 0
    for part in pickle.loads(pickle.dumps(source.parts)):
        rows = list(range(part.rows))[::-2]
        few = read_rows(part, rows, job.wanted)
        assert np.array_equal(few.pixels, whole.pixels[[start + row for row in rows]])
        assert np.array_equal(few.labels, whole.labels[[start + row for row in rows]])
        assert str(tmp_path) in part.name(0)
        start += part.rows


def read_rows(part: Any, rows: list[int], wanted: Any) -> Any:
    from lehr.data.decode import decode

    return decode(part.read(rows), wanted)


def test_classes_txt_names_numbered_folders(tmp_path: Path) -> None:
    folders(tmp_path / "images", lambda row: f"images/{'val' if row > 5 else 'train'}/{LABELS[row] + 1}/{row}.png")
    (tmp_path / "images/classes.txt").write_text("ant\nbee\ncat\n")
    source = opened(tmp_path / "images")
    assert (source.classes, source.other_splits["validation"].classes) == (NAMES, NAMES)
    assert source.notes[0].startswith("images: class folders of images, rows: 6 to train, 6 for validation")


def test_noisy_tables_beside_class_folders_are_left_out_and_told(tmp_path: Path) -> None:
    """As Imagenette ships them."""
    folders(tmp_path, lambda row: f"{'val' if row > 5 else 'train'}/n0{LABELS[row]}/{row}.png")
    (tmp_path / "noisy.csv").write_text("path,noisy_labels_0\ntrain/n00/0.png,n01\n")
    source = opened(tmp_path)
    assert source.classes == ("n00", "n01", "n02")
    assert any("1 file left out" in note and ".csv" in note for note in source.notes)


@pytest.mark.parametrize(
    ("label", "kind", "task"),
    [
        ([[0, 2]] * ROWS, "classes", "multilabel"),
        ([[0.5, 2.0]] * ROWS, "numbers", "regression"),
        (list(np.arange(ROWS) + 0.5), "numbers", "regression"),
    ],
)
def test_labels_that_are_no_class_say_which_task_they_need(tmp_path: Path, label: Any, kind: str, task: str) -> None:
    path = parquet(tmp_path / "a.parquet", label=label)
    assert f"type task={task}" in refused(path)
    assert opened(path, kind).rows == ROWS


def test_true_and_false_are_classes(tmp_path: Path) -> None:
    source = opened(parquet(tmp_path / "a.parquet", label=[word == "cat" for word in WORDS]))
    assert source.classes == ("false", "true")
    assert source.labels().tolist() == [int(word == "cat") for word in WORDS]


def test_a_split_without_labels_is_left_out_and_told(tmp_path: Path) -> None:
    """Hugging Face writes -1 for test rows of competitions."""
    hugging_face(tmp_path / "train.parquet")
    table = pq.read_table(hugging_face(tmp_path / "test.parquet"))
    pq.write_table(table.set_column(1, "label", pa.array([-1] * ROWS, pa.int64())), tmp_path / "test.parquet")
    source = opened(tmp_path)
    assert not source.other_splits
    assert any("the split test" in note and "has no labels, and is left out" in note for note in source.notes)


def test_files_may_keep_their_classes_in_dictionaries_of_their_own(tmp_path: Path) -> None:
    for name, rows in (("a", slice(0, 6)), ("b", slice(6, 12))):
        words = pa.array(WORDS[rows][::-1]).dictionary_encode()
        pq.write_table(pa.table({"image": FILES[rows], "label": words}), tmp_path / f"{name}.parquet")
    assert opened(tmp_path).labels().tolist() == [*LABELS[:6][::-1], *LABELS[6:][::-1]]


def test_images_of_a_struct_may_lie_beside_the_file(tmp_path: Path) -> None:
    """As `datasets` writes them without embedding: a path, and no bytes."""
    names = images(tmp_path)
    rows = [{"bytes": None, "path": name} for name in names]
    path = parquet_of(tmp_path / "a.parquet", image=rows, label=WORDS)
    assert read(opened(path), OpenedSources(job_of(path)).wanted).unreadable == ()


# ── what is ambiguous, or no such form ──────────────────────────────────────────────────────────────────────────────


def test_what_is_ambiguous_is_one_sentence_with_the_line_to_write(tmp_path: Path) -> None:
    path = parquet_of(tmp_path / "a.parquet", left=FILES, right=FILES, label=WORDS)
    said = refused(path)
    assert "2 columns that may be the images, left, right; type data.columns.image=left" in said
    assert opened(path, columns={"image": "right"}).columns == ("right", "label")
    path = parquet(tmp_path / "b.parquet", colour=WORDS, shape_of=WORDS, material=WORDS)
    said = refused(path)
    assert "3 of them may hold the labels, colour, shape_of, material; type data.columns.label=colour" in said
    assert opened(path, columns={"label": "material"}).classes == NAMES
    assert opened(parquet_of(tmp_path / "c.parquet", image=FILES, mask=FILES, label=WORDS)).columns == (
        "image",
        "label",
    )  # a column that is called image is no question


def test_a_column_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", label=WORDS)
    assert "data.columns.image: " in refused(path, columns={"image": "photo"})
    assert "has no column photo; its columns are image, label" in refused(path, columns={"image": "photo"})
    assert "data.columns.label: " in refused(path, columns={"label": "kind"})
    said = refused(folders(tmp_path / "f", lambda row: f"{WORDS[row]}/{row}.png"), columns={"label": "kind"})
    assert said.startswith("data.columns: ")
    assert "which have no columns; leave data.columns out" in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.zip", "unzip"),
        ("a.tar.gz", "unpack it"),
        ("a.pkl", "a pickle may run any code"),
        ("a.h5", "numpy.savez"),
        ("a.tfrecord", "Parquet or tar shards"),
        ("train-images-idx3-ubyte", "torchvision:MNIST"),
        ("data_batch_1", "torchvision:CIFAR10"),
        ("a.docx", "allowed: class folders of images, Parquet"),
        ("a.png", "is one image; name the folder"),
    ],
)
def test_what_is_no_such_form_is_told_with_the_nearest(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / name).write_bytes(FILES[0] if name.endswith("png") else b"x")
    assert said in refused(tmp_path / "set" / name)
    if not name.endswith("png"):
        assert said in refused(tmp_path / "set")


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "none")
    assert "no file matches" in refused(tmp_path / "none-*.parquet")
    (tmp_path / "empty").mkdir()
    assert "is empty" in refused(tmp_path / "empty")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": PIXELS, "y": LABELS[:5]}, "x has 12 rows, and .*:y has 5"),
        ({"a": PIXELS, "b": LABELS}, r"type data.columns.image=NAME data.columns.label=NAME"),
        ({"images": np.array([None, "a"]), "labels": np.arange(2)}, "cannot be read as NumPy arrays"),
        ({"images": PIXELS[:, 0, 0], "labels": LABELS}, r"has the shape \[12\]; allowed: \[rows, height, width\]"),
        ({"images": np.zeros((2, 3072)), "labels": LABELS[:2]}, "no square grey image"),
    ],
)
def test_arrays_that_are_no_images_with_labels_are_refused(tmp_path: Path, arrays: Any, said: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(JobError, match=said):
        opened(tmp_path / "a.npz")


def test_arrays_are_named_in_columns(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", a=PIXELS, b=LABELS)
    assert opened(path, columns={"image": "a", "label": "b"}).labels().tolist() == LABELS.tolist()


def test_a_compressed_npz_that_is_a_bomb_is_refused(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in (("images", np.zeros((1 << 12, 1 << 12), np.uint8)), ("labels", LABELS)):
            file = io.BytesIO()
            np.save(file, array)
            archive.writestr(f"{name}.npy", file.getvalue())
    source_of = functools.partial(opened, tmp_path / "a.npz")
    if 1100 * (tmp_path / "a.npz").stat().st_size < (1 << 24):
        with pytest.raises(JobError, match="decompression bomb"):
            source_of()


def test_a_packed_folder_is_told_to_be_unpacked(tmp_path: Path) -> None:
    shards(tmp_path, lambda row: {"png": FILES[row]})
    assert "no .cls, .txt or .json; if it is a packed folder, unpack it: tar -xf" in refused(tmp_path)


def test_a_damaged_tar_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no tar at all" * 100)
    assert "a.tar" in refused(tmp_path / "a.tar")
    assert "no tar file that can be read" in refused(tmp_path / "a.tar")


def test_two_endings_of_images_in_a_tar_are_asked_about(tmp_path: Path) -> None:
    shards(tmp_path, lambda row: {"a.png": FILES[row], "b.png": FILES[row], "cls": b"1"})
    assert "type data.columns.image=a.png" in refused(tmp_path)
    assert opened(tmp_path, columns={"image": "b.png"}).columns == ("b.png", "cls")


@pytest.mark.parametrize(
    "name",
    [
        "{row:06d}.input.{ending}",  # endings of several words, as ShardWriter writes them
        "set/22.0/1.{row}.{ending}",  # dots in folders and in names
        "{row} Track 2.0 (Clean Version).{ending}",
        "./{row:06d}.{ending}",
    ],
)
def test_names_in_a_tar_may_have_dots_of_their_own(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for row in range(ROWS):
            for ending, content in (("png", FILES[row]), ("cls", str(LABELS[row]).encode())):
                info = tarfile.TarInfo(name.format(row=row, ending=ending))
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    source = opened(tmp_path / "a.tar")
    assert source.labels().tolist() == LABELS.tolist()
    assert read(source, OpenedSources(job_of(tmp_path / "a.tar")).wanted).unreadable == ()


def test_the_same_key_in_two_shards_is_two_rows(tmp_path: Path) -> None:
    for shard in ("a", "b"):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for ending, content in (("png", FILES[0]), ("cls", b"a" if shard == "a" else b"b")):
                info = tarfile.TarInfo(f"0.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    assert opened(tmp_path).labels().tolist() == [0, 1]


def test_a_split_is_a_folder_and_never_a_word_in_the_name_of_a_file(tmp_path: Path) -> None:
    """ImageNet's training files are called ILSVRC2012_val_… by some."""
    folders(tmp_path, lambda row: f"train/n{LABELS[row]}/ILSVRC2012_val_{row:08d}.png")
    source = opened(tmp_path)
    assert (source.classes, source.rows) == (("n0", "n1", "n2"), ROWS)


@pytest.mark.parametrize("header", ["img,lbl", "images,label_1", "photo,what is it"])
def test_columns_of_any_name_are_found_by_what_they_hold(tmp_path: Path, header: str) -> None:
    assert opened(listed(tmp_path, "t.csv", header)).columns == tuple(header.split(","))


def test_a_table_with_more_folders_in_its_paths_than_there_are_finds_files_by_name(tmp_path: Path) -> None:
    listed(tmp_path, "t.csv", "file,label")
    text = (tmp_path / "t.csv").read_text().replace("im/", "C:\\data\\photos\\")
    (tmp_path / "t.csv").write_text(text)
    source = opened(tmp_path / "t.csv")
    assert "are found by their names in im" in source.notes[1]
    assert read(source, OpenedSources(job_of(tmp_path / "t.csv")).wanted).unreadable == ()


# ── the web ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Served(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/away"):
            self.send_response(302)
            self.send_header("Location", "file:///etc/hostname")
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(Served, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def test_images_are_fetched_and_those_that_are_gone_are_unreadable(tmp_path: Path, server: str) -> None:
    names = [f"{server}/{name}" for name in images(tmp_path)]
    names[3], names[4] = f"{server}/none.png", f"{server}/away.png"
    lines = [f"{name},{word}" for name, word in zip(names, WORDS, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["url,label", *lines]))
    job = OpenedSources(job_of(tmp_path / "t.csv", skip_unreadable=0.5))
    whole = job.decode()["train"]
    assert whole.unreadable == (3, 4)
    assert np.array_equal(whole.pixels[5, ..., 0], PIXELS[5])
    assert job.main.name_of(3) == names[3]


def test_a_server_that_is_away_is_an_error_and_no_unreadable_image(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("lehr.data.sources.web.WAIT_SECONDS", 0)
    (tmp_path / "t.csv").write_text("url,label\nhttp://127.0.0.1:9/a.png,ant\nhttp://127.0.0.1:9/b.png,bee\n")
    source = opened(tmp_path / "t.csv")
    with pytest.raises(LehrError, match=r"http://127.0.0.1:9/a.png cannot be fetched"):
        source.parts[0].read([0])


def test_the_first_name_of_the_label_column_still_works() -> None:
    assert job_of("x.csv", labels="age").data.label_columns == ("age",)
    assert job_of("x.csv", labels=["a", "b"]).data.label_columns == ("a", "b")


# ── training ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_workers_that_stream_tar_shards_see_the_batches_of_one(tmp_path: Path) -> None:
    shards(tmp_path / "set", lambda row: {"png": FILES[row], "cls": str(LABELS[row]).encode()})
    job = from_dict(
        {
            "kind": "train",
            "data": {"path": str(tmp_path / "set"), "cache": "stream", "validation": 0.25},
            "model": {"name": "small_cnn", "width": 8},
            "train": {"epochs": 2, "batch_size": 4, "precision": "fp64"},
        }
    )
    assert isinstance(job, TrainJob)
    one, two = (records(train_here(job, tmp_path / f"run{workers}", workers)) for workers in (1, 2))
    for ours, theirs in zip(one, two, strict=True):
        for name in ours.column_names:
            mine, other = (np.asarray(each[name].to_pylist(), object) for each in (ours, theirs))
            numbers = [(a, b) for a, b in zip(mine, other, strict=True) if isinstance(a, float)]
            assert all(a == pytest.approx(b, abs=1e-9, nan_ok=True) for a, b in numbers), name


def test_what_is_streamed_is_what_is_cached(tmp_path: Path) -> None:
    import torch

    for number, path in enumerate(
        (repository(tmp_path / "a"), saved(made(tmp_path / "b")), pair(made(tmp_path / "c")))
    ):
        job = OpenedSources(job_of(path))
        cached, streamed = job.decode()["train"], job.stream(ThreadDecoder(1))["train"]
        batch = streamed.rows(torch.arange(len(cached))).gather(torch.arange(len(cached)).flip(0))
        assert np.array_equal(batch.inputs.permute(0, 2, 3, 1).numpy()[::-1], cached.pixels), number


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_images_that_are_still_packed_beside_their_table_are_told_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "0.png", "label": "a"}\n{"file_name": "1.png", "label": "b"}\n'
    )
    before = refused(tmp_path)
    assert "none of its files is there" in before
    assert "unzip" not in before
    (tmp_path / "the images.zip").write_bytes(b"")
    unzip = f"unzip '{tmp_path}/the images.zip' -d {tmp_path}"
    assert refused(tmp_path).endswith(f"if its images are in there, unpack it: {unzip}")


def test_a_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lehr.data.sources import listing

    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "0.png")
    walked: list[str] = []
    walk = listing._Walk

    def walking(folder: str) -> Any:
        walked.append(folder)
        return walk(folder)

    monkeypatch.setattr(listing, "_Walk", walking)
    assert opened(tmp_path).classes == ("cat", "dog")
    assert len(walked) == 1
    Image.new("RGB", (4, 4)).save(tmp_path / "dog" / "1.png")
    assert opened(tmp_path).rows == 3  # the next one looks again
