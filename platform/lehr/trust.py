"""The one place where code that a job or a run names by import path is imported: denied unless somebody allowed it.

A run folder is data, and somebody else may have written it. It may name registered things freely; whatever it names by
import path (`my_nets:Net`) is code. A `Call` is one such name with its options. Calls are allowed by a job that the
user gives, by `--trust RUN`, or because this user allowed the same call on this machine before. Nothing that is read
from a run folder, a checkpoint or a results file allows anything.

What is remembered are digests, in `trusted.json` of the user's state folder: of the call, and of the file in which its
module was found. So a run whose code or options change must be trusted again, and so must a module of the same name in
another place.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lehr import own_modules
from lehr.errors import LehrError
from lehr.own_code import OwnCodeError, place, raised
from lehr.paths import run_around, user_folder

FILE, FORMAT = "trusted.json", 1


class Untrusted(LehrError):
    """A run names code that nobody allowed. `run` is how the user can name that run; empty where it is unknown."""

    exit_code = 2

    def __init__(self, call: Call, run: str = "") -> None:
        self.call, self.run = call, run
        what = f"{run or 'A run'} names {call} as its {call.field}"
        why = "That is code, and somebody else may have written the run"
        if call.field == ADDRESS:
            why = "It would learn how the run ends and who runs it here, and somebody else may have written the run"
        super().__init__(f"{what}. {why}. To run it: {_command(run or 'RUN')}")

    def __reduce__(self) -> tuple[type[Untrusted], tuple[Call, str]]:
        return Untrusted, (self.call, self.run)  # from the process of a worker to that of the job


ADDRESS = "notification"
"""What a `Call` is used as that is no code but an address, which is told how a job ends."""


@dataclasses.dataclass(frozen=True)
class Call:
    """Code that is named by import path, and what it is called with; or an address that is sent something.

    Attributes:
        field: what it is used as: `model`, `data source`, `notification`.
        path: `my_package.module:name`.
        options: what it is called with, as plain values.
    """

    field: str
    path: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def digest(self) -> str:
        """64 hex digits that change with the field, the path and every option."""
        content = json.dumps([self.field, self.path, self.options], sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(content.encode()).hexdigest()

    def __str__(self) -> str:
        if self.field == ADDRESS:
            return "/".join(self.path.split("/")[:3])
        folder = self.options.get("path") if self.path.startswith(READS_PICKLES) else None
        text = f"{self.path} in {folder}" if folder else self.path
        return "".join(letter if letter.isprintable() else "?" for letter in text[:200])  # a stranger wrote it


# ── which calls there are ───────────────────────────────────────────────────────────────────────────────────────────

READS_PICKLES = "torchvision:"
"""Data sets of torchvision are registered, but some read pickles in `data.path`: with a path they count as code."""


TRANSFORMS = "torchvision.transforms.v2:"
"""torchvision's own transforms are registered: the library is trusted, and nothing else is taken by such a name."""


def named(used_as: str, name: object, options: Mapping[str, Any]) -> list[Call]:
    """The call of what has this name, used as `model`, for example; none for a registered name."""
    is_code = isinstance(name, str) and ":" in name and not name.startswith("timm/")
    return [Call(used_as, str(name), dict(options))] if is_code else []


def source(name: object, path: object) -> list[Call]:
    """The call that opens this data source; none for a registered one."""
    is_code = isinstance(name, str) and ":" in name and (path is not None or not name.startswith(READS_PICKLES))
    return [Call("data source", str(name), {"path": path})] if is_code else []


def _section(used_as: str, *own: str, reference: str = "") -> Callable[[object], list[Call]]:
    """How the calls of a section with a name and options are found.

    Args:
        own: keys of the section itself, which are not passed on.
        reference: how a name starts that is no code: it refers to something else, or is registered.
    """

    def calls(section: object) -> list[Call]:
        whole = section if isinstance(section, Mapping) else {"name": section}
        name = whole.get("name")
        if reference and isinstance(name, str) and name.startswith(reference):
            return []
        return named(used_as, name, {key: value for key, value in whole.items() if key not in ("name", *own)})

    return calls


def _sources(section: object) -> list[Call]:
    if not isinstance(section, Mapping):
        return []
    beside = [section.get(split) for split in ("validation", "test")]
    paths = [section.get("path"), *(path for path in beside if isinstance(path, str) and path not in ("auto", "none"))]
    return [call for path in paths for call in source(section.get("source"), path)]


