"""What a run says of single images, without Ray: a class with its probability."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from lehr.data.decode import UnreadableImage, decode_image
from lehr.predict.predictor import Predictor
from lehr.predict.rows import predict

BATCH = 64

ImageFile = tuple[str, Callable[[], bytes]]
"""The name of an image, and what reads its bytes."""


@dataclass(frozen=True)
class Answer:
    """What a run says of one image.

    Attributes:
        name: the image's file.
        ranked: (class, probability) of every class, the most probable first; empty for an unreadable image.
        problem: why the image could not be read; empty if it could.
    """

    name: str
    ranked: tuple[tuple[str, float], ...] = ()
    problem: str = ""

    def to_json(self, top: int) -> dict[str, Any]:
        """For programs: `name`, and `class`, `probability` and the `top` classes, or `error`."""
        if self.problem:
            return {"name": self.name, "error": self.problem}
        name, probability = self.ranked[0]
        best = [{"class": each, "probability": share} for each, share in self.ranked[:top]]
        return {"name": self.name, "class": name, "probability": probability, "top": best}


def answers(predictor: Predictor, images: Iterable[ImageFile]) -> Iterator[Answer]:
    """What the run says of each image, in order. A batch of them is in memory at a time."""
    waiting = iter(images)
    while batch := list(islice(waiting, BATCH)):
        pixels: list[np.ndarray] = []
        problems: dict[int, str] = {}
        for number, (_, read) in enumerate(batch):
            try:
                pixels.append(decode_image(read(), predictor.wanted))
            except (UnreadableImage, OSError) as error:
                problems[number] = str(error)
        shares = iter(predict(predictor, np.stack(pixels)).probabilities if pixels else ())
        for number, (name, _) in enumerate(batch):
            problem = problems.get(number, "")
            yield Answer(name, problem=problem) if problem else answer(name, predictor.classes, next(shares))


def answer(name: str, classes: Sequence[str], shares: np.ndarray) -> Answer:
    """The answer to a readable image, from its probabilities [classes]."""
    ordered = np.argsort(-shares, kind="stable")
    return Answer(name, tuple((classes[number], float(shares[number])) for number in ordered))


def counts(given: Iterable[Answer]) -> list[tuple[str, int]]:
    """How many images there are of each class, the most frequent first."""
    return Counter(each.ranked[0][0] for each in given if each.ranked).most_common()


def least_certain(given: Iterable[Answer]) -> list[Answer]:
    """The answers to readable images, those with the lowest probability first."""
    return sorted((each for each in given if each.ranked), key=lambda each: each.ranked[0][1])
