"""What a run says of single images, without Ray: a class with its probability."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from lehr.data.decode import UnreadableImage, decode_image, size_of
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
        problem: why the image could not be read; empty if it could.
    """

    name: str
    ranked: tuple[tuple[str, float], ...] = ()
    problem: str = ""
    figures: tuple[tuple[str, str], ...] = ()
    content: Mapping[str, Any] = field(default_factory=dict)

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


def answers(predictor: Predictor, images: Iterable[ImageFile]) -> Iterator[Answer]:
    """What the run says of each image, in order. A batch of them is in memory at a time."""
    waiting = iter(images)
    while batch := list(islice(waiting, BATCH)):
        pixels: list[np.ndarray] = []
        sizes: list[tuple[int, int]] = []
        problems: dict[int, str] = {}
        for number, (_, read) in enumerate(batch):
            try:
                encoded = read()
                pixels.append(decode_image(encoded, predictor.wanted))
                sizes.append(size_of(encoded)[::-1])
            except (UnreadableImage, OSError) as error:
                problems[number] = str(error)
        shares = iter(predict(predictor, np.stack(pixels), sizes=np.array(sizes)).probabilities if pixels else ())
        for number, (name, _) in enumerate(batch):
            problem = problems.get(number, "")
            yield Answer(name, problem=problem) if problem else answer(name, predictor.task, next(shares))


def answer(name: str, task: Task[Any], values: np.ndarray) -> Answer:
    """The answer to a readable image, from what was predicted for it: probabilities [classes], or what the task
    gives."""
    if isinstance(task, Classification):
        return Answer(name, tuple(task.ranked(values)))
    return Answer(
        name, figures=tuple(task.told(values, len(task.names))), content=task.to_json(values, len(task.names))
    )


def counts(given: Iterable[Answer]) -> list[tuple[str, int]]:
    """How many images there are of each class, the most frequent first."""
    return Counter(each.ranked[0][0] for each in given if each.ranked).most_common()


def least_certain(given: Iterable[Answer]) -> list[Answer]:
    """The answers to readable images, those with the lowest probability first; as they are without one."""
    return sorted(
        (each for each in given if not each.problem), key=lambda each: each.ranked[0][1] if each.ranked else 0
    )
