"""What a data set holds, found by looking at its rows: sizes, duplicates, leaks between splits, doubtful labels.

It needs no network and no weights. Labels are doubted by confident learning (Northcutt, Jiang and Chuang, 2021): each
fifth of the rows is judged by a linear model that was fitted on the others (`linear.py`); a row is a candidate where
the model is surer of another class than it usually is of rows of that class. Where the model itself tells the classes
badly apart, none is named.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from lehr.data.decode import UnreadableImage, decoded_row, raw_rows, stored_as
from lehr.data.labels import without_label
from lehr.data.leaks import LEAST_SIDE
from lehr.data.likeness import Likeness, digest, likeness, mirrored, near_pairs
from lehr.data.linear import SIDE, chances, features_of
from lehr.data.pixels import PixelFormat
from lehr.data.randomness import key, permutation
from lehr.data.sources.base import Source

LOOK_SECONDS, NEAR_SECONDS = 300.0, 60.0
"""For how long rows are decoded, and compared."""
LEAST_OF_A_CLASS = 10
LEAST_ACCURACY, MOST_DOUBTED = 0.5, 0.2
"""Doubts are named where the linear model is right on at least this share, and doubts at most this share."""
MOST_JUDGED = 20_000  # rows whose labels are judged


@dataclass
class Looked:
    """The rows of one split that were looked at.

    Attributes:
        rows: int64, their ids in the source.
        labels: of them.
        sizes: (width, height) of each; (0, 0) if unreadable.
        modes: how many are grey, in colour, transparent.
        digests: of the pixels of each.
        like: what near duplicates are found by.
        features: float32 [rows, features], for the linear model.
        unreadable: row id and reason.
    """

    rows: np.ndarray
    labels: Any
    sizes: np.ndarray
    modes: Counter[str]
    digests: list[bytes]
    like: Likeness
    features: np.ndarray
    unreadable: dict[int, str]


@dataclass(frozen=True)
class Pair:
    """Two rows that are the same, or nearly.

    Attributes:
        first, second: (source, row id) of each.
        splits: the split of each: rows of `train` may be held out for validation.
        other_label: whether their labels differ.
    """

    first: tuple[str, int]
    second: tuple[str, int]
    splits: tuple[str, str]
    exact: bool
    other_label: bool

    @property
    def leaks(self) -> bool:
        """Whether they are in different splits."""
        return self.splits[0] != self.splits[1]


@dataclass(frozen=True)
class Doubt:
    """A row whose label another class fits better; `margin` is by how much, from 0 to 1."""

    split: str
    row: int
    label: int
    likely: int
    margin: float


@dataclass(frozen=True)
class SplitFacts:
    """What is counted of one split.

    Attributes:
        rows: how many it has. looked_at: how many of them were decoded.
        counts: by class, its rows; of numbers, nothing.
        missing: rows without label.
        unreadable: name and reason of rows whose image cannot be read.
        smallest, median, largest: (width, height).
        modes: how many are grey, in colour, transparent.
    """

    rows: int
    looked_at: int
    counts: Mapping[str, int]
    missing: int
    unreadable: Sequence[tuple[str, str]]
    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]
    sizes: int
    modes: Mapping[str, int]


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        rows: by split, how many rows it has, those that are held out told apart.
        compared: how many rows were compared with all others for near duplicates.
        names: by source and row id, where a person finds the rows of pairs and doubts.
        model_accuracy: of the linear model, on rows it was not fitted on; None where labels were not judged.
    """

    splits: Mapping[str, SplitFacts]
    rows: Mapping[str, int]
    pairs: Sequence[Pair] = ()
    compared: int = 0
    looked_at: int = 0
    doubts: Sequence[Doubt] = ()
    model_accuracy: float | None = None
    why_not_judged: str = ""
    names: Mapping[tuple[str, int], str] = field(default_factory=dict)


def audit(
    sources: Mapping[str, Source],
    wanted: PixelFormat,
    seed: int = 0,
    threads: int = 1,
    seconds: float = LOOK_SECONDS,
    held_out: np.ndarray | None = None,
) -> Audit:
    """Looks at the rows of each split: at all, or at those parts, in an order drawn by the seed, that time allows.

    Args:
        held_out: int64, rows of `train` that are the validation split.
    """
    until = time.monotonic() + seconds
    with ThreadPoolExecutor(threads) as pool:
        looked = {name: _look(source, wanted, pool, seed, until) for name, source in sources.items()}
    facts = {name: _facts(sources[name], looked[name]) for name in sources}
    held = np.empty(0, np.int64) if held_out is None else held_out
    pairs, compared = _pairs(looked, held, time.monotonic() + NEAR_SECONDS)
    rows = {name: source.rows for name, source in sources.items()}
    if len(held):
        rows |= {"train": rows["train"] - len(held), "validation": len(held)}
    doubts, accuracy, why = _doubts(looked, sources["train"])
    shown = {place for pair in pairs for place in (pair.first, pair.second)} | {(d.split, d.row) for d in doubts}
    names = {place: sources[place[0]].name_of(place[1]) for place in shown}
    total = sum(len(each.rows) for each in looked.values())
    return Audit(facts, rows, pairs, compared, total, doubts, accuracy, why, names)


