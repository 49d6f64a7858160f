"""Where a job's own modules are found: beside its file, and in `src/` there, after everything that is installed.

A file beside the job (`statistics.py`, `numpy.py`) never takes the place of a module that Python, lehr, Ray or torch
imports. Where the job's own code means such a file by its name, that is refused with what to rename: whichever of the
two were taken, somebody would expect the other.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from lehr.paths import packaged_path, packed_root, run_around

MOST_FILES = 300
"""How many files of the job's own packages are looked into."""

MOST_PLACES = 20
"""How many folders of earlier jobs of this process are still searched: a notebook may run hundreds."""

_places: list[str] = []  # folders of own modules, those of the newest job first
_added: list[str] = []  # those of them that were not on the path before
_ever: dict[str, None] = {}  # all such folders of this process, also those that are no longer searched


def look_in(folder: str | os.PathLike[str]) -> None:
    """Lets this process import the modules beside a job, whose file is in `folder`, if that is no run folder.

    A run folder is data that somebody else may have written. Modules of an earlier job whose names this job's have too
    are forgotten. In a process of a submitted job the current folder becomes its copy of the folder that was sent.
    """
    packed = packed_root()
    if packed and os.getcwd() == os.path.dirname(packed):
        os.chdir(packed)
    given = [os.path.abspath(packaged_path(os.fspath(folder))), *([packed] if packed else [])]
    both = dict.fromkeys(place for each in given for place in (each, os.path.join(each, "src")))
    new = [place for place in both if os.path.isdir(place) and not run_around(place)]
    earlier = [place for place in _places if place not in new and os.path.isdir(place)][:MOST_PLACES]
    _forget([place for place in _ever if place not in new], {n.removesuffix(".py") for p in new for n in _listed(p)})
    _ever.update(dict.fromkeys(new))
    _take_off_path()
    _places[:] = [*new, *earlier]
    _added[:] = [place for place in _places if place not in sys.path]  # who put one elsewhere had a reason
    sys.path += _added


def _take_off_path() -> None:
    """Takes what `look_in` has put onto the path off it: the last entry of that name, others are not ours."""
    for place in _added:
        if place in sys.path:
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(place)]


def loaded() -> list[ModuleType]:
    """The job's own modules that were imported."""
    return [module for name, module in sys.modules.copy().items() if _from(_places, name, _file_of(module))]


def clash(module: str) -> str:
    """Why the own module of this name cannot be used, or one that it imports; empty where nothing speaks against it."""
    top = module.partition(".")[0]
    if not (own := _own(top)):
        return ""
    if other := _other(top):
        return f"{own.name} beside the job has the name of {other}; rename it, for example my_{own.name}"
    for file, name in _imports_of_own_code(top):
        beside = _own(name)
        if beside and (other := _other(name)):
            what = f"{file.name} imports {name}, and {beside.name} beside the job has the name of {other}"
            return f"{what}; rename {beside.name}, or move it away"
    return ""


def _own(top: str) -> Path | None:
    """The file or package of this name beside the job."""
    for place in _places:
        for found in (Path(place, f"{top}.py"), Path(place, top, "__init__.py")):
            if found.is_file():
                return found.parent if found.name == "__init__.py" else found
        if next(Path(place, top).glob("*.py"), None):  # a package without __init__.py
            return Path(place, top)
    return None


def _other(top: str) -> str:
    """The module of this name that is not the job's own, in words; empty where there is none."""
    if top in sys.stdlib_module_names:
        return f"Python's own module {top}"
    if (loaded := _file_of(sys.modules.get(top))) and not _from(_places, top, loaded):
        if not _from(_ever, top, loaded):
            return f"another module, {loaded}"
        _forget([*_ever], {top})  # of an earlier job, whose folder is no longer searched
    elsewhere = [place for place in sys.path if os.path.abspath(place) not in _places]
    for finder in sys.meta_path:
        spec = None
        with suppress(ImportError, ValueError, AttributeError):
            spec = finder.find_spec(top, elsewhere if finder is PathFinder else None)
        if spec and spec.origin and not _from(_places, top, spec.origin):
            return f"another module, {spec.origin}"
    return ""


def _imports_of_own_code(top: str) -> Iterator[tuple[Path, str]]:
    """What the own module of this name imports, and its own modules in turn: (file, top-level name)."""
    waiting, seen, files = [top], {top}, 0
    while waiting:
        own = _own(waiting.pop())
        for file in sorted(own.rglob("*.py")) if own and own.is_dir() else [own] if own else []:
            if (files := files + 1) > MOST_FILES:
                return
            for name in dict.fromkeys(_imported(file)):
                yield file, name
                if name not in seen and _own(name):
                    seen.add(name)
                    waiting.append(name)


def _imported(file: Path) -> Iterator[str]:
    """The top-level names that a file imports."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return  # importing it says more
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name.partition(".")[0] for each in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.partition(".")[0]


def _forget(places: list[str], names: Collection[str]) -> None:
    """Forgets the modules with one of these names that were imported from these places."""
    for name, module in sys.modules.copy().items() if places else ():
        if name.partition(".")[0] in names and _from(places, name, _file_of(module)):
            del sys.modules[name]


def _listed(folder: str) -> list[str]:
    with suppress(OSError):
        return os.listdir(folder)
    return []


def _file_of(module: ModuleType | None) -> str:
    file = getattr(module, "__file__", None)
    return file if isinstance(file, str) else ""


def _from(places: Collection[str], name: str, file: str) -> bool:
    """Whether a module of this name and file was found in one of these folders.

    Not merely below one: a virtual environment and lehr itself often lie below the folder of a job.
    """
    levels = name.count(".") + os.path.basename(file).startswith("__init__.")
    above = Path(file).parents
    return levels < len(above) and _real(str(above[levels])) in map(_real, places)


_real = lru_cache(10_000)(os.path.realpath)
