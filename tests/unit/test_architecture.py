"""The map in CONTRIBUTING.md is the code's: its rooms exist, imports run down it, Ray stays where it may be.

Imports inside functions and for type checkers count as well.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
MAP = REPOSITORY / "CONTRIBUTING.md"
TOP = "lehr"


@dataclass(frozen=True)
class Import:
    """One import statement: `importer` and `imported` are dotted names of modules."""

    importer: str
    line: int
    imported: str

    def __str__(self) -> str:
        return f"{self.importer}, line {self.line}, imports {self.imported}"


class Code:
    """The modules below a source folder and what they import, read from their text."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.files = {self._name(path): path for path in sorted((source / TOP).rglob("*.py"))}

    def _name(self, path: Path) -> str:
        parts = path.relative_to(self.source).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def trees(self) -> dict[str, ast.Module]:
        return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in self.files.items()}

    @cached_property
    def imports(self) -> list[Import]:
        """Every import of another module of the package."""
        return [
            Import(module, line, known)
            for module in self.files
            for line, name in self._imported(module)
            if (known := self._module_of(name)) and known != module
        ]

    def outside(self, package: str) -> set[str]:
        """The modules that import a package of others, or a part of it."""
        return {
            module
            for module in self.files
            for _, name in self._imported(module)
            if name == package or name.startswith(f"{package}.")
        }

    def _imported(self, module: str) -> Iterator[tuple[int, str]]:
        package = module if self.files[module].name == "__init__.py" else module.rpartition(".")[0]
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, each.name) for each in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                base = ".".join([*above, *([node.module] if node.module else [])])
                yield from ((node.lineno, f"{base}.{each.name}") for each in node.names)

    def _module_of(self, name: str) -> str | None:
        """The module that holds what is imported: `lehr.runs.Folder` is in `lehr.runs`."""
        while name and name not in self.files:
            name = name.rpartition(".")[0]
        return name or None

    @cached_property
    def defined(self) -> set[str]:
        """Every name that some module defines: functions, classes, methods and constants."""
        names: set[str] = set()
        for tree in self.trees.values():
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    names.add(node.name)
                elif isinstance(node, ast.Assign | ast.AnnAssign):
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    names |= {target.id for target in targets if isinstance(target, ast.Name)}
        return names


def room_of(module: str) -> str:
    """The package or module right below the top: `lehr.runs.lease` is in `runs`, `lehr` itself is `lehr`."""
    return module.split(".")[1] if "." in module else module


# ── what the map says ───────────────────────────────────────────────────────────────────────────────────────────────