# ── looking ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _look(source: Source, wanted: PixelFormat, pool: ThreadPoolExecutor, seed: int, until: float) -> Looked:
    """Decodes rows, part by part in an order drawn by the seed, so that what time allows is a sample."""
    starts = source.starts
    order = permutation(key(seed, "audit"), len(source.parts)).tolist()
    seen: list[_Seen] = []
    ids: list[np.ndarray] = []
    for number in order:
        if time.monotonic() > until:
            break
        part = source.parts[number]
        seen += pool.map(lambda row: _seen(row, wanted), list(raw_rows(part.read())))
        ids.append(starts[number] + np.arange(part.rows))
    rows_seen = np.concatenate(ids) if ids else np.empty(0, np.int64)
    sorted_by_id = np.argsort(rows_seen)
    seen = [seen[at] for at in sorted_by_id.tolist()]
    rows_seen = rows_seen[sorted_by_id]
    thumbs = np.stack([each.thumb for each in seen]) if seen else np.zeros((0, SIDE, SIDE, 3), np.uint8)
    return Looked(
        rows=rows_seen,
        labels=source.labels()[rows_seen],
        sizes=np.array([each.size for each in seen], np.int64).reshape(-1, 2),
        modes=Counter(each.mode for each in seen if each.mode),
        digests=[each.digest for each in seen],
        like=_likeness(thumbs),
        features=features_of(thumbs),
        unreadable={int(rows_seen[at]): each.why for at, each in enumerate(seen) if each.why},
    )


@dataclass(frozen=True)
class _Seen:
    """One image: its size, whether it has colour, its digest, itself at 32 × 32 pixels; or why it cannot be read."""

    size: tuple[int, int] = (0, 0)
    mode: str = ""
    digest: bytes = b""
    thumb: np.ndarray = field(default_factory=lambda: np.zeros((SIDE, SIDE, 3), np.uint8))
    why: str = ""


def _seen(row: tuple[bytes | None, list[int] | None, str | None], wanted: PixelFormat) -> _Seen:
    try:
        transparent = row[1] is None and row[0] is not None and stored_as(row[0]).transparent
        pixels = decoded_row(*row, PixelFormat(range=wanted.range))
    except UnreadableImage as error:
        return _Seen(why=str(error))
    colour = pixels.shape[2] >= 3 and bool((pixels[..., :1] != pixels[..., 1:3]).any())
    mode = "transparent" if transparent else "in colour" if colour else "grey"
    rgb = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels, 3, axis=2)
    small = Image.fromarray(np.ascontiguousarray(rgb)).resize((SIDE, SIDE), Image.Resampling.BOX)
    kept = pixels if colour else pixels[..., :1]
    return _Seen((pixels.shape[1], pixels.shape[0]), mode, digest(np.ascontiguousarray(kept)), np.asarray(small))


def _likeness(thumbs: np.ndarray) -> Likeness:
    parts = [likeness(thumbs[at : at + 1024]) for at in range(0, len(thumbs), 1024)] or [likeness(thumbs)]
    return Likeness(np.concatenate([p.hashes for p in parts]), np.concatenate([p.small for p in parts]))


