"""From a job file or a Python mapping, with what it extends and its overrides, to a typed job."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from lehr import trust
from lehr.errors import JobError
from lehr.job.base import Job, Origin, absolute
from lehr.job.compare import NOT_DEFINING, to_dict
from lehr.job.folds import FoldsJob
from lehr.job.kinds import KINDS
from lehr.job.merge import Dropped, Forms, merge, override_trees, parse_overrides
from lehr.job.messages import explain
from lehr.job.renamed import Renaming
from lehr.job.sections import Section
from lehr.job.text import nearest, not_a_choice, printable, show
from lehr.job.training import NOT_OF_A_BASE, Training, TrainJob
from lehr.job.tree import FieldPath, Location, Node, dotted, read_python, read_yaml

MAX_BYTES = 1_000_000
Overrides = Mapping[str, Any] | Sequence[str]


def load(path: str | os.PathLike[str], overrides: Overrides = ()) -> Job:
    """The job that a file describes, with `overrides` applied. The user gives it: what it names may run.

    Args:
        path: a YAML file; it may have `extends: base.yaml`, relative to itself. A base's `name` is not inherited.
        overrides: `{"optimizer.lr": 0.05}` or `["optimizer.lr=0.05"]`. A None or empty value resets to the default.

    Raises:
        JobError: one sentence that says the file and line (or `command line`), the field and what is allowed.
    """
    file = Path(absolute(os.fspath(path), Path.cwd()))
    tree = _read(file)
    values = changes_of(overrides)
    name = default_name(file.stem, values)
    origin = Origin(file.parent, _shown(file), name, file=str(file), overrides=values)
    job = _build(_with_bases(tree, [file]), values, Location("command line"), origin)
    trust.give(to_dict(job))
    return job


def from_dict(mapping: Mapping[str, Any], overrides: Overrides = (), *, named: str = "") -> Job:
    """The job that a mapping describes; relative paths, and a base it extends, are relative to the current folder.

    The mapping may be that of a run, so code that it names is not allowed to run by this; see `lehr.trust`.

    Args:
        overrides: changes to it, as for `load`.
        named: the name of its run, where it has none of its own: a number may be added to it.

    Raises:
        JobError: one sentence that says the field and what is allowed.
    """
    if not isinstance(mapping, Mapping):
        raise JobError(f"{show(mapping)} is not a job; allowed: a mapping such as {{'kind': 'train'}}")
    tree = read_python(mapping, Location())
    return _build(_with_bases(tree, []), changes_of(overrides), Location(), Origin(default_name=named))


def changes_of(overrides: Overrides) -> dict[str, Any]:
    """Changes to a job as a mapping from dotted paths, however they are given. Raises JobError."""
    if isinstance(overrides, Mapping):
        return {str(path): value for path, value in overrides.items()}
    return parse_overrides([overrides] if isinstance(overrides, str) else overrides)


def _build(
    trees: list[Node], overrides: Mapping[str, Any], said: Location, origin: Origin, *, told: bool = True
) -> Job:
    """The trees merged, the base first, and validated as the kind of job that the last of them names.

    Args:
        told: a person says all this, and is told what a new name of a section drops, should that be the mistake.
    """
    renaming = Renaming()
    trees = [*map(renaming.tree, trees), *renaming.overrides(override_trees(overrides, said))]
    kinds = [tree.value["kind"] for tree in trees if "kind" in tree.value and tree.value["kind"].value is not None]
    kind = kinds[-1].plain() if kinds else "train"
    if kind in ("train", "folds"):
        kind = _with_or_without_folds(kind, trees)
    if not isinstance(kind, str) or kind not in KINDS:
        raise JobError(not_a_choice(kind, "kind", KINDS), field="kind", where=str(kinds[-1].location))
    cls, forms = KINDS[kind], _forms(KINDS[kind])
    tree, *above = (_with_inner_bases(tree, cls, renaming) for tree in trees)
    renaming.tell()
    dropped: Dropped = {}
    for node in above:
        for key in _inner(cls):
            if key in node.value and "kind" in node.value[key].value:  # a whole train job replaces another
                tree.value.pop(key, None)
        tree = merge(tree, node, forms, dropped=dropped)
    for key in _inner(cls):
        for of_its_run in NOT_OF_A_BASE:
            if key in tree.value:
                tree.value[key].value.pop(of_its_run, None)
    tree = Node(tree.value, Location(origin.source, None, origin.folder))
    try:
        job = cls.model_validate(tree.plain(), context={"folder_of": lambda path: _folder(tree, path)})
    except ValidationError as error:
        raise explain(error, cls, tree) from None
    except JobError as error:  # about a field, from a check of the whole job, which does not know the lines
        path = tuple(int(part) if part.isdecimal() else part for part in error.field.split("."))
        raise JobError(error.what, field=error.field, where=error.where or str(tree.locate(path))) from None
    job._origin = dataclasses.replace(origin, tree=tree, dropped=_still_missing(dropped, tree) if told else {})
    return job


def _with_or_without_folds(kind: str, trees: list[Node]) -> str:
    """The kind of a train job, by what is said last of `folds`: a number, or that there are none. Changes the trees."""
    said = [tree.value["folds"] for tree in trees if "folds" in tree.value]
    if not said:
        return kind
    for tree in trees:
        if said[-1].value is None and kind == "train":
            tree.value.pop("folds", None)
        elif "kind" in tree.value and tree.value["kind"].value == "train":
            tree.value["kind"] = Node("folds", tree.value["kind"].location)
    return kind if said[-1].value is None else "folds"


def _still_missing(dropped: Dropped, tree: Node) -> dict[FieldPath, str]:
    """What a new name of a section dropped and nothing said again, as a person would type it."""
    found = {}
    for path, said in dropped.items():
        missing = {(*path, key): value for key, value in said.items() if tree.find((*path, key)) is None}
        if missing:
            found[path] = " ".join(f"{dotted(field)}={show(value)}" for field, value in missing.items())
    return found


def _folder(tree: Node, path: FieldPath) -> Path:
    node = tree.find(path)
    return node.location.folder if node else Path.cwd()


def _forms(model: type[BaseModel], at: FieldPath = ()) -> Forms:
    """What `merge` needs to know of the sections of a kind of job."""
    forms: dict[FieldPath, tuple[str, Any]] = {}
    for key, info in model.model_fields.items():
        default = info.get_default(call_default_factory=True)
        forms[(*at, key)] = ("name", getattr(default, "name", None))
        for section in (info.annotation, *get_args(info.annotation)):  # a section, or a section or None
            if isinstance(section, type) and issubclass(section, Section):
                if section.short:
                    forms[(*at, key)] = (section.short, section.model_fields[section.short].default)
                forms |= _forms(section, (*at, key))
    return forms


def derive(base: Training, overrides: Mapping[str, Any], *, parent: Job, name: str) -> TrainJob:
    """A train job made of the `base` of another job.

    Args:
        overrides: changes to it by dotted path.
        parent: the job whose child this is: its folder holds the user's modules.
        name: the child's folder inside the parent's run folder, such as `trials/0007`.

    Raises:
        JobError: an override that the job cannot have; `field` is its path in the train job.
    """
    tree = read_python({key: value for key, value in to_dict(base).items() if key in Training.model_fields}, Location())
    origin = Origin(parent.folder, parent.source, name)
    job = _build([tree], {**overrides, "storage": parent.storage, "kind": "train"}, Location(), origin, told=False)
    assert isinstance(job, TrainJob)
    if calls := trust.calls_of(to_dict(job)):
        trust.allow_derived(trust.calls_of(to_dict(parent)), calls)
    return job


def fold_job(job: FoldsJob, number: int) -> TrainJob:
    """The training of one fold, from 1: what the job says, with `data.fold`."""
    changes = {"data.fold": f"{number}/{job.folds}"}
    return derive(job, changes, parent=job, name=f"folds/{number:02}")


def training_in(job: Job, name: str) -> TrainJob | None:
    """The training that a job is, or what its trainings have in common: its base, or its first fold; None for none.

    Args:
        name: of the derived job, for messages.
    """
    if isinstance(job, TrainJob):
        return job
    if isinstance(job, FoldsJob):
        return fold_job(job, 1)
    base = getattr(job, "base", None)
    return derive(base, {}, parent=job, name=name) if isinstance(base, Training) else None


def _inner(cls: type[Job]) -> list[str]:
    """The fields of a kind of job that hold a whole training."""
    return [name for name, info in cls.model_fields.items() if info.annotation is Training]


def _with_inner_bases(tree: Node, cls: type[Job], renaming: Renaming) -> Node:
    """The tree with each training in it in full: the name of a file, or `extends` in it, is replaced by the file."""
    items = dict(tree.value)
    for key in _inner(cls):
        said = items.get(key)
        if said is None or said.value is None:
            continue
        if isinstance(said.value, str):
            said = Node({"extends": said}, said.location)
        if not isinstance(said.value, dict):
            what = f"{show(said.plain())} is not a training; allowed: the file of a train job, or its sections"
            raise JobError(what, field=key, where=str(said.location))
        whole, *above = map(renaming.tree, _with_bases(said, []))
        for node in above:
            whole = merge(whole, node, _forms(Training))
        kind = whole.value.get("kind")
        if kind is not None and kind.value not in (None, "train"):
            what = f"{key} is a job of kind {show(kind.plain())}; allowed: kind: train"
            raise JobError(what, field=f"{key}.kind", where=str(kind.location))
        if "extends" in said.value:
            whole.value["kind"] = Node("train", said.location)
        items[key] = whole
    return Node(items, tree.location)


def _with_bases(tree: Node, chain: list[Path]) -> list[Node]:
    """The tree and everything it extends, the deepest base first. `chain` is the files on the way here."""
    said = tree.value.get("extends")
    tree = Node({key: node for key, node in tree.value.items() if key != "extends"}, tree.location)
    if said is None or said.value is None:
        return [tree]
    where = str(said.location)
    if not isinstance(said.value, str) or not said.value:
        raise JobError(f"{show(said.plain())} is not a file; allowed: a job file", field="extends", where=where)
    file = Path(absolute(said.value, said.location.folder))
    if file in chain:
        circle = " -> ".join(_shown(step) for step in [*chain[chain.index(file) :], file])
        raise JobError(f"a circle: {circle}", field="extends", where=where)
    base = _read(file, asked=where)
    base.value.pop("name", None)  # a name belongs to one run folder, not to all that extend it
    return [*_with_bases(base, [*chain, file]), tree]


def _read(file: Path, asked: str = "") -> Node:
    """The tree of one job file. `asked` is the line that extends it, to which the error about a missing file points."""
    shown = printable(_shown(file))

    def unreadable(why: str) -> JobError:
        return JobError(f"{shown}: {why}", field="extends", where=asked) if asked else JobError(why, where=shown)

    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise unreadable(f"no such file{_neighbour(file)}") from None
    except IsADirectoryError:
        raise unreadable("a folder, not a job file") from None
    except (OSError, ValueError) as error:
        raise unreadable(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > MAX_BYTES:
        raise unreadable(f"larger than {MAX_BYTES // 1_000_000} MB; a job file is a few lines of text")
    try:
        tree = read_yaml(raw.decode("utf-8-sig"), Location(shown, 1, file.parent))
    except UnicodeDecodeError:
        raise unreadable("not a text file in UTF-8") from None
    if tree is None or tree.value in (None, {}):
        raise unreadable("an empty job; the least it needs is one line: kind: train")
    if not isinstance(tree.value, dict):
        what = f"{show(tree.plain())} is not a job; allowed: lines of field: value, such as kind: train"
        raise JobError(what, where=str(tree.location))
    return tree


def _shown(file: Path) -> str:
    """The file as messages show it: relative inside the current folder, else absolute."""
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)


def _neighbour(file: Path) -> str:
    try:
        names = [entry.name for entry in file.parent.iterdir() if entry.suffix in (".yaml", ".yml")]
    except (OSError, ValueError):
        return ""
    near = nearest(file.name, names)
    return f"; did you mean {_shown(file.parent / near)}?" if near else ""


def default_name(stem: str, overrides: Mapping[str, Any]) -> str:
    """The file's stem and a slug of what the overrides define: `train` + optimizer.lr=0.05 is `train-lr-0.05`."""
    defining = sorted(path for path in overrides if path.split(".")[0] not in NOT_DEFINING)
    slug = "-".join(f"{path.rpartition('.')[2]}-{_word(overrides[path])}" for path in defining)
    parts = [_clean(stem).lstrip("."), _shorten(_clean(slug), 60)]
    return _shorten("-".join(filter(None, parts)) or "job", 91)


def _word(value: Any) -> str:
    if isinstance(value, str):
        return value
    text = "default" if value is None else json.dumps(value, default=str)
    return _clean(text) if isinstance(value, list | tuple | Mapping) else text


def _clean(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")


def _shorten(text: str, limit: int) -> str:
    """The text itself, or its start and 8 hex digits of the whole."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return text if len(text) <= limit else f"{text[:limit].rstrip('-._')}-{digest}"
