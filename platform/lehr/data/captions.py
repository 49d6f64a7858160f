"""Captions as annotation tools write them, and as the labels of rows: COCO's JSON, and columns of text.

Captions without any word are left out, and that is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lehr.data.annotations import WrongAnnotations, entries, loaded, numbers_of, text_of, whole_number
from lehr.data.labels import Ragged
from lehr.tasks.caption_text import measured, to_bytes, words_of

FORMS = "COCO captions JSON, or a table with a column caption or text"


@dataclass(frozen=True)
class Captions:
    """The captions of a data set.

    Attributes:
        files: of the images, as the annotations name them. image_ids: of each.
        captions: of each image, one at least.
        notes: what was left out, a sentence each.
    """

    files: tuple[str, ...]
    image_ids: tuple[int, ...]
    captions: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def as_labels(rows: Sequence[Sequence[str]]) -> Ragged:
    """The labels of rows with these captions; a row may have none."""
    each = [to_bytes(row) for row in rows]
    values = np.concatenate(each) if each else np.zeros(0, np.uint8)
    return Ragged.of(values, [len(row) for row in each])


def has_words(caption: str) -> bool:
    """Whether anything is left of a caption without its punctuation."""
    return bool(measured(words_of(caption)))


def read_captions(content: bytes) -> Captions:
    """The captions of a file `captions_….json`, of images in the order of their ids. Raises WrongAnnotations."""
    whole = loaded(content)
    form = "COCO captions JSON, with images and annotations"
    images, annotations = entries(whole, "images", form), entries(whole, "annotations", form)
    images = sorted(images, key=lambda each: whole_number(each, "id", "an image"))
    number_of = numbers_of(images, "image")
    files = [text_of(each, "file_name", "an image") for each in images]
    if twice := [name for name, count in Counter(files).items() if count > 1]:
        raise WrongAnnotations(f"the image {twice[0]} is there twice; allowed: each image once")
    found: list[list[str]] = [[] for _ in images]
    empty = 0
    for each in annotations:
        where = f"annotation {each.get('id', '?')}"
        if (image := number_of.get(whole_number(each, "image_id", where))) is None:
            raise WrongAnnotations(f"{where} is of image {each['image_id']}, which is not among the images")
        caption = _caption(each, where)
        if has_words(caption):
            found[image].append(" ".join(caption.split()))
        else:
            empty += 1
    numbers_of([each for each in annotations if "id" in each], "annotation")
    kept = [number for number, captions in enumerate(found) if captions]
    if not kept:
        raise WrongAnnotations("none of its images has a caption with a word; allowed: one at least for each image")
    notes = [f"{empty:,} captions have no word and are left out"] if empty else []
    if len(kept) < len(images):
        notes.append(f"{len(images) - len(kept):,} of {len(images):,} images have no caption and are left out")
    ids = list(number_of)
    captions = tuple(tuple(found[number]) for number in kept)
    return Captions(tuple(files[n] for n in kept), tuple(ids[n] for n in kept), captions, tuple(notes))


def _caption(annotation: Mapping[str, Any], where: str) -> str:
    if "caption" not in annotation and ("bbox" in annotation or "segmentation" in annotation):
        what = f"{where} has a box and no caption"
        raise WrongAnnotations(f"{what}; allowed: the file with captions, or task: detection")
    caption = annotation.get("caption")
    if not isinstance(caption, str):
        raise WrongAnnotations(f"{where} has the caption {caption!r:.60}; allowed: text")
    return caption