def _facts(source: Source, looked: Looked) -> SplitFacts:
    labels = source.labels()
    missing = int(without_label(labels).sum())
    counts: dict[str, int] = {}
    if source.kind == "class":
        found = np.bincount(labels[labels >= 0], minlength=len(source.classes))
        counts = dict(zip(source.classes, map(int, found), strict=True))
    elif source.kind == "classes":
        counts = dict(zip(source.classes, map(int, (labels > 0).sum(axis=0)), strict=True))
    sizes = looked.sizes[looked.sizes[:, 0] > 0]
    by_area = sizes[np.argsort(sizes[:, 0] * sizes[:, 1], kind="stable")]
    by_area = by_area if len(by_area) else np.zeros((1, 2), np.int64)
    three = [(int(by_area[at, 0]), int(by_area[at, 1])) for at in (0, len(by_area) // 2, -1)]
    named = [(source.name_of(row), why) for row, why in looked.unreadable.items()]
    different = len(np.unique(sizes, axis=0)) if len(sizes) else 0
    return SplitFacts(
        rows=source.rows,
        looked_at=len(looked.rows),
        counts=counts,
        missing=missing,
        unreadable=named,
        smallest=three[0],
        median=three[1],
        largest=three[2],
        sizes=different,
        modes=looked.modes,
    )


# ── pairs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _pairs(looked: Mapping[str, Looked], held: np.ndarray, until: float) -> tuple[list[Pair], int]:
    """Rows that are the same or nearly, within and between splits; each row that repeats an earlier one once."""
    places = [(name, int(row)) for name, each in looked.items() for row in each.rows]
    held_out = {("train", int(row)) for row in held}
    digests = [each for look in looked.values() for each in look.digests]
    labels = [label for look in looked.values() for label in _comparable(look.labels)]
    like = Likeness(*(np.concatenate([getattr(look.like, n) for look in looked.values()]) for n in ("hashes", "small")))

    def pair(first: int, second: int, exact: bool) -> Pair:
        one, other = places[first], places[second]
        splits = ["validation" if each in held_out else each[0] for each in (one, other)]
        return Pair(one, other, (splits[0], splits[1]), exact, labels[first] != labels[second])

    firsts: dict[bytes, int] = {}
    found: list[Pair] = []
    repeats = set()
    for at, each in enumerate(digests):
        if each and (first := firsts.setdefault(each, at)) != at:
            found.append(pair(first, at, exact=True))
            repeats.add(at)
    sizes = np.concatenate([look.sizes for look in looked.values()])
    large = sizes.min(axis=1) >= LEAST_SIDE
    left = np.array([at for at in range(len(places)) if at not in repeats and large[at]], np.int64)
    near, compared = near_pairs(like.at(left), None, until)
    turned, turned_compared = near_pairs(mirrored(like.at(left)), like.at(left), until)
    near, compared = np.concatenate([near, turned[turned[:, 0] < turned[:, 1]]]), min(compared, turned_compared)
    known = set()
    for first, second in left[near].tolist():
        if second not in known and digests[first] != digests[second]:
            known.add(second)
            found.append(pair(first, second, exact=False))
    return found, int(compared) + len(places) - len(left)


def _comparable(labels: Any) -> list[Any]:
    return [each.tolist() if hasattr(each, "tolist") else each for each in labels]


# ── doubtful labels ─────────────────────────────────────────────────────────────────────────────────────────────────


def _doubts(looked: Mapping[str, Looked], source: Source) -> tuple[list[Doubt], float | None, str]:
    """The rows whose label another class fits better, the most doubtful first; the model's accuracy; or why not."""
    if source.kind != "class":
        return [], None, "rows have no one class"
    places = [(name, int(row)) for name, each in looked.items() for row in each.rows]
    labels = np.concatenate([each.labels for each in looked.values()])
    features = np.concatenate([each.features for each in looked.values()])
    unread = {(name, row) for name, each in looked.items() for row in each.unreadable}
    fine = np.array([place not in unread for place in places], bool) & (labels >= 0)
    counts = np.bincount(labels[fine], minlength=len(source.classes))
    fine &= (counts >= LEAST_OF_A_CLASS)[np.maximum(labels, 0)]
    chosen = np.flatnonzero(fine)[:MOST_JUDGED]
    if len(np.unique(labels[chosen])) < 2:
        return [], None, f"fewer than {LEAST_OF_A_CLASS} rows of each class"
    likely_of = chances(features[chosen], labels[chosen], len(source.classes))
    given = labels[chosen]
    accuracy = float((likely_of.argmax(axis=1) == given).mean())
    usual = np.array(
        [likely_of[given == k, k].mean() if (given == k).any() else 2.0 for k in range(len(source.classes))]
    )
    sure = likely_of >= usual[None, :]
    likely = np.where(sure, likely_of, -1.0).argmax(axis=1)
    rows = np.flatnonzero(sure.any(axis=1) & (likely != given))
    if accuracy < LEAST_ACCURACY or len(rows) > MOST_DOUBTED * len(given):
        why = f"a linear model is right on {accuracy:.0%} of the rows, too few to doubt labels by it"
        return [], accuracy, why
    margin = likely_of[rows, likely[rows]] - likely_of[rows, given[rows]]
    order = np.argsort(-margin, kind="stable")
    found = [
        Doubt(places[chosen[row]][0], places[chosen[row]][1], int(given[row]), int(likely[row]), round(float(by), 4))
        for row, by in zip(rows[order].tolist(), margin[order].tolist(), strict=True)
    ]
    return found, accuracy, ""
