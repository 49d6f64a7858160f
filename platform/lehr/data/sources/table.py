"""A table with a line for each image, as CSV, TSV, JSON lines or Parquet: a column with its file, and columns with its
labels; or with its pixels in columns of their own.

The column of the files is the one that `data.columns.image` names, else `file` or another of `FILE_COLUMNS`, else the
only one with names of images. Paths are relative to the table's folder, or addresses of the web; where they are neither
there, files are found by their names below that folder, with or without ending. A column `split` (train, validation,
test) says which rows are which; or there is a table for each split.
"""

from __future__ import annotations

import io
import json
import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem

from lehr.data.annotations import WrongAnnotations
from lehr.data.captions import as_labels
from lehr.data.sources.base import (
    NO_LABEL,
    ErrorFactory,
    LabelledPart,
    Part,
    Source,
    file_system,
    read_with_retries,
)
from lehr.data.sources.held import held_chunks
from lehr.data.sources.image_columns import pixel_columns
from lehr.data.sources.images import ENDINGS as IMAGES
from lehr.data.sources.images import FILES_PER_PART, FilesPart, list_images
from lehr.data.sources.label_columns import LabelColumns, WrongLabels, choose_columns, read_columns
from lehr.data.sources.listing import kind_of
from lehr.data.sources.masks import mask_column, masked
from lehr.data.sources.row_columns import with_splits
from lehr.data.sources.shards import find_shards
from lehr.data.sources.splits import (
    COLUMN,
    NO_COLUMN,
    WrongColumn,
    group_codes,
    group_column,
    rows_of_splits,
    split_column,
    split_of,
)
from lehr.data.sources.tabular import Wanted, in_splits, table_source
from lehr.data.sources.web import SCHEMES, WebPart
from lehr.errors import JobError, LehrError
from lehr.job import DataSection
from lehr.runs.bounded import read_row_groups
from lehr.tasks.caption_text import from_bytes
from lehr.tasks.forms import LabelKind

FILE_COLUMNS = (
    *("file", "files", "filename", "file_name", "image", "image_path", "path", "filepath", "image_file", "img_path"),
    *("image_url", "url", "image_id", "image_name", "img", "id"),
)
WEB = "web"
MOST_BYTES = 1 << 30
ENDINGS = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".parquet")
LISTS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
"""Those that are looked for in a folder."""
FORMS = {".csv": "CSV", ".tsv": "TSV", ".txt": "CSV", ".parquet": "Parquet"}
NOT_ROWS = re.compile(r"(sample_?submission|dataset_infos?|dataset_dict|package(-lock)?)\b", re.IGNORECASE)
_NUMBERS = re.compile(r"\s*\d+(?:[ ,]+\d+){15,}\s*")
"""Pixels in one text: FER2013 as Kaggle has it."""


def open_source(section: DataSection, job_error: ErrorFactory, kind: LabelKind) -> Source:
    """The images that the table lists, with their labels; or those of several tables, each with its split."""
    assert section.path is not None, "DataSection requires a path for this source"
    wanted = Wanted.of(section, kind)
    shards = find_shards(section.path, LISTS, "data.path", job_error, lists_rows)
    if list(shards.splits) == ["train"] and len(shards.splits["train"][1]) == 1:
        return _one(shards.first, section.path, section, wanted, job_error)
    if section.split not in (None, NO_COLUMN):
        what = f'"{section.path}" has tables for its splits already, {", ".join(shards.splits)}; remove data.split'
        raise job_error("data.split", what)
    alone = section.model_copy(update={"split": NO_COLUMN})
    sources, notes = {}, []
    for split, (_, paths) in shards.splits.items():
        if len(paths) > 1:
            what = f'"{section.path}" has {len(paths)} tables for {split}, such as {paths[0]} and {paths[1]}'
            first = paths[0]
            raise job_error("data.path", f"{what}; allowed: one; type data.path={first}")
        try:
            sources[split] = _one(paths[0], paths[0], alone, wanted, job_error)
        except JobError:
            if split != "test":
                raise
            notes.append(f"{paths[0]} is left out: it has no labels, or no files, that can be read")
    return in_splits(section.path, sources, tuple(notes))


def lists_rows(name: str) -> bool:
    """Whether a file of a data set's folder, by its name below it, may list images: it lies at the top or in the folder
    of a split, and is not what Kaggle or Hugging Face put beside."""
    folder, _, base = name.rpartition("/")
    in_place = not folder or (split_of(folder) is not None)
    return kind_of(name) in LISTS and in_place and not NOT_ROWS.match(base)


