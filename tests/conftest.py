"""Settings that hold for every test."""

from __future__ import annotations

import os

import pytest

# A token file in the home folder would switch authentication on for every Ray that a test starts.
os.environ["RAY_AUTH_MODE"] = "disabled"


@pytest.fixture(autouse=True)
def _away_from_home(tmp_path, monkeypatch):
    """Tests run in a folder of their own: `./runs` is theirs, and what they leave there goes away."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEHR_STORAGE", raising=False)
