"""There is a token before anything asks for one, and only its owner can read it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from lehr.ray_cluster import token as tokens
from lehr.ray_cluster.token import make_token, token


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("left", [None, "", "\n"], ids=["fresh", "empty", "blank"])
def test_a_fresh_home_gets_a_token_that_only_its_owner_can_read(home: Path, left: str | None) -> None:
    file = home / ".ray/auth_token"
    if left is not None:
        file.parent.mkdir(parents=True)
        file.write_text(left)
    make_token()
    first = token()
    assert first is not None
    assert len(first) == 64
    assert file.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in file.parent.iterdir()] == ["auth_token"]
    make_token()
    assert token() == first


def test_a_token_that_ray_made_readable_for_all_is_closed_and_kept(home: Path) -> None:
    (home / ".ray").mkdir(parents=True)
    (home / ".ray/auth_token").write_text("of-a-running-cluster")
    (home / ".ray/auth_token").chmod(0o644)
    make_token()
    assert token() == "of-a-running-cluster"
    assert (home / ".ray/auth_token").stat().st_mode & 0o777 == 0o600


def test_of_processes_that_start_at_once_all_get_the_same_token() -> None:
    gate, found = threading.Barrier(8), list[str | None]()

    def start() -> None:
        gate.wait()
        make_token()
        found.append(token())

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_home_that_cannot_be_written_gets_a_token_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(tokens, "_create", refuse)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")  # so that it is removed after the test
    make_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert not home.exists()


def test_what_the_user_set_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    make_token()
    assert token() == "mine"
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    make_token()
    assert not home.exists()
