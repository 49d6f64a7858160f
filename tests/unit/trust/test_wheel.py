"""The matrix holds in an installation from a wheel too, where lehr's own functions lie among the installed packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def run(*words: str | Path, cwd: Path) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(words, cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_matrix_holds_in_a_wheel_install(tmp_path: Path) -> None:
    """A fresh virtual environment with lehr's wheel; its dependencies are those of this one."""
    sources, place = tmp_path / "sources", tmp_path / "place"
    shutil.copytree(ROOT / "platform", sources / "platform", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    wheel = ("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-q")
    run(sys.executable, *wheel, "-w", tmp_path, sources, cwd=tmp_path)
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "fresh", cwd=tmp_path)
    python = tmp_path / "fresh/bin/python"
    installed = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    (wheel_file,) = tmp_path.glob("lehr-*.whl")
    zipfile.ZipFile(wheel_file).extractall(installed)
    (installed / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    place.mkdir()
    shutil.copy(ROOT / "pyproject.toml", place)
    tests = ("__init__.py", "conftest.py", "unit/trust/test_matrix.py", "unit/trust/test_trust.py")
    for name in tests:
        (place / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "tests" / name, place / "tests" / name)
    shutil.copytree(ROOT / "tests/golden/format-1-train", place / "tests/golden/format-1-train")
    assert run(python, "-c", "import lehr; print(lehr.__file__)", cwd=place).startswith(str(installed))
    assert "failed" not in run(python, "-m", "pytest", "-p", "no:cacheprovider", "tests", cwd=place)
