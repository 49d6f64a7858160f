"""What a run says of single images, without Ray: a class with its probability."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, repeat
from typing import Any

import numpy as np
from PIL import Image

from lehr.data.decode import UnreadableImage, decode_image, size_of
from lehr.data.pixels import PixelFormat
from lehr.predict.predictor import Predictor
from lehr.predict.rows import predict
from lehr.tasks.base import Task
from lehr.tasks.classification import Classification

BATCH = 64

ImageFile = tuple[str, Callable[[], bytes]]
"""The name of an image, and what reads its bytes."""


@dataclass(frozen=True)
class Answer:
    """What a run says of one image.

    Attributes:
        name: the image's file.
        ranked: (class, probability) of every class, the most probable first; empty for an unreadable image, and where
            an image has no one class.
        figures: what is told of it, as (name, figure); empty for an unreadable image.
        content: the same for programs, where an image has no one class.
        picture: the image with what was found in it, a PNG file, of a task that draws one for people.
        problem: why the image could not be read; empty if it could.
    """

    name: str
    ranked: tuple[tuple[str, float], ...] = ()
    problem: str = ""
    figures: tuple[tuple[str, str], ...] = ()
    content: Mapping[str, Any] = field(default_factory=dict)
    picture: bytes = b""

    def told(self, top: int) -> list[tuple[str, str]]:
        """(name, figure) of the `top` most probable classes, or of all that is told where an image has no one class."""
        return [(name, f"{share:.1%}") for name, share in self.ranked[:top]] if self.ranked else list(self.figures)

    def to_json(self, top: int) -> dict[str, Any]:
        """For programs: `name`, and `class`, `probability` and the `top` classes, or `error`."""
        if self.problem:
            return {"name": self.name, "error": self.problem}
        if not self.ranked:
            return {"name": self.name, **self.content}
        name, probability = self.ranked[0]
        best = [{"class": each, "probability": share} for each, share in self.ranked[:top]]
        return {"name": self.name, "class": name, "probability": probability, "top": best}


def answers(predictor: Predictor, images: Iterable[ImageFile], side: int = 0) -> Iterator[Answer]:
    """What the run says of each image, in order. A batch of them is in memory at a time.

    Args:
        side: pixels that the longer side of a picture may have, of a task that draws one; 0: none is drawn.
    """
    waiting = iter(images)
    while batch := list(islice(waiting, BATCH)):
        pixels: list[np.ndarray] = []
        sizes: list[tuple[int, int]] = []
        read_files: list[bytes] = []
        problems: dict[int, str] = {}
        for number, (_, read) in enumerate(batch):
            try:
                encoded = read()
                pixels.append(decode_image(encoded, predictor.wanted))
                sizes.append(size_of(encoded)[::-1])
                read_files.append(encoded)
            except (UnreadableImage, OSError) as error:
                problems[number] = str(error)
        found = predict(predictor, np.stack(pixels), sizes=np.array(sizes)).probabilities if pixels else ()
        shares = zip(found, read_files if side else repeat(b""), strict=False)
        for number, (name, _) in enumerate(batch):
            problem = problems.get(number, "")
            yield Answer(name, problem=problem) if problem else answer(name, predictor.task, *next(shares), side)


def answer(name: str, task: Task[Any], values: np.ndarray, encoded: bytes = b"", side: int = 0) -> Answer:
    """The answer to a readable image, from what was predicted for it: probabilities [classes], or what the task
    gives; with a picture of it where `encoded` is the image file."""
    if isinstance(task, Classification):
        return Answer(name, tuple(task.ranked(values)))
    count = len(task.names)
    drawn = _drawn(task, values, encoded, side) if encoded else b""
    return Answer(name, figures=tuple(task.told(values, count)), content=task.to_json(values, count), picture=drawn)


def draws(task: Task[Any]) -> bool:
    """Whether a task draws what was found into an image."""
    return type(task).picture is not Task.picture


def _drawn(task: Task[Any], values: np.ndarray, encoded: bytes, side: int) -> bytes:
    """The image with what was found in it; empty for a task that draws nothing."""
    if not draws(task):
        return b""
    pixels = decode_image(encoded, PixelFormat(channels=3))
    picture = task.picture(Image.fromarray(pixels), values)
    buffer = io.BytesIO()
    if picture is not None:
        picture.thumbnail((side, side))
        picture.save(buffer, "PNG")
    return buffer.getvalue()


def counts(given: Iterable[Answer]) -> list[tuple[str, int]]:
    """How many images there are of each class, the most frequent first."""
    return Counter(each.ranked[0][0] for each in given if each.ranked).most_common()


def least_certain(given: Iterable[Answer]) -> list[Answer]:
    """The answers to readable images, those with the lowest probability first; as they are without one."""
    return sorted(
        (each for each in given if not each.problem), key=lambda each: each.ranked[0][1] if each.ranked else 0
    )