def _one(path: str, name: str, section: DataSection, wanted: Wanted, job_error: ErrorFactory) -> Source:
    table = _read(path, job_error)
    if not len(table):
        raise job_error("data.path", f'"{path}" has no rows')
    form = FORMS.get(kind_of(path), "JSON lines")
    if pixels := _pixels(table, wanted):
        chunks = held_chunks(pixels, path)
        made = table_source(chunks, pixels.schema, name, "data.path", job_error, wanted, f"{form} of pixels")
        return with_splits(made, section, job_error)
    masks = _mask_column(table, path, wanted, job_error) if wanted.kind == "mask" else ""
    files = _file_column(table.drop_columns([masks]) if masks else table, path, wanted, job_error)
    names = _files(table, files, path, job_error)

    def where(row: int) -> str:
        return f"row {row + 1} ({names[row]})"

    try:
        by_split = split_column(section.split, table.schema.names)
        by_group = section.group and group_column(section.group, table.schema.names)
        others = (files, COLUMN, *filter(None, (by_split, by_group)), *_texts(table, files))
        if masks:
            columns, found = [masks], LabelColumns((), np.full(len(table), NO_LABEL))
        else:
            columns = choose_columns(wanted.columns, table.schema.names, wanted.kind, others)
            taken = {each: table[each].combine_chunks() for each in columns}
            found = read_columns(taken, wanted.kind, where)
        groups = group_codes(table[by_group].to_pylist(), where) if by_group else None
        splits = {"train": np.arange(len(table))}
        if by_split:
            splits = rows_of_splits(by_split, table[by_split].to_pylist(), where)
        if wanted.kind == "captions":
            found, splits = _one_row_each(names, found, splits)
    except (WrongLabels, WrongColumn) as error:
        text = str(error)
        if isinstance(error, WrongColumn):
            field = error.field or "data.path"
        else:
            field = "data.columns.label" if error.column in wanted.columns else "data.path"
        raise job_error(field, f'"{path}" {text}' if text.startswith("has ") else f'"{path}": {text}') from None
    except (pa.ArrowException, OverflowError) as error:
        raise job_error("data.path", f'"{path}": {str(error).splitlines()[0]}') from error
    names, notes = _found(path, names, job_error)
    shown = (files, columns[0] if len(columns) == 1 else f"{columns[0]} to {columns[-1]}")
    of_masks = _files(table, masks, path, job_error) if masks else None
    sources = {
        split: Source(
            name,
            _parts(path, names, found, rows, of_masks),
            found.names,
            kind=wanted.kind,
            groups=None if groups is None else groups[rows],
            form=f"{form} of files",
            columns=shown,
        )
        for split, rows in splits.items()
    }
    if masks:
        sources = _with_masks(sources, path, wanted, job_error)
    return replace(sources.pop("train"), other_splits=sources, notes=notes)


def _one_row_each(
    names: Sequence[str], found: LabelColumns, splits: Mapping[str, np.ndarray]
) -> tuple[LabelColumns, dict[str, np.ndarray]]:
    """Lines of the same file as one row, the first of them, with all their captions. Raises WrongColumn."""
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        rows_of[name].append(row)
    if len(rows_of) == len(names):
        return found, dict(splits)
    split_of_row = {row: split for split, rows in splits.items() for row in rows.tolist()}
    captions: list[list[str]] = [[] for _ in names]
    for name, rows in rows_of.items():
        if len({split_of_row.get(row) for row in rows}) > 1:
            raise WrongColumn("", f"has lines of {name} in several splits; allowed: all lines of an image in one")
        captions[rows[0]] = [
            each for row in rows if len(found.labels.row(row)) for each in from_bytes(found.labels.row(row))
        ]
    first = np.array([rows[0] for rows in rows_of.values()])
    return LabelColumns((), as_labels(captions)), {split: np.intersect1d(rows, first) for split, rows in splits.items()}


def _mask_column(table: pa.Table, path: str, wanted: Wanted, job_error: ErrorFactory) -> str:
    """The column with the files of the masks."""
    looks = [name for name in table.schema.names if _has_names_of_images(table[name])]
    try:
        return mask_column(wanted.columns, looks, table.schema.names)
    except WrongAnnotations as error:
        raise job_error("data.columns.label" if wanted.columns else "data.path", f'"{path}": {error}') from None


def _with_masks(sources: Mapping[str, Source], path: str, wanted: Wanted, job_error: ErrorFactory) -> dict[str, Source]:
    """The splits with masks, of parts that are pairs of images and masks."""
    pairs: list[Any] = [part for source in sources.values() for part in source.parts]
    try:
        parts, names = masked([(pair.images, pair.masks) for pair in pairs], (), wanted.classes)
    except (WrongAnnotations, LehrError) as error:
        raise job_error("data.path", f'"{path}": {str(error).removeprefix("data: ")}') from None
    waiting = iter(parts)
    return {
        split: replace(source, parts=tuple(islice(waiting, len(source.parts))), classes=names)
        for split, source in sources.items()
    }


