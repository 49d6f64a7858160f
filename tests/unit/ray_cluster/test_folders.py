"""Ray's sockets lie in a short folder of this user alone, and so does what is known of the local cluster."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lehr.errors import LehrError
from lehr.ray_cluster import folders
from lehr.ray_cluster.folders import make_state_folder, ray_folder, state_folder

SOCKET = "node-12/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.3"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TMPDIR", "RAY_TMPDIR", "LEHR_STATE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Path]]:
    """Makes TMPDIR a folder whose path has so many bytes."""
    base = tempfile.mkdtemp(prefix="t", dir="/tmp")

    def make(length: int) -> Path:
        folder = Path(base, "x" * (length - len(base) - 1)) if length > len(base) else Path(base)
        folder.mkdir(exist_ok=True)
        monkeypatch.setenv("TMPDIR", str(folder))
        return folder

    yield make
    shutil.rmtree(base)


@pytest.mark.parametrize("length", [0, 24, 59, 82, 200])
def test_a_socket_of_ray_fits_whatever_tmpdir_is(length: int, temporary: Callable[[int], Path]) -> None:
    given = temporary(length)
    folder = ray_folder()
    assert folder.is_relative_to(given if length <= 16 else "/tmp")
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert folder.parent.stat().st_uid == os.getuid()
    path = folder / SOCKET
    made = not path.parents[2].exists()
    path.parent.mkdir(parents=True)
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))  # "AF_UNIX path too long", if it is
    finally:
        shutil.rmtree(path.parents[2] if made else path.parents[1])


def test_a_place_that_the_user_names_is_used_or_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/scratch")
    assert ray_folder() == Path("/scratch/ray")
    monkeypatch.setenv("RAY_TMPDIR", "/scratch/" + "x" * 80)
    with pytest.raises(LehrError, match=r"RAY_TMPDIR=/scratch/x+ is too long .* Type: export RAY_TMPDIR=/tmp$"):
        ray_folder()


@pytest.mark.parametrize("plant", ["link", "open"])
def test_a_folder_that_somebody_planted_is_not_used(
    plant: str, temporary: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"lehr-{os.getuid()}"
    planted = temporary(0) / name
    if plant == "link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        planted.symlink_to(tmp_path / "theirs")
    else:
        planted.mkdir()
        planted.chmod(0o777)
    assert ray_folder().parent != planted
    monkeypatch.setenv("LEHR_STATE", str(planted))
    with pytest.raises(LehrError, match="others may write to this folder; set LEHR_STATE to a folder of your own"):
        make_state_folder()


def test_each_machine_and_container_that_shares_a_home_folder_has_a_record_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = state_folder()
    assert here.parent == tmp_path / ".lehr"
    monkeypatch.setattr(folders, "this_machine", lambda: "0b0e5a7c-1111-4222-8333-444444444444/pid:[4026532999]")
    assert state_folder() != here
    assert state_folder().name.endswith("-4026532999")
    monkeypatch.setattr(folders.platform, "node", lambda: "another")
    assert state_folder().name == "another-4026532999"
    make_state_folder()
    assert [each.stat().st_mode & 0o777 for each in (tmp_path / ".lehr", state_folder())] == [0o700, 0o700]
    monkeypatch.setenv("LEHR_STATE", "~/elsewhere")
    assert state_folder() == tmp_path / "elsewhere"
