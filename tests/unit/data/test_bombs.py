"""What is no image, or would take memory without end, is unreadable, named and counted; no other program sees it."""

from __future__ import annotations

import io
import os
import random
import struct
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lehr.cli.data import job_of
from lehr.data.decode import FORMATS, UnreadableImage, decode, decode_image
from lehr.data.load import OpenedSources
from lehr.data.pixels import PixelFormat
from lehr.data.reading import read
from lehr.data.sources import Source, open_source
from lehr.data.sources import parquet as parquet_source
from lehr.errors import JobError, LehrError
from lehr.runs import bounded, tables
from lehr.runs.bounded import TooLarge, read_row_groups

from .conftest import image_of

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *extra: bytes) -> bytes:
    """A grey PNG that has as many pixels as it says."""
    pack, row = zlib.compressobj(9), bytes(width + 1)
    pixels = b"".join(pack.compress(row) for _ in range(height)) + pack.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def encoded(form: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image_of(3)).save(file, form, **options)
    return file.getvalue()


def opened(path: Path) -> Source:
    job = job_of(str(path), [])
    return open_source(job.data, job.error)


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called `gs` on the path; the file that it leaves when it is called."""
    from PIL import EpsImagePlugin

    called = tmp_path / "called"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gs").write_text(f"#!/bin/sh\ntouch {called}\n")
    (tmp_path / "bin/gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return called


@pytest.mark.parametrize("name", ["0.png", "0.jpg"])
def test_no_image_reaches_ghostscript(ghostscript: Path, tmp_path: Path, name: str) -> None:
    for label in ("a", "b"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        (tmp_path / "photos" / label / name).write_bytes(EPS)
        (tmp_path / "photos" / label / "1.png").write_bytes(encoded("PNG"))
    sources = OpenedSources(job_of(str(tmp_path / "photos"), []))
    with pytest.raises(LehrError, match=rf"2 of 4 images are unreadable.*{name} \(no image of a known format: "):
        read(sources.main, PixelFormat((8, 8)), 0.0)
    assert not ghostscript.exists()
    with pytest.raises(OSError, match=r"EPS|cannot|Ghostscript|gs"):  # the program would have been called
        Image.open(io.BytesIO(EPS)).load()
    assert ghostscript.exists()


@pytest.mark.parametrize("form", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP", "AVIF", "MPO"])
def test_the_usual_formats_are_read(form: str) -> None:
    if form not in (*FORMATS, "MPO"):
        pytest.skip(f"this Pillow has no {form}")
    assert decode_image(encoded(form), PixelFormat(channels=3)).shape == (8, 8, 3)


def test_an_image_of_more_pixels_than_are_allowed_is_unreadable_and_says_how_to_allow_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bomb, photograph = png(13_300, 13_300), png(11_648, 8_736)
    table = pa.table({"image": pa.array([bomb, encoded("PNG")], pa.large_binary()), "label": [0, 1]})
    began = time.monotonic()
    decoded = decode(table, PixelFormat((8, 8)))
    assert time.monotonic() - began < 1
    said = "it has 13,300 × 13,300 pixels, a decompression bomb or a very large image; allowed: 120,000,000, or what "
    assert decoded.unreadable == ((0, f"{said}LEHR_MOST_PIXELS is set to"),)
    assert decode_image(photograph, PixelFormat((8, 8), 1)).shape == (8, 8, 1)
    monkeypatch.setenv("LEHR_MOST_PIXELS", "1000")
    with pytest.raises(UnreadableImage, match="allowed: 1,000"):
        decode_image(png(32, 32))
    with pytest.raises(UnreadableImage, match="more than 2,000 pixels"):  # Pillow's own limit
        decode_image(png(100, 100))
    monkeypatch.setenv("LEHR_MOST_PIXELS", "10000")
    assert decode_image(png(100, 100)).shape == (100, 100, 1)
    monkeypatch.setenv("LEHR_MOST_PIXELS", "many")
    with pytest.raises(LehrError, match=r'^LEHR_MOST_PIXELS: "many" is not a limit'):
        decode_image(encoded("PNG"))


def many_frames(form: str) -> bytes:
    frames = [Image.new("RGB", (8, 8), (number % 256, number // 256, 0)) for number in range(2000)]
    file = io.BytesIO()
    frames[0].save(file, form, save_all=True, append_images=frames[1:])
    return file.getvalue()


@pytest.mark.parametrize("form", ["GIF", "TIFF", "PNG"])
def test_of_many_frames_only_the_first_is_decoded(form: str) -> None:
    data = many_frames(form)
    began = time.monotonic()
    assert decode_image(data, PixelFormat(channels=3)).shape == (8, 8, 3)
    assert time.monotonic() - began < 0.5


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_a_text_or_profile_that_inflates_without_end_makes_an_image_unreadable(kind: bytes) -> None:
    data = png(8, 8, chunk(kind, b"a\0\0" + zlib.compress(bytes(200_000_000), 9)))
    assert len(data) < 300_000
    began = time.monotonic()
    with pytest.raises(UnreadableImage, match="too large"):
        decode_image(data)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.filterwarnings("ignore")
def test_whatever_a_decoder_raises_the_image_is_unreadable_and_says_why(form: str) -> None:
    draw, whole, reasons = random.Random(form), encoded(form), []
    images = []
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 6)):
            data[draw.randrange(min(len(data), draw.choice((60, 400))))] = draw.randrange(256)
        images.append(bytes(data[: draw.randrange(1, len(data))] if draw.random() < 0.3 else data))
    table = pa.table({"image": pa.array(images, pa.large_binary()), "label": [0] * len(images)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reasons = [why for _, why in decode(table, PixelFormat((8, 8), 3)).unreadable]
    assert reasons
    assert all(reasons)


@pytest.mark.parametrize(
    "error", [RecursionError("deep"), struct.error("short"), RuntimeError("decoder"), EOFError(), SyntaxError("broken")]
)
def test_every_error_of_a_decoder_counts(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(UnreadableImage, match=str(error) or type(error).__name__):
        decode_image(b"x")


@pytest.mark.parametrize("shape", [[-1, 8, 3], [0, 0, 1], [8, 8], [8, 8, 3, 1], [2**31, 2**31, 1], [None, 8, 3]])
def test_raw_pixels_of_a_shape_that_is_none_are_unreadable(shape: list[int]) -> None:
    table = pa.table({"image": [bytes(192)], "label": [0], "shape": pa.array([shape], pa.list_(pa.int64()))})
    assert len(decode(table, PixelFormat((8, 8))).unreadable) == 1


# ── folders ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_no_file_is_an_unreadable_image_and_is_not_waited_for(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.png").write_bytes(encoded("PNG"))
    os.mkfifo(tmp_path / "a/fifo.png")
    (tmp_path / "a/zero.png").symlink_to("/dev/zero")
    with open(tmp_path / "a/large.png", "wb") as file:
        file.truncate(1 << 40)
    source = opened(tmp_path)
    with pytest.raises(LehrError, match="3 of 5 images are unreadable"):
        read(source, PixelFormat((8, 8)), 0.0)


def test_a_name_that_is_no_text_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.png").write_bytes(encoded("PNG"))
    with open(os.fsencode(tmp_path) + b"/a/\xff.png", "wb"):
        pass
    for source in ("images", "files"):
        job = job_of("digits", [f"data.source={source}", f"data.path={tmp_path}"])
        with pytest.raises(
            JobError, match=r"data\.path: cannot be read: the name a/\\xff\.png is not UTF-8; rename it"
        ):
            open_source(job.data, job.error)


# ── Parquet ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def repeated(path: Path, size: int, rows: int) -> Path:
    """A file whose rows all have the same image, which it holds once."""
    images = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), pa.array([bytes(size)], pa.binary()))
    table = pa.table({"image": images, "label": pa.array(np.zeros(rows, np.int64))})
    options: dict[str, Any] = {"store_schema": False, "write_statistics": False, "dictionary_pagesize_limit": 1 << 30}
    with pq.ParquetWriter(path, table.schema, compression="zstd", **options) as writer:
        writer.write_table(table, row_group_size=rows)
        writer.add_key_value_metadata({"classes": "a,b"})
    return path


@pytest.mark.parametrize(("size", "rows"), [(1 << 20, 4_000), (1 << 26, 60), (1 << 12, 1_000_000)])
def test_a_parquet_file_that_decodes_to_gigabytes_is_refused(
    tmp_path: Path, size: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "PLAUSIBLE_BYTES", 32 << 20)
    path = repeated(tmp_path / "bomb.parquet", size, rows)
    assert path.stat().st_size < 30_000
    assert size * rows >= 4_000 * 1_000_000
    source = opened(path)
    most = pa.default_memory_pool().max_memory() or 0
    with pytest.raises(LehrError, match=r"row group 0 of .*bomb\.parquet cannot be read: its .* bytes decode to more"):
        source.parts[0].read()
    assert (pa.default_memory_pool().max_memory() or 0) <= max(most, 200 << 20)


def test_an_honest_file_is_read_whole_with_its_repeated_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = repeated(tmp_path / "set.parquet", 3_000, 500)
    part = opened(path).parts[0]
    table = part.read()
    assert table["image"].to_pylist() == [bytes(3_000)] * 500
    assert part.labels().tolist() == [0] * 500
    assert part.read([3, 1])["label"].to_pylist() == [0, 0]
    monkeypatch.setenv("LEHR_MOST_ROW_GROUP_BYTES", "1000000")
    with pytest.raises(LehrError, match="allowed: at most a thousandfold, and 1,000,000 bytes or what LEHR_MOST_ROW"):
        part.read()


def test_shapes_and_rows_without_end_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = pa.array([list(range(50))], pa.list_(pa.int32()))
    table = pa.table({"image": [b"x"], "label": [0], "shape": shapes}).replace_schema_metadata({"classes": "a,b"})
    pq.write_table(table, tmp_path / "set.parquet")
    job = job_of(str(tmp_path / "set.parquet"), [])
    with pytest.raises(JobError, match="has shapes of more than three numbers"):
        open_source(job.data, job.error)
    monkeypatch.setattr(parquet_source, "MOST_ROWS", 99)
    job = job_of(str(repeated(tmp_path / "rows.parquet", 10, 100)), [])
    with pytest.raises(JobError, match="has 100 rows in its row group 0; allowed: 99"):
        open_source(job.data, job.error)


@pytest.mark.parametrize("classes", ["[", "[" * 100_000, '{"a": 1}', "[1, 2]", b"\xff"])
def test_class_names_that_are_none_are_one_sentence(tmp_path: Path, classes: str | bytes) -> None:
    metadata: dict[Any, Any] = {"classes": classes}
    table = pa.table({"image": [b"x"], "label": [0]}).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "set.parquet")
    job = job_of(str(tmp_path / "set.parquet"), [])
    if classes == '{"a": 1}':  # plain names, with a comma or not
        assert open_source(job.data, job.error).classes == ('{"a": 1}',)
        return
    with pytest.raises(JobError, match="has class names in its metadata that cannot be read"):
        open_source(job.data, job.error)


def test_a_part_of_a_record_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = pa.DictionaryArray.from_arrays(np.zeros(3_000, np.int32), pa.array(["x" * (1 << 20)]))
    file = io.BytesIO()
    pq.write_table(
        pa.table({"step": pa.array(np.arange(3_000)), "note": note}), file, compression="zstd", store_schema=False
    )
    with pytest.raises(TooLarge, match="decode to more than 256 MB"):
        tables.from_parquet(file.getvalue())
    many = io.BytesIO()
    pq.write_table(pa.table({"step": pa.array(np.zeros(40_000_000, np.int64))}), many)
    with pytest.raises(TooLarge):
        tables.from_parquet(many.getvalue())
    small = pq.ParquetFile(io.BytesIO(tables.to_parquet("steps", {"step": [1]})))
    assert read_row_groups(small, 1 << 20).num_rows == 1
