"""A job file, an override or a Python mapping as a tree whose nodes know where they come from.

The YAML is strict: only `true` and `false` are booleans (`no` and `on` are text), `1e-4` is a number, a key may appear
once, tags are refused, and so are aliases that blow up.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from lehr.durations import Duration
from lehr.errors import JobError
from lehr.job.text import printable, show

FieldPath = tuple[str | int, ...]
MAX_NODES, MAX_DEPTH = 20_000, 32
_LARGEST = 2**63 - 1
_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"


@dataclass(frozen=True)
class Location:
    """Where a value comes from: a line of a file, `command line`, or a Python caller (then `where` is empty).

    Relative paths are relative to `folder`.
    """

    where: str = ""
    line: int | None = None
    folder: Path = field(default_factory=Path.cwd)

    def __str__(self) -> str:
        return f"{self.where}:{self.line}" if self.line else self.where


@dataclass(frozen=True)
class Node:
    """A value and its location. Mappings are dict[str, Node], lists are list[Node]."""

    value: Any
    location: Location

    def plain(self) -> Any:
        """The value without locations."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        return [node.plain() for node in self.value] if isinstance(self.value, list) else self.value

    def trail(self, path: FieldPath) -> list[Node]:
        """The nodes along `path` as far as they exist, this one first."""
        nodes = [self]
        for part in path:
            here = nodes[-1].value
            keys = here if isinstance(here, dict) else range(len(here)) if isinstance(here, list) else ()
            if part not in keys:
                break
            nodes.append(here[part])
        return nodes

    def find(self, path: FieldPath) -> Node | None:
        """The node at exactly `path`, if there is one."""
        nodes = self.trail(path)
        return nodes[-1] if len(nodes) == len(path) + 1 else None

    def locate(self, path: FieldPath) -> Location:
        """The location of `path` or of its nearest ancestor in the tree; the whole file if there is none."""
        nodes = self.trail(path)
        return nodes[-1].location if len(nodes) > 1 else Location(self.location.where, None, self.location.folder)


def dotted(path: FieldPath) -> str:
    """The path on one line, as messages show it."""
    return printable(".".join(map(str, path)))[:200]


@dataclass
class _Reader:
    """Turns YAML nodes or Python values into `Node`s, within bounds."""

    location: Location
    left: int = MAX_NODES

    def check(self, path: FieldPath, location: Location) -> None:
        self.left -= 1
        if self.left < 0:
            raise JobError(f"more than {MAX_NODES} values, aliases counted each time", where=str(self.location))
        if len(path) > MAX_DEPTH:
            raise JobError(_TOO_DEEP, where=str(location), field=dotted(path[:1]))

    def scalar(self, value: Any, path: FieldPath, location: Location) -> Node:
        if isinstance(value, str) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
            raise JobError("holds a character that is not text", where=str(location), field=dotted(path))
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise JobError(f"{show(value)} is larger than any field takes", where=str(location), field=dotted(path))
        return Node(value, location)

    def from_python(self, value: Any, path: FieldPath = ()) -> Node:
        self.check(path, self.location)
        if isinstance(value, BaseModel):
            value = value.model_dump(mode="json")
        if isinstance(value, Mapping):
            items = {str(key): item for key, item in value.items()}
            return Node({key: self.from_python(item, (*path, key)) for key, item in items.items()}, self.location)
        if isinstance(value, list | tuple):
            return Node([self.from_python(item, (*path, i)) for i, item in enumerate(value)], self.location)
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if isinstance(value, Duration):
            value = str(value)
        if value is not None and not isinstance(value, str | int | float):
            raise JobError(
                f"{show(value)} is not a value that a job file can hold", where=str(self.location), field=dotted(path)
            )
        return self.scalar(value, path, self.location)

    def from_yaml(self, node: yaml.Node, path: FieldPath, location: Location) -> Node:
        self.check(path, location)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            items: dict[str, Node] = {}
            for key, item in node.value:
                here = self.at(key)
                if not isinstance(key, yaml.ScalarNode):
                    raise JobError("a key must be plain text", where=str(here), field=dotted(path))
                if key.value in items:
                    first = items[key.value].location.line
                    what = f"said twice, first on line {first}" if first else "said twice"
                    raise JobError(what, where=str(here), field=dotted((*path, key.value)))
                self.scalar(key.value, path, here)
                items[key.value] = self.from_yaml(item, (*path, key.value), here)
            return Node(items, location)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return Node(
                [self.from_yaml(item, (*path, i), self.at(item)) for i, item in enumerate(node.value)], location
            )
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            try:
                return self.scalar(_SCALARS[node.tag](node.value), path, location)
            except ValueError:
                what = f"{show(node.value)} is not a number that can be used"
                raise JobError(what, where=str(location), field=dotted(path)) from None
        tag = printable(node.tag.replace(_TAG, "!!"))
        raise JobError(f"the tag {tag} is not allowed; write plain YAML", where=str(location), field=dotted(path))

    def at(self, node: yaml.Node) -> Location:
        line = node.start_mark.line + 1 if self.location.line else None
        return Location(self.location.where, line, self.location.folder)


