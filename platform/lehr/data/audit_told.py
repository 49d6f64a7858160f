"""What `lehr data show` says of a data set: sentences, plain values for `--json`, and a page of pictures."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from lehr.data.audit import LOOK_SECONDS, Audit, Doubt, Pair
from lehr.data.decode import UnreadableImage, decoded_row, raw_rows
from lehr.data.labels import row_of
from lehr.data.pixels import PixelFormat
from lehr.data.sources.base import Source
from lehr.data.sources.told import count_told
from lehr.printing import one_line
from lehr.reporting.page import Section, finding, gallery, page, paragraph, table
from lehr.tasks.caption_text import from_bytes

IMBALANCED = 10.0
"""Times as many rows in the largest class as in the smallest that are told."""
MOST_PICTURES, TILE = 24, 128
TONES = {"leak": "bad", "labels": "warn", "unreadable": "warn", "missing": "bad", "imbalance": "warn"}
HEADINGS = {
    "leak": "Splits share rows",
    "repeated": "Rows are repeated",
    "labels": "Labels may be wrong",
    "missing": "Labels are missing",
    "unreadable": "Images cannot be read",
    "imbalance": "Classes differ much in size",
    "note": "Note",
}


# ── told ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def sentences(found: Audit, classes: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(heading, sentence) of what a person should know, most important first."""
    leaks = [pair for pair in found.pairs if pair.leaks]
    for exact in (True, False):
        between = Counter(sorted_splits(pair) for pair in leaks if pair.exact is exact)
        for (first, second), count in between.items():
            what = f"{count_told(count, 'row')} of {found.rows[second]:,} for {second}"
            yield "leak", f"{what} {_have(count)} {'nearly ' * (not exact)}the pixels of a row of {first}"
        inside = Counter(pair.splits[0] for pair in found.pairs if not pair.leaks and pair.exact is exact)
        for split, count in inside.items():
            what = f"{count_told(count, 'row')} of {split}"
            yield "repeated", f"{what} {_have(count)} {'nearly ' * (not exact)}the pixels of another of it"
    for exact in (True, False):
        if count := sum(pair.other_label and pair.exact is exact for pair in found.pairs):
            what = f"{count_told(count, 'pair')} of rows {_have(count)} {'nearly ' * (not exact)}the same pixels"
            yield "labels", f"{what} and different labels"
    if found.doubts:
        few = ", ".join(f"{classes[d.label]} that may be {classes[d.likely]}" for d in found.doubts[:3])
        right = f"right on {found.model_accuracy or 0:.0%} of the rows"
        yield (
            "labels",
            f"{count_told(len(found.doubts), 'label')} may be wrong, such as {few}; a linear model, {right}, is "
            "surer of another class",
        )
    elif found.why_not_judged:
        yield "note", f"labels were not judged: {found.why_not_judged}"
    for split, facts in found.splits.items():
        if facts.missing:
            yield "missing", f"{count_told(facts.missing, 'row')} of {split} {_have(facts.missing)} no label"
        if facts.unreadable:
            few = ", ".join(f"{name} ({why})" for name, why in facts.unreadable[:3])
            more = ", …" if len(facts.unreadable) > 3 else ""
            yield "unreadable", f"{count_told(len(facts.unreadable), 'image')} of {split} cannot be read: {few}{more}"
        counts = [count for count in facts.counts.values() if count]
        if counts and max(counts) >= IMBALANCED * min(counts) and split == "train":
            names = {count: name for name, count in facts.counts.items()}
            yield (
                "imbalance",
                f"{names[max(counts)]} has {max(counts):,} rows and {names[min(counts)]} has {min(counts):,}; data."
                "sampling=balanced shows every class equally often",
            )
        if facts.looked_at < facts.rows:
            yield "note", f"{facts.looked_at:,} of {facts.rows:,} rows of {split} were looked at, in {LOOK_SECONDS:g} s"
    if found.compared < found.looked_at and found.compared:
        yield (
            "note",
            f"{found.compared:,} rows were compared with all others for near duplicates",
        )


def sorted_splits(pair: Pair) -> tuple[str, str]:
    """The splits of a pair in the order train, validation, test."""
    first, second = sorted(pair.splits, key=("train", "validation", "test").index)
    return first, second


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


# ── as plain values ─────────────────────────────────────────────────────────────────────────────────────────────────


def as_plain(found: Audit, source: Source, notes: Sequence[str]) -> dict[str, Any]:
    """Everything that was found, as JSON has it."""
    splits = {
        name: {
            "rows": facts.rows,
            "looked_at": facts.looked_at,
            "classes": dict(facts.counts),
            "missing_labels": facts.missing,
            "unreadable": [{"name": where, "why": why} for where, why in facts.unreadable],
            "sizes": {"smallest": facts.smallest, "median": facts.median, "largest": facts.largest},
            "channels": dict(facts.modes),
        }
        for name, facts in found.splits.items()
    }
    pairs = [
        {
            "first": found.names[pair.first],
            "second": found.names[pair.second],
            "splits": pair.splits,
            "same_pixels": pair.exact,
            "different_labels": pair.other_label,
        }
        for pair in found.pairs
    ]
    doubts = [
        {
            "name": found.names[doubt.split, doubt.row],
            "label": source.classes[doubt.label],
            "likely": source.classes[doubt.likely],
            "margin": doubt.margin,
        }
        for doubt in found.doubts
    ]
    return {
        "form": source.form,
        "columns": source.columns,
        "notes": list(notes),
        "splits": splits,
        "rows": dict(found.rows),
        "pairs": pairs,
        "doubtful_labels": doubts,
        "linear_model": found.model_accuracy,
        "compared": found.compared,
        "found": [{"what": what, "sentence": sentence} for what, sentence in sentences(found, source.classes)],
    }


