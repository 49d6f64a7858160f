"""The job for a folder of photographs as a job file, with a comment for each line."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap
from typing import Any

import yaml

WIDTH = 79

COMMENTS = {
    "transfer": {
        "kind": "start from a network that has seen other photographs",
        "backbone": "or weights: path/to/FILE.pth; name: resnet50, timm/NAME, run:NAME",
        "strategy": "features: a head on the frozen network; finetune: all of it; the better is kept",
        "data": "validation: held out to measure; flip: mirrored at random",
        "optimizer": "at its usual learning rate for pretrained weights",
        "schedule": "the learning rate rises, then falls to 0",
        "train": "as many epochs as fit into the time",
    },
    "train": {
        "kind": "from scratch: the weights of a pretrained network could not be had",
        "data": "validation: held out to measure; flip, shift: moved at random",
        "model": "a small network",
        "optimizer": "how the weights are updated",
        "schedule": "the learning rate rises, then falls to 0",
        "train": "as many epochs as fit into the time",
    },
}


def as_yaml(said: Mapping[str, Any], about: list[str]) -> str:
    """The text of a job file.

    Args:
        said: the job, as a person would write it.
        about: lines of the comment at its top.
    """
    lines = [line for each in about for line in _wrapped(each)]
    comments = COMMENTS[said["kind"]]
    if said.get("strategy") == ["features"]:
        comments = {**comments, "train": "of the finetune way, which strategy leaves out for lack of time"}
    for key, value in said.items():
        if key == "base":
            lines.append("base:")
            lines += [f"  {line}" for name, section in value.items() for line in _lines(name, section, comments)]
        else:
            lines += _lines(key, value, comments)
    return "\n".join(lines) + "\n"


def _wrapped(text: str) -> list[str]:
    """A comment; what is indented is a command and stays on one line."""
    if text.startswith(" "):
        return [f"# {text}"]
    return wrap(
        text, WIDTH, initial_indent="# ", subsequent_indent="#   ", break_long_words=False, break_on_hyphens=False
    )


def _lines(key: str, value: object, comments: Mapping[str, str]) -> list[str]:
    """A field with its comment, beside it where that fits."""
    flow = yaml.safe_dump({key: value}, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000)
    field, comment = flow.strip()[1:-1], f"# {comments[key]}" if key in comments else ""
    return [comment, field] if len(field) + len(comment) > WIDTH else [f"{field} {comment}".rstrip()]