_TAG = "tag:yaml.org,2002:"
_SCALARS: dict[str, Any] = {
    _TAG + "null": lambda text: None,
    _TAG + "bool": lambda text: text.lower() == "true",
    _TAG + "int": lambda text: int(text, 0 if text[:2] in ("0x", "0o") else 10),
    _TAG + "float": lambda text: float(re.sub(r"^([-+]?)\.(inf|nan)$", r"\1\2", text.lower())),
    _TAG + "str": str,
}


class _Loader(yaml.SafeLoader):
    """The core schema of YAML 1.2 instead of the guesses of YAML 1.1; it only composes, nothing is constructed."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:  # refused here already: the parser's time grows with the square of the depth
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem=_TOO_DEEP, problem_mark=event.start_mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


for _kind, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
):
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(f"(?:{_pattern})\\Z"), _first)

_PROBLEMS = (  # what PyYAML says, and what it means for a person
    (r"mapping values are not allowed", 'a second ": " on one line; start a new line, or put the text in quotes'),
    (r"could not find expected ':'", 'a line without ": " between its field and its value'),
    (r"'\\t'", "a tab where YAML wants spaces"),
    (r"expected ',' or '\]'", "a list [ … ] is not closed"),
    (r"expected ',' or '}'", "a mapping { … } is not closed"),
    (r"expected <block end>", "the indentation does not fit the lines above"),
    (r"unexpected end of stream", "a quote is not closed"),
    (r"found undefined alias '?(.*?)'?$", r"the alias *\1 has no anchor &\1; text that starts with * needs quotes"),
    (r"found another document", "more than one document; a job is one"),
    (r"found character '(.)' that cannot start", r'a value cannot start with "\1"; put it in quotes'),
)


def read_yaml(text: str, location: Location) -> Node | None:
    """The tree of one YAML document, or None if it is empty.

    Raises:
        JobError: not the YAML of a job; the sentence says the line, counted when `location.line` is set.
    """
    reader = _Reader(location)
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _broken(location, line, "holds a character that is not text") from None
    except yaml.MarkedYAMLError as error:
        mark, problem = error.problem_mark or error.context_mark, str(error.problem)
        for pattern, meaning in _PROBLEMS:
            if match := re.search(pattern, problem):
                problem = match.expand(meaning)
                break
        raise _broken(location, mark.line + 1 if mark else None, f"not valid YAML: {problem}") from None
    return None if root is None else reader.from_yaml(root, (), reader.at(root))


def _broken(location: Location, line: int | None, what: str) -> JobError:
    return JobError(
        printable(what), where=str(Location(location.where, line if location.line else None, location.folder))
    )


def read_python(value: Any, location: Location, path: FieldPath = ()) -> Node:
    """The tree of a Python value.

    Raises:
        JobError: nested too deeply, too many values, or a value that no file could hold.
    """
    return _Reader(location).from_python(value, path)
