"""Job templates, as `lehr new` hands them out."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lehr.cli.main import app
from lehr.job import load
from lehr.job.templates import FOLDER, names, read

ROOT = Path(__file__).parents[3]


def lehr(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "lehr", *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", names())
def test_every_template_is_a_job_whose_comment_says_what_it_does_and_how_to_run_it(name: str) -> None:
    text = read(name)
    head = [line for line in text.splitlines()[:12] if line.startswith("#")]
    assert len(head) >= 2
    assert any(f" jobs/{name}.yaml" in line and "lehr " in line for line in head), "its comment names the command"
    job = load(FOLDER / f"{name}.yaml")
    assert job.run_name == (job.name or name)


def test_new_writes_a_template_and_never_overwrites_a_file() -> None:
    made = lehr("new", "train")
    assert made.returncode == 0, made.stderr
    assert Path("train.yaml").read_text() == read("train").replace("jobs/train.yaml", "train.yaml")
    assert load("train.yaml").kind == "train"
    again = lehr("new", "train")
    assert again.returncode == 1
    assert again.stderr == "train.yaml exists already; name another file, or overwrite it with --force\n"
    assert lehr("new", "train", "deep/mine.yaml").returncode == 0
    assert Path("deep/mine.yaml").exists()
    wrong = lehr("new", "trian")
    assert wrong.stderr.startswith('"trian" is not a template; did you mean train? allowed: ')
    listed = lehr("new").stdout.splitlines()
    assert [line.split()[0] for line in listed] == sorted([*names(), "photos"])
    assert all(len(line.split()) > 3 for line in listed), "each with what it does"
    assert max(map(len, listed)) <= 80


@pytest.mark.parametrize("name", names())
def test_the_files_that_a_template_extends_are_written_beside_it(name: str) -> None:
    assert lehr("new", name, "elsewhere/mine.yaml").returncode == 0
    assert load("elsewhere/mine.yaml").kind == load(FOLDER / f"{name}.yaml").kind


@pytest.mark.parametrize("name", names())
def test_the_commands_in_a_copied_template_name_the_file_just_written(name: str) -> None:
    app(["new", name, "my jobs/mine.yaml"], standalone_mode=False, prog_name="lehr")
    commands = [line for line in Path("my jobs/mine.yaml").read_text().splitlines() if line.startswith("#   lehr ")]
    assert any("'my jobs/mine.yaml'" in line for line in commands)
    assert not any(f" jobs/{name}.yaml" in line for line in commands)


def test_the_wheel_contains_every_template(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT],
        capture_output=True, text=True, check=False, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )  # fmt: skip
    if "setuptools" in done.stderr and done.returncode:
        pytest.skip(f"no wheel can be built here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {Path(name).stem for name in archive.namelist() if name.startswith("lehr/jobs/")}
        archive.extractall(tmp_path / "installed")
    assert inside == {path.stem for path in (ROOT / "jobs").glob("*.yaml")}
    copied = subprocess.run(
        [sys.executable, "-m", "lehr", "new", "cifar10", tmp_path / "mine.yaml"], capture_output=True, text=True,
        check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
    )  # fmt: skip
    assert copied.returncode == 0, copied.stderr
    expected = (ROOT / "jobs/cifar10.yaml").read_text().replace("jobs/cifar10.yaml", str(tmp_path / "mine.yaml"))
    assert (tmp_path / "mine.yaml").read_text() == expected
