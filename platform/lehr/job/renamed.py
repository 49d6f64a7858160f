"""Fields that have a new name. An old spelling still works, and each load says so once, on one line of stderr.

This is the only location that knows an old spelling: the sections, the schema and the documentation have the new names.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lehr.errors import JobError
from lehr.job.tree import FieldPath, Location, Node, dotted

RENAMED = (  # section, old name, new name
    ("train", "clip", "max_gradient_norm"),
    ("train", "accumulate", "gradient_accumulation"),
    ("train", "clean_subset", "evaluated_training_rows"),
    ("schedule", "final", "end_factor"),
    ("schedule", "start", "start_factor"),
    ("finetune", "rate", "lr_factor"),
    ("finetune", "decay", "layer_decay"),
    ("recipe", "sweep", "range_test"),
)

Names = Mapping[tuple[str, ...], str]
"""For each field of a training, by its path: the name that it gets."""
_NEW: Names = {(section, old): new for section, old, new in RENAMED}
_OLD: Names = {(section, new): old for section, old, new in RENAMED}
_HOLDS_TRAINING = ("base", "space", "members")
"""Fields of a job that hold a training, or changes to one."""
_OF_A_DIMENSION = ("grid", "choice")
"""Fields of a dimension of a search space that hold values of the field it is named after."""


class Renaming:
    """Replaces old names in the trees of one load, and collects what to say about them."""

    def __init__(self) -> None:
        self._found: dict[str, None] = {}

    def tree(self, tree: Node) -> Node:
        """The tree with the new names. Raises JobError where a field is given under both."""
        return self._tree(tree, ())

    def overrides(self, trees: Sequence[Node]) -> list[Node]:
        """Trees of one override each, with the new names. Raises JobError where a field is given under both."""
        renamed = [self.tree(tree) for tree in trees]
        given = {_only_path(tree) for tree in trees}
        for before, after in zip(trees, renamed, strict=True):
            path = _only_path(before)
            if _only_path(after) != path and _only_path(after) in given:
                raise _both(path, before.locate(path))
        return renamed

    def tell(self) -> None:
        """Says on stderr, on one line, which old names were found."""
        if self._found:
            print("; ".join(self._found), file=sys.stderr)

    def _tree(self, tree: Node, path: FieldPath) -> Node:
        if isinstance(tree.value, list):
            return Node([self._tree(item, (*path, at)) for at, item in enumerate(tree.value)], tree.location)
        if not isinstance(tree.value, dict):
            return tree
        items: dict[str, Node] = {}
        for key, item in tree.value.items():
            at = (*path, key)
            if (name := _renamed(at, _NEW)) != key:
                if name in tree.value:
                    raise _both(at, item.location)
                self._found[f"{item.location}: ".removeprefix(": ") + "{} is now called {}".format(*_names(at))] = None
            items[name] = self._tree(item, at)
        return Node(items, tree.location)


def with_new_names(job: Mapping[str, Any]) -> dict[str, Any]:
    """A job that any version of lehr wrote, or changes to one by dotted path, with the new names of its fields."""
    renamed: dict[str, Any] = _plain(job, (), _NEW)
    return renamed


def as_it_was_meant(job: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved job of a run as this version would say it: with the present names, and where it comes from a version
    that gave published weights images of the size in the source, with what asks for that."""
    job = with_new_names(job)
    base = job.get("base")
    if isinstance(base, Mapping):
        job = {**job, "base": as_it_was_meant(base)}
    model = job.get("model")
    if isinstance(model, Mapping) and "preprocessing" not in model:
        weights = model.get("weights")
        if isinstance(weights, str) and not weights.startswith("run:"):
            job = {**job, "model": {**model, "preprocessing": {"resize": "squash"}}}
    return job


def with_first_names(job: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the first names of its fields: for what must not change when a field is renamed."""
    renamed: dict[str, Any] = _plain(job, (), _OLD)
    return renamed


def first_name(path: str) -> str:
    """The dotted path of a field with its first name."""
    return _renamed((path,), _OLD)


def _plain(value: Any, path: FieldPath, names: Names) -> Any:
    if isinstance(value, Mapping):
        items = ((str(key), item) for key, item in value.items())
        return {_renamed((*path, key), names): _plain(item, (*path, key), names) for key, item in items}
    if isinstance(value, list):
        return [_plain(item, (*path, at), names) for at, item in enumerate(value)]
    return value


def _renamed(path: FieldPath, names: Names) -> str:
    """The new name of the last key of `path`. A key may itself be a dotted path, as in a search space."""
    above, dot, last = str(path[-1]).rpartition(".")
    name = names.get(_in_training(path))
    return f"{above}{dot}{name}" if name and last not in _OF_A_DIMENSION else str(path[-1])


def _in_training(path: FieldPath) -> tuple[str, ...]:
    """The path of a field within the training that it belongs to: `space.schedule.choice.1.final` is schedule.final."""
    parts = [word for part in path if isinstance(part, str) for word in part.split(".") if not word.isdecimal()]
    if "when" in parts:  # it names other fields of the training
        parts = parts[len(parts) - parts[::-1].index("when") :]
    while parts and parts[0] in _HOLDS_TRAINING:
        parts = parts[1:]
    return tuple(part for part in parts if part not in _OF_A_DIMENSION)


def _names(path: FieldPath) -> tuple[str, str]:
    """The old and the new path, within its training, of the field with an old name at `path`."""
    section, old = _in_training(path)
    return f"{section}.{old}", f"{section}.{_NEW[section, old]}"


def _only_path(tree: Node) -> FieldPath:
    """The path to the first node that is not a mapping of one entry: the field that an override sets."""
    path: FieldPath = ()
    while isinstance(tree.value, dict) and len(tree.value) == 1:
        [(key, tree)] = tree.value.items()
        path = (*path, key)
    return path


def _both(path: FieldPath, location: Location) -> JobError:
    _, new = _names(path)
    what = f"is the old name of {new}, which is given too; allowed: {new} alone"
    return JobError(what, field=dotted(path), where=str(location))