FIELDS: dict[str, Callable[[object], list[Call]]] = {
    "task": _section("task"),
    "model": _section("model", "weights", "preprocessing"),
    "callbacks": _section("callback"),
    "backbone": _section("model", "weights", "preprocessing", reference="run:"),
    "data": _sources,
    "augment": _section("augmentation", reference=TRANSFORMS),
    "optimizer": _section("optimizer", "lr", "weight_decay", "decay_norms", "scale_lr"),
    "schedule": _section("schedule", "warmup", "cooldown"),
    "loss": _section("loss", "label_smoothing", "class_weights"),
    "metrics": _section("metric", "label", "better"),
}
"""Every section of a job that may name code, and how its calls are found. Whatever is missing here is never allowed."""

VARIED = ("space", "members")
"""Sections that hold changes to the rest of the job, by dotted path."""


def calls_of(job: Mapping[str, Any]) -> list[Call]:
    """Every call that a job names, in sections and in the changes that its trials and members make to them.

    A digest of one covers those changes too: they decide what its trials are called with.
    """
    changes = {key: job[key] for key in VARIED if isinstance(job.get(key), Mapping | list)}
    found = [*_calls({key: value for key, value in job.items() if key not in changes})]
    for change in changes.values():
        found += [call for each in _changes(change) for call in _calls(each)]
    return [Call(call.field, call.path, {**call.options, **changes}) for call in found] if changes else found


def addresses_of(job: Mapping[str, Any]) -> list[Call]:
    """The address that a job tells how it ended; none where that stands in the user's own environment (`env:NAME`)."""
    said = job.get("notify")
    return [Call(ADDRESS, said)] if isinstance(said, str) and "://" in said else []


def _calls(content: object) -> Iterator[Call]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            for each in value if isinstance(value, list) else [value]:
                yield from FIELDS.get(key, lambda _: [])(each)
            yield from _calls(value)
    elif isinstance(content, list):
        for each in content:
            yield from _calls(each)


def _changes(content: object) -> Iterator[dict[str, Any]]:
    """Each change as the part of a job that it makes: `model.name: {grid: [a, b]}` as `{model: {name: a}}`, …

    The number of an item, as in `data.augment.0.name`, makes a list of that item.
    """
    if isinstance(content, list):
        for each in content:
            yield from _changes(each)
    elif isinstance(content, Mapping):
        for path, value in content.items():
            for each in _alternatives(value):
                for part in reversed(str(path).split(".")):
                    each = [each] if part.isdecimal() else {part: each}
                yield each


def _alternatives(value: object) -> list[Any]:
    """The value, and what a list or a dimension of a search lists."""
    if isinstance(value, list):
        return value
    lists = [item for item in value.values() if isinstance(item, list)] if isinstance(value, Mapping) else []
    return [value, *(each for listed in lists for each in listed)]


# ── who allowed them ────────────────────────────────────────────────────────────────────────────────────────────────

_granted: set[str] = set()  # digests of calls that this process may make


def allow(calls: Iterable[Call]) -> None:
    """Lets this process make these calls. Only for what the user gives: never for what was read from a run."""
    _granted.update(call.digest for call in calls)


def give(job: Mapping[str, Any]) -> None:
    """Allows what a job names that the user gives now: as a job file, as a mapping in Python, or as a submitted job."""
    allow([*calls_of(job), *addresses_of(job)])
    allow(calls_of({key: value for key, value in job.items() if key not in VARIED}))


def allow_derived(parents: Iterable[Call], children: Iterable[Call]) -> None:
    """Allows what a job makes of itself: the children's calls of what it names itself, if all its own are allowed."""
    children = list(children)
    if children and all(map(is_allowed, parents := list(parents))):
        named = {(call.field, call.path) for call in parents}
        allow(call for call in children if (call.field, call.path) in named)


def is_allowed(call: Call) -> bool:
    """Whether this process may make the call: allowed in it, or by this user on this machine before."""
    if call.digest not in _granted and _key(call, _file(_found(call))) in _read():
        _granted.add(call.digest)
    return call.digest in _granted


def check(calls: Iterable[Call], run: str) -> None:
    """Raises Untrusted for the first call that is not allowed.

    Args:
        run: the run that names them, as the user can name it.
    """
    for call in calls:
        if not is_allowed(call):
            raise Untrusted(call, run)


def grants() -> tuple[str, ...]:
    """What this process may call, for the processes that it starts on the same job."""
    return tuple(sorted(_granted))


def adopt(granted: Iterable[str]) -> None:
    """Lets this process call what the process that started it may."""
    _granted.update(granted)


