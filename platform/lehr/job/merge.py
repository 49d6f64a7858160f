"""One tree merged over another: a file over the file it extends, an override over a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lehr.errors import JobError
from lehr.job.text import show
from lehr.job.tree import MAX_DEPTH, FieldPath, Location, Node, dotted, read_python, read_yaml

Forms = Mapping[FieldPath, tuple[str, Any]]
"""For each section: the key that a bare value stands for, and the default of that key."""
_BY_NAME: tuple[str, Any] = ("name", None)
_IDENTITIES = ("name", "kind")


Dropped = dict[FieldPath, dict[str, Any]]
"""By section that got another name, what it said before."""


def merge(old: Node, new: Node, forms: Forms, path: FieldPath = (), dropped: Dropped | None = None) -> Node:
    """`new` over `old`: mappings are merged key by key, anything else is replaced, and `null` removes a value.

    A section that gets another `name` or `kind` is replaced as a whole: the options of one optimizer mean nothing to
    the next. A mapping whose keys are all numbers changes single entries of a list.

    Args:
        dropped: what is lost by that, which is added to it.

    Raises:
        JobError: there is no such entry in a list.
    """
    short, default = forms.get(path, _BY_NAME)
    above, below = new, old
    if path and isinstance(new.value, dict):
        below = _spelt_out(old, short)
    elif path and isinstance(old.value, dict):
        above = _spelt_out(new, short)
    if isinstance(above.value, dict) and isinstance(below.value, list) and _only_numbers(above.value):
        return Node(_entries(below.value, above.value, forms, path, dropped), below.location)
    both = isinstance(above.value, dict) and isinstance(below.value, dict)
    renamed = both and bool(path) and _renamed(below, above, short, default)
    if renamed and dropped is not None:
        lost = ((key, node.plain()) for key, node in below.value.items() if key != short and key not in above.value)
        dropped[path] = {key: value for key, value in lost if value is not None}
    if not both or renamed:
        return new
    items = dict(below.value)
    for key, node in above.value.items():
        if key not in items:
            items[key] = node
        elif node.value is None:
            del items[key]
        else:
            items[key] = merge(items[key], node, forms, (*path, key), dropped)
    return Node(items, above.location if above.location.line else below.location)


def _spelt_out(node: Node, short: str) -> Node:
    return Node({short: node}, node.location) if isinstance(node.value, str | int | float) else node


def _renamed(old: Node, new: Node, key: str, default: Any) -> bool:
    before, after = (node.value[key].plain() if key in node.value else None for node in (old, new))
    return key in _IDENTITIES and key in new.value and (after or default) != (before or default)


def _only_numbers(keys: Mapping[str, Node]) -> bool:
    return bool(keys) and all(key.isdecimal() for key in keys)


def _entries(
    old: list[Node], new: dict[str, Node], forms: Forms, path: FieldPath, dropped: Dropped | None
) -> list[Node]:
    entries = list(old)
    for key, node in new.items():
        if len(key) > 9 or int(key) >= len(entries):
            what = f"there is no such entry; the list has {len(entries)}, counted from 0"
            raise JobError(what, field=dotted((*path, key)), where=str(node.location))
        entries[int(key)] = merge(entries[int(key)], node, forms, (*path, int(key)), dropped)
    return entries


def parse_overrides(texts: Sequence[str]) -> dict[str, Any]:
    """`["optimizer.lr=0.05", "data.augment=[shift]"]` as `{"optimizer.lr": 0.05, "data.augment": ["shift"]}`.

    Values are YAML; nothing after the `=` means null, which resets a field to its default. The last one wins.

    Raises:
        JobError: not `field=value`, or the value is not YAML.
    """
    location = Location("command line")
    values: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            what = f"{show(text)} is not an override; allowed: field=value, such as optimizer.lr=0.05"
            raise JobError(what, where=location.where)
        try:
            node = read_yaml(value, location)
        except JobError as error:
            raise JobError(error.what, field=dotted((path.strip(),)), where=location.where) from None
        values.pop(path.strip(), None)
        values[path.strip()] = None if node is None else node.plain()
    return values


def override_trees(overrides: Mapping[str, Any], location: Location) -> list[Node]:
    """One tree per override, whole sections and names before single keys, whatever their order.

    Raises:
        JobError: a path with an empty part, or a value that no file could hold.
    """
    trees = []
    for path, value in sorted(
        overrides.items(), key=lambda item: item[0].count(".") - item[0].endswith((".name", ".kind"))
    ):
        parts = path.split(".")
        if not all(parts) or len(parts) > MAX_DEPTH:
            what = f"{show(path)} is not a field; allowed: names joined by dots, such as optimizer.lr"
            raise JobError(what, where=str(location))
        if parts[0] == "extends":
            raise JobError("only a job file can extend another", field=dotted(tuple(parts)), where=str(location))
        node = read_python(value, location, tuple(parts))
        for part in reversed(parts):
            node = Node({part: node}, location)
        trees.append(node)
    return trees