# ── as a page ───────────────────────────────────────────────────────────────────────────────────────────────────────


def audit_page(
    title: str,
    found: Audit,
    sources: Mapping[str, Source],
    notes: Sequence[str],
    wanted: PixelFormat,
    grid: Path | None = None,
) -> str:
    """The page: what was found, rows of each class, and pictures of what is repeated, shared or doubted."""
    main = sources["train"]
    told = [
        finding(HEADINGS[what], sentence[:1].upper() + sentence[1:] + ".", tone=TONES.get(what, ""))
        for what, sentence in sentences(found, main.classes)
    ]
    body = Markup("").join(told) if told else paragraph("Nothing was found that should worry.")
    sections = [Section("What was found", body)]
    if notes:
        sections.append(Section("What was understood", table([["", note] for note in notes])))
    head = ["class", *found.splits]
    counted = list(found.splits.values())
    rows = [[one_line(name), *(f"{facts.counts.get(name, 0):,}" for facts in counted)] for name in main.classes]
    if main.kind != "numbers":
        sections.append(Section("Rows of each class", table(rows, head)))
    shown = Pictures(sources, wanted)
    leaks, others = ([pair for pair in found.pairs if pair.leaks is leak] for leak in (True, False))
    for heading, pairs in (("Rows in two splits", leaks), ("Rows that are repeated", others)):
        if pairs:
            sections.append(Section(heading, gallery(shown.of_pairs(pairs[:MOST_PICTURES], main.classes))))
    if found.doubts:
        doubted = shown.of_doubts(found.doubts[:MOST_PICTURES], main.classes)
        sections.append(Section("Labels to look at", gallery(doubted)))
    if grid is not None:
        sections.append(Section("Samples", gallery([(grid.read_bytes(), [])])))
    facts = [(name, f"{rows:,} rows") for name, rows in found.rows.items()]
    return page(title, main.form or "a data set", sections, facts)


class Pictures:
    """Small pictures of rows, read when they are asked for."""

    def __init__(self, sources: Mapping[str, Source], wanted: PixelFormat) -> None:
        self.sources, self.wanted = sources, wanted

    def of_pairs(self, pairs: Sequence[Pair], classes: Sequence[str]) -> list[tuple[bytes, list[str]]]:
        found = []
        for pair in pairs:
            how = "the same pixels" if pair.exact else "nearly the same"
            places = (pair.first, pair.second)
            names = [self._told(place, split, classes) for place, split in zip(places, pair.splits, strict=True)]
            found.append((self._tile(*places), [how, *names]))
        return found

    def of_doubts(self, doubts: Sequence[Doubt], classes: Sequence[str]) -> list[tuple[bytes, list[str]]]:
        return [
            (
                self._tile((doubt.split, doubt.row)),
                [f"is {classes[doubt.label]}", f"may be {classes[doubt.likely]}", self._name((doubt.split, doubt.row))],
            )
            for doubt in doubts
        ]

    def _told(self, place: tuple[str, int], split: str, classes: Sequence[str]) -> str:
        source = self.sources[place[0]]
        label = row_of(source.labels(), place[1])
        word = f", {classes[int(label)]}" if source.kind == "class" and label >= 0 else ""
        if source.kind == "captions":
            word = f", {one_line(from_bytes(label)[0])}"
        return f"{split}{word}: {self._name(place)}"

    def _name(self, place: tuple[str, int]) -> str:
        return one_line(self.sources[place[0]].name_of(place[1])).rpartition("/")[2]

    def _tile(self, *places: tuple[str, int]) -> bytes:
        """The rows side by side as a PNG file."""
        canvas = Image.new("RGB", (len(places) * (TILE + 4) - 4, TILE), (128, 128, 128))
        for number, place in enumerate(places):
            canvas.paste(self._small(place), (number * (TILE + 4), 0))
        file = io.BytesIO()
        canvas.save(file, "PNG")
        return file.getvalue()

    def _small(self, place: tuple[str, int]) -> Image.Image:
        source = self.sources[place[0]]
        number = int(source.starts.searchsorted(place[1], side="right")) - 1
        (row,) = raw_rows(source.parts[number].read([place[1] - int(source.starts[number])]))
        try:
            pixels = decoded_row(*row, PixelFormat(channels=3, range=self.wanted.range))
        except UnreadableImage:
            return Image.new("RGB", (TILE, TILE))
        scale = TILE / max(pixels.shape[:2])
        size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
        how = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BILINEAR
        tile = Image.new("RGB", (TILE, TILE), (128, 128, 128))
        tile.paste(Image.fromarray(pixels).resize(size, how), ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
        return tile
