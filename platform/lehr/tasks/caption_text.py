"""Captions as text: how the captions of a row lie in memory, and what its words are. No torch: sources need it too.

The captions of a row are one array of bytes, UTF-8 with a line for each, so that they travel as boxes do
(`lehr.data.labels.Ragged`) and do not depend on a vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

_WORD = re.compile(r"\w+(?:[-'’.]\w+)*|[^\w\s]")
_PUNCTUATION = re.compile(r"[^\w]+")
_NO_SPACE_BEFORE = re.compile(r" ([,.;:!?)\]}%…])")
_NO_SPACE_AFTER = re.compile(r"([(\[{$£€#]) ")


def to_bytes(captions: Sequence[str]) -> np.ndarray:
    """uint8: the captions of one row, a line for each."""
    text = "\n".join(" ".join(each.split()) for each in captions)
    return np.frombuffer(text.encode("utf-8", "replace"), np.uint8)


def from_bytes(row: np.ndarray) -> list[str]:
    """The inverse: the captions of a row; one empty one where it has none."""
    return row.astype(np.uint8).tobytes().replace(b"\0", b"").decode("utf-8", "replace").split("\n")


def words_of(text: str) -> list[str]:
    """In lower case; each punctuation mark is a word of its own, but for those inside a word: `t-shirt`, `2.5`."""
    return _WORD.findall(text.lower())


def measured(words: Iterable[str]) -> tuple[str, ...]:
    """The words by which captions are compared: all but punctuation, as COCO's own evaluation has it."""
    return tuple(word for word in words if not _PUNCTUATION.fullmatch(word))


def sentence(words: Sequence[str]) -> str:
    """The inverse of `words_of`, but for capital letters."""
    return _NO_SPACE_AFTER.sub(r"\1", _NO_SPACE_BEFORE.sub(r"\1", " ".join(words)))