def rows_below(heading: str, text: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    section = re.split(r"^## ", text, flags=re.MULTILINE)
    (found,) = [part for part in section if part.startswith(heading)]
    lines = [line for line in found.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def levels(text: str) -> dict[str, int]:
    """room -> its level; a room may import what is on a lower level. The last row is level 0."""
    rows = rows_below("Rooms and arrows", text)
    return {room: len(rows) - 1 - number for number, (cell, _) in enumerate(rows) for room in quoted(cell)}


def may_import_ray(text: str) -> set[str]:
    """The modules that the map names as Ray's side, as dotted names."""
    (line,) = re.findall(r"^Modules that import Ray: (.*?)\.\n\n", text, flags=re.MULTILINE | re.DOTALL)
    return {f"{TOP}." + path.removesuffix(".py").replace("/", ".") for path in quoted(line)}


# ── what is wrong, as sentences ─────────────────────────────────────────────────────────────────────────────────────


def untrue_rooms(code: Code, known: Mapping[str, int]) -> list[str]:
    there = {room_of(module) for module in code.files}
    return [
        *(f"{room} is on the map and not in the code" for room in sorted(known.keys() - there)),
        *(f"{room} is in the code and not on the map" for room in sorted(there - known.keys())),
    ]


def against_the_arrows(code: Code, known: Mapping[str, int]) -> list[str]:
    found = []
    for each in code.imports:
        one, other = room_of(each.importer), room_of(each.imported)
        if one != other and known.get(one, 99) <= known.get(other, -1):
            found.append(str(each))
    return found


def cycles(code: Code) -> list[list[str]]:
    """Groups of modules that import each other in a circle (Tarjan's strongly connected components)."""
    graph: dict[str, set[str]] = {module: set() for module in code.files}
    for each in code.imports:
        graph[each.importer].add(each.imported)
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    waiting: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        waiting.append(module)
        for other in sorted(graph[module]):
            if other not in order:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in waiting:
                lowest[module] = min(lowest[module], order[other])
        if lowest[module] == order[module]:
            group = waiting[waiting.index(module) :]
            del waiting[waiting.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in graph:
        if module not in order:
            visit(module)
    return found


def untrue_places(rows: Iterable[list[str]], code: Code, folders: Iterable[Path]) -> list[str]:
    """What the table of "To add …" names that exists nowhere: files, folders, and names of the code."""
    found = []
    for what, where in rows:
        for word in quoted(where):
            if re.fullmatch(r"[\w-]+(/[\w.-]+)*/?|[\w/-]+\.(py|md|yaml)", word) and ("/" in word or "." in word):
                if not any((folder / word).exists() for folder in folders):
                    found.append(f"{what}: no file or folder {word}")
            elif re.fullmatch(r"\w+(\.\w+)*", word) and word.rpartition(".")[2] not in code.defined:
                found.append(f"{what}: nothing defines {word}")
    return found


# ── the code as it is ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def code() -> Code:
    return Code(REPOSITORY / "platform")


@pytest.fixture(scope="module")
def text() -> str:
    return MAP.read_text(encoding="utf-8")


def test_the_map_shows_every_room_and_no_other(code: Code, text: str) -> None:
    assert not untrue_rooms(code, levels(text))


def test_imports_run_down_the_map(code: Code, text: str) -> None:
    assert not against_the_arrows(code, levels(text))


def test_no_modules_import_each_other_in_a_circle(code: Code) -> None:
    assert not cycles(code)


def test_ray_is_imported_where_the_map_says_and_nowhere_else(code: Code, text: str) -> None:
    assert code.outside("ray") == may_import_ray(text)


def test_what_a_contributor_is_told_to_touch_exists(code: Code, text: str) -> None:
    tests = Code.__new__(Code)  # names that tests define count too: a fault is added there
    tests.source, tests.files = REPOSITORY, {str(path): path for path in (REPOSITORY / "tests").rglob("*.py")}
    code.defined.update(tests.defined)
    folders = (REPOSITORY / "platform" / TOP, REPOSITORY)
    assert not untrue_places(rows_below("To add", text), code, folders)


# ── the checks themselves, on a house with one fault each ───────────────────────────────────────────────────────────

SMALL_MAP = """
## Rooms and arrows

| room | what it holds |
|---|---|
| `top` | the command line |
| `left`, `right` | two rooms side by side |
| `ground` | what all use |

Modules that import Ray: `left/on_ray.py`.

## To add …

| what | where |
|---|---|
| a thing | a class with `method` in `ground.py`, see `left/` |
"""
SMALL_HOUSE = {
    "top.py": "from lehr import left, right",
    "left/__init__.py": "",
    "left/on_ray.py": "import ray",
    "right/__init__.py": "def f():\n    from lehr.ground import method",
    "ground.py": "def method(): ...",
}


def house(tmp_path: Path, **changed: str) -> Code:
    for name, content in {**SMALL_HOUSE, **{path.replace("__", "/"): text for path, text in changed.items()}}.items():
        file = tmp_path / TOP / (name if name.endswith(".py") else f"{name}.py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return Code(tmp_path)


def problems(code: Code, text: str = SMALL_MAP) -> list[str]:
    known = levels(text)
    ray = sorted(code.outside("ray") ^ may_import_ray(text))
    return [
        *untrue_rooms(code, known),
        *against_the_arrows(code, known),
        *map(str, cycles(code)),
        *ray,
        *untrue_places(rows_below("To add", text), code, [code.source / TOP]),
    ]


def test_a_house_that_is_like_its_map_has_no_problems(tmp_path: Path) -> None:
    assert not problems(house(tmp_path))


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"ground": "from lehr import left\ndef method(): ..."}, "lehr.ground, line 1, imports lehr.left"),
        ({"ground": "def method():\n    import lehr.top"}, "lehr.ground, line 2, imports lehr.top"),
        ({"left__a": "import lehr.right"}, "lehr.left.a, line 1, imports lehr.right"),  # side by side is not below
        ({"left__a": "from lehr.left import b", "left__b": "from . import a"}, "['lehr.left.a', 'lehr.left.b']"),
        ({"right__more": "from ray import data"}, "lehr.right.more"),
        ({"attic": ""}, "attic is in the code and not on the map"),
    ],
)
def test_a_planted_fault_is_found(changed: dict[str, str], found: str, tmp_path: Path) -> None:
    assert found in problems(house(tmp_path, **changed))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (SMALL_MAP.replace("| `top`", "| `cellar` | |\n| `top`"), "cellar is on the map and not in the code"),
        (SMALL_MAP.replace("`method`", "`approach`"), "a thing: nothing defines approach"),
        (SMALL_MAP.replace("`left/`", "`left/there.py`"), "a thing: no file or folder left/there.py"),
        (SMALL_MAP.replace("left/on_ray.py", "left/with_ray.py"), "lehr.left.with_ray"),
    ],
)
def test_a_false_line_of_the_map_is_found(text: str, found: str, tmp_path: Path) -> None:
    assert found in problems(house(tmp_path), text)
