"""A job's own modules are found beside its file, and take the place of nobody else's."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lehr import own_modules, trust
from lehr.own_modules import MOST_PLACES, clash, look_in

NET = """
from torch import nn


class Net(nn.Module):
    def __init__(self, channels: int, outputs: int, width: int = 4):
        super().__init__()
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * channels, outputs))

    def forward(self, images):
        return self.layers(images)
"""
TRAP = "raise AssertionError('a file beside the job was imported in place of the library')\n"
JOB = """
kind: train
data: {source: digits, limit: 60}
model: my_nets:Net
train: {epochs: 1, batch_size: 30, evaluated_training_rows: 0}
"""


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(own_modules, "_places", [])
    monkeypatch.setattr(own_modules, "_added", [])


def write(folder: Path, **files: str) -> Path:
    """Python files of these names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def load(path: str) -> object:
    call = trust.Call("model", path)
    trust.allow([call])
    return trust.load(call)


def test_files_beside_the_job_shadow_no_library(tmp_path: Path) -> None:
    """Started as `python -m lehr`, for which Python puts the current folder first."""
    traps = ("statistics", "numpy", "colorsys", "pandas", "sched", "psutil", "stat", "random")
    write(tmp_path, my_nets=NET, **dict.fromkeys(traps, TRAP))
    (tmp_path / "job.yaml").write_text(JOB)
    done = subprocess.run(
        [sys.executable, "-m", "lehr", "run", "job.yaml", "--debug"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "LEHR_STATE": str(tmp_path / "state")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            "import statistics",
            "my_nets.py imports statistics, and statistics.py beside the job has the name of Pyth",
        ),
        ("def f():\n    from numpy import array", "numpy.py beside the job has the name of another module, .*numpy"),
        (
            "import helper",
            "helper.py imports tomlkit_like, and .* beside the job has the name of another module, .*/toml",
        ),
    ],
)
def test_a_name_that_two_modules_have_is_refused_where_own_code_uses_it(
    code: str, sentence: str, tmp_path: Path
) -> None:
    write(tmp_path / "installed", tomlkit_like="")
    sys.path.append(str(tmp_path / "installed"))
    traps = {"statistics": TRAP, "numpy": TRAP, "tomlkit_like": TRAP}
    write(tmp_path / "job", my_nets=f"{code}\nNet = 1\n", helper="import tomlkit_like", **traps)
    look_in(tmp_path / "job")
    with pytest.raises(ValueError, match=sentence):
        load("my_nets:Net")
    with pytest.raises(ValueError, match=r"^statistics.py beside the job has the name of Python's own module"):
        load("statistics:Net")


def test_a_relative_import_means_nobody_elses_module(tmp_path: Path) -> None:
    package = tmp_path / "job/my_package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "statistics.py").write_text("mean = 'own'")
    (package / "nets.py").write_text("from .statistics import mean\nimport shared\nfound = (mean, shared.value)")
    write(tmp_path / "job", shared="value = 'shared'")
    look_in(tmp_path / "job")
    assert load("my_package.nets:found") == ("own", "shared")


def test_a_src_layout_is_found(tmp_path: Path) -> None:
    write(tmp_path / "src/laid_out", nets="found = 'src'")
    look_in(tmp_path)
    assert load("laid_out.nets:found") == "src"


def test_installed_modules_come_first(tmp_path: Path) -> None:
    write(tmp_path, my_nets="")
    before = sys.path[:]
    look_in(tmp_path)
    look_in(tmp_path)
    assert sys.path == [*before, str(tmp_path)]


def test_two_jobs_of_one_process_each_get_their_own_module(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(
            tmp_path / name,
            same_name=f"import helper_of\nfound = ('{name}', helper_of.name)",
            helper_of=f"name='{name}'",
        )
    for name in ("one", "two", "one"):
        look_in(tmp_path / name)
        assert load("same_name:found") == (name, name)


def test_a_process_of_many_jobs_keeps_few_folders_and_gives_each_job_its_own_module(tmp_path: Path) -> None:
    write(tmp_path / "first", used_again="name = 'first'")
    look_in(tmp_path / "first")
    assert load("used_again:name") == "first"
    before = len(sys.path)
    for number in range(MOST_PLACES + 5):
        write(tmp_path / f"job-{number}", of_one_job=f"name = {number}")
        look_in(tmp_path / f"job-{number}")
        assert load("of_one_job:name") == number
    assert len(sys.path) <= before + MOST_PLACES + 1
    (tmp_path / "last").mkdir()
    look_in(tmp_path / "last")
    write(tmp_path / "last", used_again="name = 'last'")
    assert load("used_again:name") == "last"


def test_a_virtual_environment_below_the_folder_of_a_job_is_not_its_own_code(tmp_path: Path) -> None:
    """As a project keeps it. A later job with a file of a library's name must not make that library load twice."""
    here, elsewhere = write(tmp_path / "here", own="A = 1"), write(tmp_path / "elsewhere", library="A = 2")
    installed = write(here / ".venv" / "site-packages" / "library", __init__="from . import inner", inner="")
    sys.path.append(str(installed.parent))
    look_in(here)
    loaded, inner = importlib.import_module("library"), sys.modules["library.inner"]
    own = importlib.import_module("own")
    assert own_modules.loaded() == [own]
    look_in(elsewhere)
    assert importlib.import_module("library") is loaded
    assert sys.modules["library.inner"] is inner
    assert "another module" in clash("library")


def test_folders_of_earlier_jobs_leave_the_path_although_others_have_added_to_it(tmp_path: Path) -> None:
    folders = [write(tmp_path / str(number), own=f"A = {number}") for number in range(MOST_PLACES + 2)]
    for folder in folders:
        look_in(folder)
        sys.path.append(f"/somebody/{folder.name}")
    on_path = [place for place in sys.path if place.startswith(str(tmp_path))]
    assert on_path == own_modules._places
    assert str(folders[0]) not in sys.path
    assert load("own:A") == MOST_PLACES + 1
    assert f"/somebody/{folders[0].name}" in sys.path


def test_a_module_that_the_users_program_has_loaded_is_not_taken_for_the_jobs(tmp_path: Path) -> None:
    write(tmp_path / "program", loaded_before="")
    write(tmp_path / "job", loaded_before="Net = 1")
    sys.path.insert(0, str(tmp_path / "program"))
    __import__("loaded_before")
    look_in(tmp_path / "job")
    with pytest.raises(ValueError, match=r"^loaded_before.py beside the job has the name of another module"):
        load("loaded_before:Net")


def test_what_stands_first_by_the_users_will_is_no_clash(tmp_path: Path) -> None:
    write(tmp_path, beside_script="Net = 1")
    sys.path.insert(0, str(tmp_path))
    look_in(tmp_path)
    assert clash("beside_script") == ""
    assert load("beside_script:Net") == 1


@pytest.mark.ray
def test_files_beside_the_job_shadow_no_library_in_a_worker(tmp_path: Path) -> None:
    imports = "import subprocess\n" + NET.replace("super().__init__()", "super().__init__(); import sched, colorsys")
    write(tmp_path, my_nets=imports, **dict.fromkeys(("statistics", "pandas", "filecmp"), TRAP))
    (tmp_path / "job.yaml").write_text(f"{JOB}workers: 2\n")
    done = subprocess.run(
        [sys.executable, "-m", "lehr", "run", "job.yaml"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "LEHR_STATE": str(tmp_path / "state")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