def load(call: Call) -> Any:
    """Imports what a call names. Every import by a name that stands in a job or a run is this one.

    Raises:
        Untrusted: nobody allowed it.
        LehrError: its module lies in a run folder, or cannot be imported.
        ValueError: there is no such module, or nothing of that name in it.
    """
    check([call], "")
    if (file := _file(_found(call))) and (folder := run_around(file)):
        raise LehrError(
            f"{call.path} is found in the run folder {folder}; move the code out of it, beside the job file"
        )
    module_name, _, attribute = call.path.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise ValueError(f'"{module_name}" is not the name of a module; allowed: my_package.module:name')
    if problem := own_modules.clash(module_name):
        raise ValueError(problem)
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            what = (
                f"{call.path} imports {error.name}, which is not there{place(error)}; install it, on every worker too"
            )
            raise OwnCodeError(what) from error
        raise ValueError(f"there is no module {error.name}, neither beside the job file nor installed") from None
    except (LehrError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise OwnCodeError(f"{call.path} cannot be imported: {raised(error)}{place(error)}") from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module_name]
        has = f"it has {', '.join(own[:12])}" if own else "it defines nothing of its own"
        raise ValueError(f"{module_name} has no {attribute}; {has}") from None


def _command(run: str) -> str:
    """What the user types to run it all the same."""
    started = Path(sys.argv[0])
    if started.name == "lehr" or started.parts[-2:] == ("lehr", "__main__.py"):
        return shlex.join(["lehr", *sys.argv[1:], "--trust", run])
    return f"lehr.Run({run!r}, trust=True)"


# ── where a module is found ─────────────────────────────────────────────────────────────────────────────────────────


def _found(call: Call, folder: str = "") -> ModuleSpec | None:
    """Where the top package of a call is found: on the path, else in `folder`. Nothing is imported."""
    if call.field == ADDRESS:
        return None
    top = call.path.partition(":")[0].partition(".")[0]
    try:
        return find_spec(top) or (PathFinder.find_spec(top, [folder]) if folder else None)
    except (ImportError, ValueError):
        return None


def _file(spec: ModuleSpec | None) -> str:
    """The file of a module, or the folder of a package without `__init__.py`; empty where there is none."""
    if spec is None or spec.origin in ("built-in", "frozen"):
        return ""
    place = spec.origin or next(iter(spec.submodule_search_locations or ()), "")
    return os.path.realpath(place) if place else ""


# ── what this user allowed on this machine before ───────────────────────────────────────────────────────────────────


def remember(calls: Iterable[Call], folder: str | os.PathLike[str] = "") -> None:
    """Keeps those calls that this process may make, so that later commands of this user may make them too.

    Where the state folder cannot be written that is said once, and nothing else changes.

    Args:
        folder: where their modules are looked for too; by default only on the path.
    """
    wanted = {}
    for call in calls:
        file = _file(_found(call, os.fspath(folder)))
        if is_allowed(call) and (file or call.field == ADDRESS):
            wanted[_key(call, file)] = f"{call.field} {call}"
    if not wanted.keys() - _read().keys():
        return
    state = user_folder()
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(state):
            _write(state / FILE, {"format": FORMAT, "calls": {**_read(), **wanted}})
    except OSError as error:
        _say(f"{state / FILE} cannot be written ({error.strerror}): this code must be trusted again next time")


def _key(call: Call, file: str) -> str:
    return hashlib.sha256(f"{call.digest}\n{file}".encode()).hexdigest()


def _read() -> dict[str, str]:
    """What is remembered, by key; nothing from a file that is damaged, or that others may write."""
    file = user_folder() / FILE
    try:
        about = file.stat()
        if about.st_uid != os.getuid() or about.st_mode & 0o022:
            _say(f"{file} counts as empty, since others may write it; delete it, or: chmod 600 {file}")
            return {}
        content = json.loads(file.read_bytes())
        if content["format"] != FORMAT:
            raise ValueError
        return {str(key): str(what) for key, what in content["calls"].items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        _say(f"{file} cannot be read ({error.strerror}) and counts as empty")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        _say(f"{file} is damaged and counts as empty; what you trusted earlier must be trusted again")
    return {}


def _write(file: Path, content: Mapping[str, Any]) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f"{FILE}-", dir=file.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as new:
            json.dump(content, new, indent=1)
            new.flush()
            os.fsync(new.fileno())
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """No two processes of this user add to the file at once."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


_said: set[str] = set()


def _say(sentence: str) -> None:
    if sentence not in _said:
        _said.add(sentence)
        print(sentence, file=sys.stderr)
