"""Settings for every test."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lehr import trust

# A token file in the home folder would enable authentication in every Ray that a test starts.
os.environ["RAY_AUTH_MODE"] = "disabled"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs in its own temporary folder, so that `./runs` is its own and is removed afterwards.

    What a test allows to run, it allows for itself alone.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEHR_STORAGE", raising=False)
    monkeypatch.setenv("LEHR_STATE", f"{tmp_path}-state")
    monkeypatch.setattr(trust, "_granted", set())


@pytest.fixture(autouse=True)
def _own_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a test imports from its folder, no later test finds loaded."""
    before, folder = set(sys.modules), str(tmp_path_factory.getbasetemp())
    yield
    for name in sys.modules.keys() - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(folder):
            del sys.modules[name]


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One Ray for all tests that share it, since starting one takes seconds."""
    import ray

    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
