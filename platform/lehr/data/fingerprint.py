"""A few letters that tell whether two runs had the same data, wherever these lay and in whatever form."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from lehr.data.dataset import Images
from lehr.data.labels import Ragged, one_class_each
from lehr.data.row_sets import pieces
from lehr.data.streaming import Stream

MOST_ROWS = 1_000
"""Rows of each split whose pixels are looked at, evenly spaced."""
LETTERS = 16


def fingerprint(data: Mapping[str, Images | Stream]) -> str:
    """The first 64 bits of a SHA-256 digest, in hexadecimal: of the class names, of the class of every row, and of the
    pixels and other labels of some rows.

    Of streamed rows pixels are not looked at, since that would read them all once more; so a streamed and a cached run
    differ. One changed image among more than `MOST_ROWS` may go unnoticed.
    """
    digest = hashlib.sha256()
    for split, rows in sorted(data.items()):
        shape = rows.pixels.shape[1:] if isinstance(rows, Images) else rows.shape
        digest.update(repr((split, len(rows), tuple(rows.classes), tuple(map(int, shape)))).encode())
        some = np.unique(np.linspace(0, max(0, len(rows) - 1), min(len(rows), MOST_ROWS)).astype(np.int64))
        if one_class_each(rows.labels):
            for start, end in pieces(len(rows)):
                digest.update(np.asarray(rows.labels[start:end], np.int64).tobytes())
        else:
            _add(digest, rows.labels[some])
        if isinstance(rows, Images):
            for row in some.tolist():
                digest.update(np.ascontiguousarray(rows.pixels[row]).tobytes())
    return digest.hexdigest()[:LETTERS]


def _add(digest: Any, labels: Any) -> None:
    if isinstance(labels, Ragged):
        digest.update(np.diff(labels.starts).astype(np.int64).tobytes())
        digest.update(np.ascontiguousarray(labels.values).tobytes())
    elif isinstance(labels, np.ndarray):
        for row in labels:
            digest.update(np.ascontiguousarray(row).tobytes())
