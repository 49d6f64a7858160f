"""The changes to a job for photographs as its user types them: by the fields of a training, whatever its kind is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lehr.errors import JobError

OF_A_TRAINING = ("data", "loss", "metrics", "optimizer", "schedule", "train", "callbacks", "workers")
OF_A_TRANSFER = ("backbone", "strategy", "features", "finetune", "compare_scratch", "images_per_class")

Overrides = Mapping[str, Any]


def of_transfer(overrides: Overrides) -> dict[str, Any]:
    """The changes as a transfer takes them, in which a training is `base` and its network the backbone."""
    found = {}
    for path, value in overrides.items():
        top, dot, rest = path.partition(".")
        if top in OF_A_TRAINING:
            path = f"base.{path}"
        elif top == "model":
            path = f"backbone{dot}{rest}"
        found[path] = value
    return found


def of_training(overrides: Overrides) -> dict[str, Any]:
    """The changes as a training takes them."""
    return {path.removeprefix("base."): value for path, value in overrides.items()}


@contextmanager
def told_as_typed(overrides: Overrides) -> Iterator[None]:
    """Errors raised within name the fields of the job as they are typed: `model.weights`, not `backbone.weights`."""
    try:
        yield
    except JobError as error:
        theirs = any(path.split(".")[0] in ("backbone", "base") for path in overrides)  # typed as a transfer has them
        if not theirs and not error.where.endswith((".yaml", ".yml")):
            error.field, error.what = _typed(error.field), _assignments(error.what)
            error.args = (": ".join(part for part in (error.where, error.field, error.what) if part),)
        raise


def _typed(field: str) -> str:
    field = field.removeprefix("base.") if field.split(".")[1:2] in [[name] for name in _INSIDE] else field
    return re.sub(r"^backbone(?![\w])", "model", field)


_INSIDE = (*OF_A_TRAINING, "model")


def _assignments(sentence: str) -> str:
    """The sentence with what it says to type, `base.train.epochs=…`, as it is typed here."""
    sentence = sentence.replace("the whole of backbone", "the whole of model")
    return re.sub(r"(?<![\w./-])(?:base|backbone)\.[\w.]+", lambda found: _typed(found[0]), sentence)
