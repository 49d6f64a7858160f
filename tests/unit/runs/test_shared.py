"""A group shares a storage folder: everybody reads every run, reading writes nothing, and its members resume it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support import tiny, train_here
from tests.users import User, as_user, needs_root, open_folder

from lehr.cli.compare import compare
from lehr.cli.diagnose import diagnose
from lehr.cli.evaluate import evaluate
from lehr.cli.export import export
from lehr.cli.report import report
from lehr.cli.resume import resume
from lehr.cli.rm import rm
from lehr.cli.runs import runs
from lehr.cli.show import show
from lehr.driver.run_folder import log_file
from lehr.errors import LehrError, StorageError
from lehr.job import from_dict
from lehr.kinds import run_job
from lehr.paths import state_folder
from lehr.runs import Folder, Recorder, RunFolder, begin_attempt, check_writable
from lehr.screen import quiet

ALICE, BOB = User(12_345, 4_242, 0o002), User(65_534, 4_242, 0o002)


def snapshot(folder: Path) -> list[tuple[str, int, int, int]]:
    """Every path in a folder with its mode, size and time of change."""
    found = [(path, path.lstat()) for path in sorted(folder.rglob("*"))]
    return [(str(path), each.st_mode, each.st_size, each.st_mtime_ns) for path, each in found]


def shared(folder: Path) -> Path:
    """A storage folder as the guide says: of the group, setgid, so that what is in it belongs to the group."""
    storage = folder / "storage"
    storage.mkdir()
    os.chown(storage, ALICE.number, ALICE.group)
    storage.chmod(0o2775)
    return storage


def one_after_the_other(*commands: Callable[..., Any], storage: str) -> None:
    for command in commands:
        command(storage=storage)


def read_a_colleagues_run(*commands: Callable[..., Any]) -> tuple[str, set[str]]:
    """What commands print of a run that belongs to another user, and the files that they left in Bob's folder.

    Nothing in the run's folder changes.
    """
    with open_folder(BOB) as folder:
        train_here(tiny(train__epochs=1), folder / "runs/one")
        before, home = snapshot(folder / "runs"), folder / str(BOB.number)
        done = as_user(BOB, home, one_after_the_other, *commands, storage=str(folder / "runs"))
        assert not done.error
        assert snapshot(folder / "runs") == before
        return done.printed, {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()}


@needs_root
def test_reading_a_colleagues_run_writes_nothing_into_it() -> None:
    printed, made = read_a_colleagues_run(partial(show, "one"), runs, partial(diagnose, "one"), partial(report, "one"))
    assert "runs/one cannot be written, so its report goes to one-report" in printed
    assert {"one-report/report.html", "one-report/curves.png"} <= made


@needs_root
@pytest.mark.slow
def test_using_a_colleagues_run_writes_nothing_into_it() -> None:
    _, made = read_a_colleagues_run(
        partial(compare, ["one", "one"]), partial(evaluate, "one", "digits"), partial(export, "one", form="torch")
    )
    assert {"compare.html", "confusion.png", "export/model.pt2"} <= made


@needs_root
def test_a_group_resumes_the_runs_of_its_members_and_is_told_whose_they_are() -> None:
    with open_folder(ALICE, BOB) as folder:
        storage = shared(folder)
        job = from_dict(
            {
                "kind": "train", "name": "one", "storage": str(storage), "data": {"source": "digits", "limit": 100},
                "model": {"name": "small_cnn", "width": 8}, "train": {"epochs": 2, "batch_size": 50},
            }
        )  # fmt: skip
        (storage / "one").mkdir()
        os.chown(storage / "one", ALICE.number, ALICE.group)
        (storage / "one").chmod(0o2775)
        (storage / "one/stop.json").write_bytes(b"")  # so that it stops at once
        began = as_user(ALICE, folder / str(ALICE.number), run_job, job, debug=True)
        assert began.error.startswith("Interrupted: Stopped at epoch")
        assert RunFolder.open(storage / "one").status() == "stopped"
        resumed = as_user(BOB, folder / str(BOB.number), run_job, job, debug=True)
        assert not resumed.error
        assert RunFolder.open(storage / "one").status() == "finished"
        told = as_user(BOB, folder / str(BOB.number), resume, "one", storage=str(storage), here=True)
        assert told.printed.startswith("one is a run of user 12345; what is added to it is written as this user.")
        wrong = [
            path
            for path, mode, _, _ in snapshot(storage / "one")
            if (not mode & stat.S_IWGRP and not path.endswith("stop.json")) or Path(path).stat().st_gid != ALICE.group
        ]
        owners = {path.stat().st_uid for path in (storage / "one").rglob("*")}
        assert not wrong
        assert {ALICE.number, BOB.number} <= owners


def an_attempt(path: str) -> None:
    run = RunFolder.create(Folder.at(path), {"kind": "train"})
    Recorder(run.folder, begin_attempt(run.folder, workers=1, checkpoint=None)).event("started", "x")
    with quiet(log_file(run.folder)):
        print("logged")


def to_continue(path: str) -> None:
    log_file(Folder.at(path))


@needs_root
@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_who_may_not_write_a_run_is_told_what_to_type(umask: int) -> None:
    with open_folder(ALICE, BOB) as folder:
        path = str(shared(folder) / "one")
        made = as_user(User(ALICE.number, ALICE.group, umask), folder / str(ALICE.number), an_attempt, path)
        assert not made.error
        done = as_user(BOB, folder / str(BOB.number), to_continue, path)
        removed = as_user(BOB, folder / str(BOB.number), rm, path, yes=True)
        left = Path(path).exists()
    if umask == 0o002:
        assert not done.error
        assert not removed.error
        assert not left
    elif umask == 0o022:
        assert f"let user 12345 type: chmod -R g+w {path} (and umask 002 before the next run there)" in done.error
        assert done.error.startswith("RunError: ")
        assert "chmod -R g+w" in removed.error
        assert left
    else:
        assert "RunError: " in done.error
        assert left


@needs_root
def test_who_may_not_create_a_run_is_told_what_to_type() -> None:
    with open_folder(BOB) as folder:
        (folder / "runs").mkdir()
        done = as_user(BOB, folder / str(BOB.number), to_continue, str(folder / "runs/one"))
    assert "may not create a run in" in done.error
    assert "let root type: chmod g+w" in done.error


def test_ones_own_run_is_writable(tmp_path: Path) -> None:
    check_writable(Folder.at(tmp_path / "new/run"))
    run = RunFolder.create(Folder.at(tmp_path / "run"), {"kind": "train"})
    check_writable(run.folder)


def test_a_report_goes_where_it_is_told_and_replaces_no_file_unasked(tmp_path: Path) -> None:
    train_here(tiny(train__epochs=1), tmp_path / "runs/one")
    before = snapshot(tmp_path / "runs")
    report("one", output=Path("out"))
    assert sorted(os.listdir("out")) == ["curves.png", "diagnosis.json", "report.html"]
    report("one", output=Path("out"))  # what lehr itself made before is replaced
    for name in ("report.html", "curves.png"):
        Path("out", name).write_text("mine")
    with pytest.raises(LehrError, match=r"out/report\.html and out/curves\.png exist already; .* with --force"):
        report("one", output=Path("out"))
    assert Path("out/report.html").read_text() == "mine"
    assert snapshot(tmp_path / "runs") == before


# ── the log of a run that is not on a disk ──────────────────────────────────────────────────────────────────────────


def test_the_log_of_a_remote_run_is_in_a_folder_of_this_user(s3: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("LEHR_STATE", str(tmp_path / "state"))
    assert log_file(Folder.at(f"{s3}/one")) == tmp_path / "state/logs/one.txt"
    assert stat.S_IMODE((tmp_path / "state/logs").stat().st_mode) == 0o700


@pytest.mark.parametrize("planted", ["link", "open to all", "file"])
def test_a_planted_folder_for_logs_is_refused(planted: str, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "no-folder").write_text("")
    monkeypatch.setenv("LEHR_STATE", str(tmp_path / "no-folder"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / f"lehr-{os.getuid()}"
    assert state_folder("logs") == folder / "logs"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / "logs").rmdir()
    folder.rmdir()
    if planted == "link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "theirs")
    elif planted == "file":
        folder.write_text("")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    with pytest.raises(StorageError, match="set LEHR_STATE"):
        state_folder("logs")
