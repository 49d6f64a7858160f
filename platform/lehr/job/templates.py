"""The job templates that come with lehr."""

from __future__ import annotations

import re
from pathlib import Path

from lehr.errors import LehrError
from lehr.job.text import hint

MADE = ("photos",)
"""Templates without a file: what they say depends on the user's folder; see `lehr.photos`."""
FOLDER = Path(__file__).parents[1] / "jobs"


def names() -> list[str]:
    """The templates, by name."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def needed(text: str) -> list[str]:
    """The templates that a template extends, all the way down."""
    direct = [name for name in re.findall(r"extends: *([\w.-]+)\.yaml", text) if name in names()]
    return list(dict.fromkeys([*direct, *(deeper for name in direct for deeper in needed(read(name)))]))


def read(name: str) -> str:
    """The text of a template. Raises LehrError for a name that is none."""
    name = name.removesuffix(".yaml")
    if name not in names():
        raise LehrError(f'"{name}" is not a template{hint(name, [*names(), *MADE])}')
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