class _Pair(NamedTuple):
    """Images and their masks, until it is known what the values of masks mean."""

    images: Part
    masks: Part
    rows: int


def _read(path: str, job_error: ErrorFactory) -> pa.Table:
    """The table. Raises JobError where there is none."""
    ending = os.path.splitext(path)[1].lower()
    if ending not in ENDINGS:
        raise job_error("data.path", f'"{path}" is no table; allowed: a file that ends in {", ".join(ENDINGS)}')
    try:
        filesystem, inner = file_system(path)
    except ValueError as error:
        raise job_error("data.path", str(error)) from error
    size = filesystem.get_file_info(inner).size or 0
    if size > MOST_BYTES:
        raise job_error("data.path", f'"{path}" has {size:,} bytes; allowed: {MOST_BYTES:,}')
    try:
        return read_with_retries(path, lambda: _parsed(filesystem, inner, ending))
    except UnicodeDecodeError as error:
        raise job_error("data.path", f'"{path}" is not in UTF-8: {error.reason}') from error
    except Exception as error:  # LehrError too: it does not name the field
        raise job_error("data.path", str(error).removeprefix("data: ").splitlines()[0]) from error


def _parsed(filesystem: FileSystem, inner: str, ending: str) -> pa.Table:
    with filesystem.open_input_file(inner) as file:
        if ending == ".parquet":
            return read_row_groups(pq.ParquetFile(file), MOST_BYTES)
        if ending in (".jsonl", ".ndjson", ".json"):
            return _json(file.read())
        parse = pacsv.ParseOptions(delimiter="\t" if ending == ".tsv" else ",")
        convert = pacsv.ConvertOptions(strings_can_be_null=False, null_values=["", "NA", "NaN", "nan", "null", "None"])
        source: Any = file
        return pacsv.read_csv(source, parse_options=parse, convert_options=convert)


def _json(text: bytes) -> pa.Table:
    """JSON lines, or one list of objects."""
    if text.lstrip()[:1] == b"[":
        rows = json.loads(text)
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("a JSON list of what are no objects; allowed: an object for each image")
        return pa.Table.from_pylist(rows)
    return pajson.read_json(io.BytesIO(text))


# ── which column is what ────────────────────────────────────────────────────────────────────────────────────────────


def _pixels(table: pa.Table, wanted: Wanted) -> pa.Table | None:
    """The table if its images are pixels in columns; with a column of lists where they are text."""
    if wanted.image is None and any(name in table.schema.names for name in FILE_COLUMNS[:10]):
        return None
    if wanted.image is None and pixel_columns(table.schema):
        return table
    name = wanted.image or "pixels"
    if name not in table.schema.names or not pa.types.is_string(table.schema.field(name).type):
        return None
    texts = table[name].to_pylist()
    if not _NUMBERS.fullmatch(texts[0] or ""):
        return None
    rows = [None if text is None else [int(each) for each in re.split(r"[ ,]+", text.strip())] for text in texts]
    lists: Any = pa.array([None if row is None else _square(row) for row in rows])
    return table.set_column(table.schema.get_field_index(name), name, lists)


def _square(numbers: list[int]) -> list[list[int]]:
    side = int(len(numbers) ** 0.5)
    if side**2 != len(numbers):
        raise ValueError(f"{len(numbers)} numbers in a text are no square image")
    return [numbers[row * side : (row + 1) * side] for row in range(side)]


def _file_column(table: pa.Table, path: str, wanted: Wanted, job_error: ErrorFactory) -> str:
    there = table.schema.names
    has = f"its columns are {', '.join(there[:8])}{', …' if len(there) > 8 else ''}"
    if wanted.image is not None:
        if wanted.image not in there:
            raise job_error("data.columns.image", f'"{path}" has no column {wanted.image}; {has}')
        return wanted.image
    looks = [name for name in there if _has_names_of_images(table[name])]
    named = [name for name in FILE_COLUMNS if name in there]
    if len(looks) > 1 and not set(named[:1]) & set(looks):
        what = f'"{path}" has {len(looks)} columns with files of images, {", ".join(looks[:8])}'
        first = looks[0]
        raise job_error("data.path", f"{what}; type data.columns.image={first}")
    found = next((name for name in named if name in looks), looks[0] if looks else named[0] if named else None)
    if found is None:
        what = f'"{path}" has no column with the files of the images; {has}'
        raise job_error("data.path", f"{what}; allowed: a column {FILE_COLUMNS[0]}, or type data.columns.image=NAME")
    return found


def _has_names_of_images(column: pa.ChunkedArray[Any]) -> bool:
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return False
    first = [each for each in column.slice(0, 20).to_pylist() if each]
    return bool(first) and all(_is_image_name(each) for each in first)


