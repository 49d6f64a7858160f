"""One odd entry never hides the others: each is told in a line of its own, and listing takes neither long nor much."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from pathlib import Path

import pytest
from tests.users import User, as_user, needs_root, open_folder

from lehr.cli.runs import runs
from lehr.errors import LehrError
from lehr.paths import run_around
from lehr.result import find
from lehr.runs import Folder, Progress, RunFolder, TrainingProgress, find_runs, list_runs, summaries

JOB = {"kind": "train", "model": {"name": "small_cnn"}}
YAML = "format: 2\nkind: train\n"
DEEP_YAML = YAML + "a: " + "[" * 10_000


def laughs(of: str, generations: int) -> str:
    """Lines of YAML, each of which names the one before it several times."""
    return "".join(f"a{number}: &a{number} {of.format(number - 1)}\n" for number in range(1, generations))


# What stands in job.yaml, and what is said of it.
DOCUMENTS: dict[str, tuple[str | bytes, str]] = {
    "deep": (DEEP_YAML, "is damaged: it is not YAML"),
    "deep lists": (YAML + "a:\n" + "- " * 50_000 + "1", "is damaged: it is not YAML"),
    "deep keys": (YAML + "a:\n" + "? " * 50_000 + "1", "is damaged: it is not YAML"),
    "deep mappings": (YAML + "\n".join(" " * n + "a:" for n in range(700)), "is damaged: it is not YAML"),
    "laughs": (YAML + "a0: &a0 {x: 1}\n" + laughs("{{x: *a{0}, y: *a{0}}}", 60), "it holds more than 100000 values"),
    "merged laughs": (YAML + "a0: &a0 {x: 1}\n" + laughs("{{<<: [*a{0}, *a{0}, *a{0}, *a{0}]}}", 20), "it is not YAML"),
    "a tag of time": (YAML + "a: !!timestamp now\n", "is damaged: it is not YAML"),
    "a tag of truth": (YAML + "a: !!bool perhaps\n", "is damaged: it is not YAML"),
    "a date": (YAML + "a: 2026-02-31\n", "is damaged: it is not YAML"),
    "a long number": (YAML + f"a: {'9' * 5000}\n", "is damaged: it is not YAML"),
    "no text": (b"\xff\xfe\x00", "is damaged: it is not YAML"),
    "no format": ("kind: train\n", "is not the job of a run: it has no format"),
    "large": (YAML + "a: b\n" * 100_000, "it is larger than the 256 kB that are read of such a file"),
}  # fmt: skip


def make(folder: Path, document: str | bytes | None = None) -> Path:
    """A folder with a job.yaml; returns the path of that file."""
    folder.mkdir(parents=True)
    file = folder / "job.yaml"
    if document is not None:
        file.write_bytes(document if isinstance(document, bytes) else document.encode())
    return file


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A storage with a run at the beginning and one at the end."""
    for name in ("a-good", "z-good"):
        run = RunFolder.create(Folder.at(tmp_path / "storage" / name), JOB)
        run.write_progress(
            Progress(status="finished", training=TrainingProgress(epochs=3, epochs_done=3, total_steps=9))
        )
    return tmp_path / "storage"


def told_of(storage: Path | str) -> dict[str, str]:
    """What is said of the odd entries, by name; the good runs are all there."""
    began = time.monotonic()
    listing = list_runs(storage)
    assert time.monotonic() - began < 10
    assert [run.name for run in listing.runs if run.name.endswith("good")] == ["a-good", "z-good"]
    assert all("\n" not in str(entry) and str(entry).isprintable() for entry in listing.odd)
    return {entry.name: entry.what for entry in listing.odd}


def test_a_job_that_cannot_be_read_is_told(storage: Path) -> None:
    for name, (document, _) in DOCUMENTS.items():
        make(storage / name, document)
    told = told_of(storage)
    assert told.keys() == DOCUMENTS.keys()
    for name, (_, sentence) in DOCUMENTS.items():
        assert sentence in told[name], name


def test_what_is_no_file_is_not_waited_for(storage: Path) -> None:
    os.mkfifo(make(storage / "fifo"))
    make(storage / "folder").mkdir()
    make(storage / "device").symlink_to("/dev/zero")
    make(storage / "circle").symlink_to("job.yaml")
    make(storage / "gone").symlink_to("nowhere")
    with open(make(storage / "sparse"), "wb") as file:
        file.truncate(1 << 40)
    os.chdir(make(storage / "socket").parent)  # the path of a socket has a length limit
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("job.yaml")
        (storage / "dangling").symlink_to("nowhere")
        (storage / "loop").symlink_to("loop")
        os.mkfifo(storage / "fifo at the top")
        told = told_of(storage)
    assert told.keys() == {"fifo", "folder", "device", "circle", "gone", "sparse", "socket", "dangling", "loop"}
    assert "not a regular file" in told["fifo"]
    assert "not a regular file" in told["device"]
    assert "leads to nothing" in told["dangling"]


def test_a_name_that_no_run_can_have_is_told_as_text(storage: Path) -> None:
    for name in (b"new\nline", b"escape\x1b[31m", b"byte\xff", b"back\\slash", "bidi\u202e".encode()):
        os.mkdir(os.fsencode(storage) + b"/" + name)
    listing = list_runs(storage)
    assert len(listing.runs) == 2
    assert sorted(str(entry).partition(":")[0] for entry in listing.odd) == [
        "back\\slash", r"bidi\u202e", r"byte\xff", r"escape\x1b[31m", r"new\nline",
    ]  # fmt: skip


