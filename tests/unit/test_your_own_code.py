"""Every example of the page "Your own code" runs as it stands there, and every kind of own code has one."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import lehr
from lehr import own_modules
from lehr.cli.main import app
from lehr.runs import RunFolder

PAGE = Path(lehr.__file__).with_name("YOUR_OWN_CODE.md")
TINY = ("data.limit=100", "train.epochs=2", "train.batch_size=32", "train.evaluated_training_rows=0")


@dataclass(frozen=True)
class Example:
    """A section of the page: the files it shows, by name, and its commands."""

    heading: str
    files: dict[str, str]
    commands: tuple[str, ...]

    def __str__(self) -> str:
        return self.heading


def examples() -> list[Example]:
    found = []
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        blocks = re.findall(r"^```(\w+)\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
        files = {re.match(r"# (\S+)\n", text)[1]: text for kind, text in blocks if kind != "sh"}  # type: ignore[index]
        commands = [line for kind, text in blocks if kind == "sh" for line in text.splitlines()]
        found.append(Example(section.partition("\n")[0], files, tuple(commands)))
    return found


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(own_modules, "_places", [])
    yield
    for name in {name for name in sys.modules if name.startswith("my_")} - before:
        del sys.modules[name]


def _marked(example: Example) -> Any:
    needs_ray = any("--debug" not in command for command in example.commands)
    no_lightning = "lightning" in "".join(example.files.values()) and not importlib.util.find_spec("lightning")
    skip = pytest.mark.skipif(no_lightning, reason="lightning is not installed: pip install 'lehr[lightning]'")
    return pytest.param(example, marks=[skip, *([pytest.mark.ray, pytest.mark.slow] if needs_ray else [])])


@pytest.mark.parametrize("example", list(map(_marked, examples())), ids=lambda example: str(example))
def test_the_example_runs_as_it_stands_there(example: Example, tmp_path: Path) -> None:
    for name, text in example.files.items():
        Path(name).write_text(text)
    assert example.commands
    for command in example.commands:
        word, *words = shlex.split(command)
        assert word == "lehr"
        app([*words, *TINY], standalone_mode=False, prog_name="lehr")
    runs = [RunFolder.open(folder) for folder in Path("runs").iterdir()]
    assert runs
    assert all(run.progress().status == "finished" for run in runs)


def test_every_kind_of_own_code_has_an_example() -> None:
    page = PAGE.read_text()
    anchors = re.findall(r"\]\(#([\w-]+)\)", page.partition("\n## ")[0])
    headings = [example.heading.lower().replace(" ", "-") for example in examples()]
    assert sorted(anchors) == sorted(headings)