def _is_image_name(text: str) -> bool:
    return kind_of(text.partition("?")[0]) in IMAGES


def _texts(table: pa.Table, files: str) -> list[str]:
    """Columns of further names of files, which are no labels."""
    return [name for name in table.schema.names if name != files and _has_names_of_images(table[name])]


def _files(table: pa.Table, column: str, path: str, job_error: ErrorFactory) -> list[str]:
    """The file of each row. Raises JobError where one is missing, or is no text."""
    names = table[column].to_pylist()
    found = []
    for row, name in enumerate(names):
        text = str(name) if isinstance(name, int) else name  # ids, which files are called after
        if not isinstance(text, str) or not text.strip() or "\0" in text:
            raise job_error("data.path", f'"{path}": row {row + 1} has no file in its column {column}')
        text = text.strip()
        web = text.lower().startswith(SCHEMES)
        found.append(text if web else posixpath.normpath(text.replace(os.sep, "/").replace("\\", "/")))
    return found


# ── the files ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _found(path: str, names: list[str], job_error: ErrorFactory) -> tuple[list[str], tuple[str, ...]]:
    """The files as they are found, and a sentence about those that are not there; they count as unreadable.

    Raises JobError where none is.
    """
    if "://" in path or all(name.lower().startswith(SCHEMES) for name in names):
        return names, ()
    folder = os.path.dirname(path)
    gone = [row for row, name in enumerate(names) if not _there(folder, name)]
    notes: tuple[str, ...] = ()
    if 2 * len(gone) > len(names):
        known = _by_name(folder, path, job_error)
        again = [known.get(posixpath.basename(name)) or known.get(_stem(name)) for name in names]
        if sum(each is not None for each in again) > len(names) - len(gone):
            names = [name if each is None else each for name, each in zip(names, again, strict=True)]
            gone = [row for row, each in enumerate(again) if each is None]
            notes = (f"the files of {path} are found by their names in {os.path.dirname(names[0]) or folder}",)
    if len(gone) == len(names):
        looked = os.path.join(folder, names[gone[0]])
        allowed = "allowed: paths relative to the table's folder, with their endings, or whole paths"
        raise job_error("data.path", f'"{path}": none of its files is there, such as {looked}; {allowed}')
    if gone:
        few = ", ".join(names[row] for row in gone[:3]) + (", …" if len(gone) > 3 else "")
        notes = (*notes, f"{len(gone):,} of the {len(names):,} files in {path} are not there: {few}")
    return names, notes


def _there(folder: str, name: str) -> bool:
    return name.lower().startswith(SCHEMES) or os.path.isfile(os.path.join(folder, name))


def _stem(name: str) -> str:
    return posixpath.splitext(posixpath.basename(name))[0] if _is_image_name(name) else posixpath.basename(name)


def _by_name(folder: str, path: str, job_error: ErrorFactory) -> Mapping[str, str]:
    """The images below the table's folder, by name and by name without ending; none that there are two of, unless one
    lies in the folder of the split that the table is called after."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in list_images(folder or ".", job_error).files:
        for key in {posixpath.basename(name), _stem(name)}:
            found[key].append(name)
    split = split_of(re.split(r"[^A-Za-z]", os.path.basename(path))[0])
    known = {}
    for key, names in found.items():
        mine = [name for name in names if split and any(split_of(part) == split for part in name.split("/")[:-1])]
        if len(names) == 1 or len(mine) == 1:
            known[key] = mine[0] if len(names) > 1 else names[0]
    return known


def _part(folder: str, names: Sequence[str]) -> Part:
    """Files below a folder, at whole paths (`/`), or on the web."""
    if folder == WEB:
        return WebPart(tuple(names))
    return FilesPart(folder, tuple(name.lstrip("/") for name in names), (NO_LABEL,) * len(names))


def _parts(
    path: str, names: list[str], found: LabelColumns, rows: np.ndarray, masks: list[str] | None = None
) -> tuple[Part, ...]:
    """The rows of one split, with labels or with masks. Files with absolute paths are taken as they are."""
    parts: list[Any] = []
    waiting = iter(rows.tolist())
    folder = path.rpartition("/")[0] or ("." if "/" not in path else "/")
    while some := list(islice(waiting, FILES_PER_PART)):
        places: dict[str, list[int]] = defaultdict(list)
        for row in some:
            web, whole = names[row].lower().startswith(SCHEMES), names[row].startswith("/")
            places[WEB if web else "/" if whole else folder].append(row)
        for place in (folder, "/", WEB):
            if chosen := places.pop(place, []):
                images = _part(place, [names[row] for row in chosen])
                if masks is None:
                    parts.append(LabelledPart(images, found.labels[chosen]))
                else:
                    parts.append(_Pair(images, _part(folder, [masks[row] for row in chosen]), len(chosen)))
    return tuple(parts)