FILES = ("progress.json", "outcome.json", "lease.json", "environment.json")
CONTENTS = {"cut": b'{"status": "fin', "deep": b"[" * 100_000, "list": b"[]", "empty": b"", "no text": b"\xff"}


@pytest.mark.parametrize("name", FILES)
def test_damage_beside_the_job_is_told_and_the_run_is_listed(storage: Path, name: str) -> None:
    for what, content in CONTENTS.items():
        shutil.copytree(storage / "a-good", storage / what)
        (storage / what / name).write_bytes(content)
    for what in ("fifo", "folder"):
        shutil.copytree(storage / "a-good", storage / what)
        (storage / what / name).unlink(missing_ok=True)
        os.mkfifo(storage / what / name) if what == "fifo" else (storage / what / name).mkdir()
    rows = {row["name"]: row for row in summaries(Folder.at(storage))}
    assert rows.keys() == {"a-good", "z-good", *CONTENTS, "fifo", "folder"}
    assert [each for each, row in rows.items() if not row["problem"]] == ["a-good", "z-good"]
    assert all(row["problem"].startswith(f"{name}: ") for row in rows.values() if row["problem"])
    assert {row["status"] for row in rows.values() if row["name"] in CONTENTS} <= {"finished", "interrupted", "new"}


def test_numbers_that_are_none_hide_no_run(storage: Path) -> None:
    value = {
        "status": "finished",
        "total_steps": 1e308,
        "epochs": 10**4000,
        "epochs_done": "3",
        "best": {"metric": "x"},
    }
    value["best"] = {"metric": "x", "value": 10**400}
    (storage / "a-good" / "progress.json").write_text(json.dumps(value | {"seconds": {"total": float("inf")}}))
    (row,) = [row for row in summaries(Folder.at(storage)) if row["name"] == "a-good"]
    assert (row["status"], row["epochs"], row["epochs_done"], row["best"]) == ("finished", 0, 0, None)


def test_the_command_lists_all_tells_the_odd_ones_and_ends_well(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(storage / "deep", DEEP_YAML)
    (storage / "x\x1b[31m\n").mkdir()
    runs(storage=str(storage))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", "a-good", "z-good", "deep:", r"x\x1b[31m\n:"]
    runs(storage=str(storage), as_json=True)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["status"] for row in rows] == ["finished", "finished", "unreadable", "unreadable"]


def test_suggestions_and_children_come_from_what_can_be_read(storage: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(storage / "bad", DEEP_YAML)
    (storage / "dangling").symlink_to("nowhere")
    with pytest.raises(LehrError, match=r"did you mean .-good or .-good"):
        find("good", str(storage))
    with pytest.raises(LehrError, match="dangling: is a link that leads to nothing"):
        find("dangling", str(storage))
    with pytest.raises(LehrError, match="no run"):
        find("x" * 5000, str(storage))
    run = RunFolder.create(Folder.at(storage / "parent"), JOB)
    shutil.copytree(storage / "a-good", storage / "parent/trials/0001")
    make(storage / "parent/trials/0000", DEEP_YAML)
    assert [child.name for child in run.children("trials")] == ["0001"]
    assert "0000: job.yaml: is damaged" in caplog.text
    assert [each.name for each in find_runs(storage)] == ["a-good", "z-good", "parent"]


@needs_root
def test_what_this_user_may_not_read_is_told() -> None:
    user = User(65534, 65534)
    with open_folder(user) as folder:
        for name in ("a-good", "z-good"):
            RunFolder.create(Folder.at(folder / "runs" / name), JOB)
        (folder / "runs/closed").mkdir(mode=0)
        make(folder / "runs/secret", YAML).chmod(0)
        done = as_user(user, folder / "65534", runs, storage=str(folder / "runs"))
    assert not done.error
    lines = done.printed.splitlines()
    assert [line.split()[0] for line in lines] == ["name", "a-good", "z-good", "closed:", "secret:"]
    assert all("Permission denied" in line for line in lines[-2:])


def test_an_object_store_is_listed_whatever_it_holds(s3: str) -> None:
    for name in ("a-good", "z-good"):
        RunFolder.create(Folder.at(f"{s3}/{name}"), JOB)
    store = Folder.at(s3)
    store.write("a-good-too", b"an object named as a folder could be")
    store.write("job.yaml/inside", b"x")
    store.write("folder/job.yaml/inside", b"x")
    store.write("deep/job.yaml", DEEP_YAML.encode())
    store.write("large/job.yaml", bytes(300_000))
    from pyarrow.fs import FileSystem

    filesystem, path = FileSystem.from_uri(s3)
    for key in ("escape\x1b/job.yaml", "a-good"):
        with filesystem.open_output_stream(f"{path}/{key}") as file:
            file.write(b"format: 2")
    told = told_of(s3)
    assert {"folder", "deep", "large", "escape\x1b"} <= told.keys()
    assert "larger" in told["large"]


def test_a_fifo_where_a_job_could_be_is_not_waited_for(tmp_path: Path) -> None:
    """Every command asks whether the folder that it runs in is a run."""
    os.mkfifo(make(tmp_path / "project"))
    assert run_around(tmp_path / "project/inside") is None
