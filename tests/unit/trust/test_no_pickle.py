"""No pickle is read anywhere, and nothing is imported by a name that stands in a file, except through `lehr.trust`."""

from __future__ import annotations

import ast
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
import yaml

import lehr
from lehr.job.sources import SOURCES
from lehr.kinds import KINDS
from lehr.runs import job_file
from lehr.runs.tables import is_extension
from lehr.tasks.forms import TASKS
from lehr.tracking import TRACKERS

LIBRARY = Path(lehr.__file__).parent
GOLDEN = Path(__file__).parents[2] / "golden"
PICKLING = ("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "_pickle")
OWN_TABLES = {  # modules that import by a name, which stands in a table of lehr's own
    "kinds/__init__.py": list(KINDS.values()),
    "data/sources/auto.py": [f"lehr.data.sources.{form.module}" for form in SOURCES.values()],
    "data/sources/__init__.py": [f"lehr.data.sources.{form.module}" for form in SOURCES.values()],
    "cli/main.py": ["lehr.cli."],
    "tasks/find.py": [f"lehr.tasks.{form.module}" for form in TASKS.values()],
    "tracking/sink.py": [tracker.module for tracker in TRACKERS.values()],
}
OTHER_TABLES = {"data/decode.py"}  # Pillow's plugins, by names that stand there
OF_THE_PATH = {"own_modules.py", "__main__.py"}  # one adds the folders of jobs, the other takes the current one away
MAY_IMPORT_BY_NAME = {"trust.py", *OWN_TABLES, *OTHER_TABLES}


def unsafe(code: str, name: str) -> Iterator[str]:
    """What reads pickles, runs text or imports by name in a module; `name` is its path below the library."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            base = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
            yield from (f"imports {each}" for each in base if each.split(".")[0] in PICKLING)
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path" and name not in OF_THE_PATH:
            yield "touches sys.path"
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        last, options = called.rpartition(".")[2], {each.arg: ast.unparse(each.value) for each in node.keywords}
        if called in ("torch.load", "torch.hub.load_state_dict_from_url") and options.get("weights_only") != "True":
            yield f"{called} without weights_only=True"
        if called in ("eval", "exec", "compile", "__import__") or last in ("read_pickle", "unsafe_load", "full_load"):
            yield called
        if (
            called in ("torch.hub.load", "torch.jit.load", "yaml.load", "yaml.load_all")
            or options.get("allow_pickle", "False") != "False"
        ):
            yield called
        if last in ("import_module", "spec_from_file_location", "exec_module", "run_path", "run_module"):
            yield from () if name in MAY_IMPORT_BY_NAME else [called]
        if called == "pq.read_table" or (called == "torch.export.load" and name != "predict/export.py"):
            yield f"{called}: tables of a run are read by lehr.runs.tables.from_parquet, which refuses pickles"


def test_the_library_reads_no_pickle_and_imports_by_name_in_one_place() -> None:
    files = {file.relative_to(LIBRARY).as_posix(): file.read_text(encoding="utf-8") for file in LIBRARY.rglob("*.py")}
    found = {(name, each) for name, code in files.items() for each in unsafe(code, name)}
    # With a loader of its own, which is a safe one that knows less.
    assert found == {("runs/job_file.py", "yaml.load")}
    assert issubclass(job_file._Loader, yaml.SafeLoader)
    assert all(module.startswith("lehr.") for modules in OWN_TABLES.values() for module in modules)


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from cloudpickle import loads",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "np.load(file, allow_pickle=True)",
        "yaml.load(text, Loader)",
        "yaml.unsafe_load(text)",
        "eval(text)",
        "importlib.import_module(name)",
        "pd.read_pickle(file)",
        "torch.hub.load(repository, model)",
        "sys.path.insert(0, folder)",
        "pq.read_table(file)",
    ],
)
def test_a_planted_line_is_found(code: str) -> None:
    assert list(unsafe(code, "kinds/train.py"))


def plain(value: object) -> bool:
    """Whether a loaded checkpoint file holds tensors and plain values alone."""
    if isinstance(value, dict):
        return all(isinstance(key, str | int) and plain(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(plain, value))
    return value is None or isinstance(value, torch.Tensor | str | int | float | bool)


READERS = {
    ".json": json.loads,
    ".jsonl": lambda data: [json.loads(line) for line in data.splitlines()],
    ".yaml": yaml.safe_load,
    ".safetensors": safetensors.torch.load,
    ".pt": lambda data: torch.load(io.BytesIO(data), weights_only=True),
    ".parquet": lambda data: pq.read_table(pa.BufferReader(data)),
    ".png": None,  # for people: nothing of lehr reads these
    ".html": None,
    ".txt": None,
}


@pytest.mark.parametrize("folder", sorted(path for path in GOLDEN.iterdir() if path.name.count("-") == 2), ids=str)
def test_every_file_of_a_run_is_read_by_a_reader_that_runs_nothing(folder: Path) -> None:
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert len(files) > 8
    for file in files:
        reader = READERS[file.suffix]
        content = reader(file.read_bytes()) if reader else None
        if file.suffix == ".pt":
            assert plain(content)
        if isinstance(content, pa.Table):
            assert not any(is_extension(column.type) for column in content.schema)


def test_the_format_names_no_file_of_another_kind() -> None:
    text = (LIBRARY / "runs/FORMAT.md").read_text()
    named = {
        Path(word).suffix for word in text.replace("`", " ").replace(",", " ").split() if "/" in word or "." in word
    }
    forms = {suffix for suffix in named if suffix[1:].isalpha() and suffix[1:] not in ("md", "py")}
    assert {".json", ".parquet", ".safetensors", ".pt"} <= forms
    assert not forms & {".pkl", ".pickle", ".npy", ".npz", ".joblib", ".pth", ".bin", ".ckpt"}
