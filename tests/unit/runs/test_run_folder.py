"""The run folder as one object."""

from __future__ import annotations

import logging
import math
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import pytest
import yaml

import lehr.runs
from lehr.errors import RunError
from lehr.runs import FORMAT, Folder, Lease, Recorder, RunFolder, begin_attempt, collect_environment, find_runs

JOB = {
    "kind": "train",
    "optimizer": {"name": "sgd", "lr": 1e-5, "weight_decay": 0.1 + 0.2, "clip": math.inf},
    "data": {"source": "digits", "classes": ["null", "ja", "1e3", "ünï"]},
    "schedule": None,
    "aaa": True,
}


def test_a_job_comes_back_as_it_was_in_its_order(folder: Folder) -> None:
    run = RunFolder.create(folder, JOB, {"seed": 3})
    document = folder.read("job.yaml").decode()
    assert document.startswith("format: 2\nkind: train\noptimizer:\n")
    again = RunFolder.open(folder.uri)
    for each in (run, again):
        assert each.job == JOB
        assert list(each.job) == list(JOB)
        assert each.name == "run"
        assert each.environment["seed"] == 3
        assert each.started == each.environment["started"] != ""
        assert each.status() == "new"
        assert each.progress() == {}
        assert each.steps().num_rows == each.epochs().num_rows == 0
        assert each.events() == []


def test_a_run_is_never_created_twice(local: Folder) -> None:
    RunFolder.create(local, JOB, {"seed": 1})
    with pytest.raises(RunError, match="there is a run already"):
        RunFolder.create(local, {"kind": "search"}, {"seed": 2})
    assert RunFolder.open(local).job == JOB
    assert RunFolder.open(local).environment["seed"] == 1


def test_a_permitted_change_replaces_the_job(local: Folder) -> None:
    run = RunFolder.create(local, JOB, {})
    run.write_job(JOB | {"aaa": False})
    assert run.job["aaa"] is False
    assert RunFolder.open(local).job == JOB | {"aaa": False}


def test_a_job_that_yaml_cannot_hold_is_one_sentence_and_makes_no_run(local: Folder) -> None:
    with pytest.raises(RunError, match="cannot be written"):
        RunFolder.create(local, {"model": object()}, {})
    assert not local.exists("job.yaml")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "is no run: it has no job.yaml"),
        (b"kind: train\n", "names no format"),
        (b"format: one\n", "names no format"),
        (b"format: true\n", "names no format"),
        (b"- 1\n", "names no format"),
        (b"", "names no format"),
        (b"{", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"format: 1\nmodel: !!python/object/apply:os.mkdir [exploded]\n", "is not YAML"),
        (f"format: {FORMAT + 1}\n".encode(), rf"written by a newer lehr \(format {FORMAT + 1}"),
    ],
)
def test_what_is_no_run_or_of_a_newer_lehr_is_one_sentence(
    local: Folder, content: bytes | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        local.write("job.yaml", content)
    with pytest.raises(RunError, match=says) as caught:
        RunFolder.open(local)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("status", ["new", "finished", "stopped", "failed"])
def test_the_status_is_what_the_writer_said_last(local: Folder, status: str) -> None:
    run = RunFolder.create(local, JOB, {})
    run.write_progress({"status": status, "loss": math.nan})
    assert run.status() == status
    assert str(run.progress()) == str({"status": status, "loss": math.nan})


RUNNING_WRITER = """
import sys
from lehr.runs import Folder, Lease, RunFolder
run = RunFolder.open(sys.argv[1])
with Lease.acquire(run.folder):
    run.write_progress({"status": "running"})
    print("running", flush=True)
    sys.stdin.readline()
    run.write_progress({"status": "finished"})
"""


def test_running_is_believed_only_while_the_writer_lives(local: Folder, python: Callable[..., Popen[str]]) -> None:
    run = RunFolder.create(local, JOB, {})
    killed, done = python(RUNNING_WRITER, local.uri), None
    assert killed.stdout is not None
    assert killed.stdout.readline() == "running\n"
    assert run.status() == "running"
    killed.kill()
    killed.wait()
    assert run.status() == "interrupted"

    done = python(RUNNING_WRITER, local.uri)
    assert done.stdout is not None
    assert done.stdout.readline() == "running\n"
    assert run.status() == "running"
    done.communicate("end\n", timeout=30)
    assert run.status() == "finished"


def test_a_stop_request_reaches_the_writer_and_is_cleared(folder: Folder) -> None:
    run = RunFolder.create(folder, JOB, {})
    assert run.stop_requested() is None
    RunFolder.open(folder.uri).request_stop("enough")
    assert run.stop_requested() == "enough"
    run.clear_stop()
    assert run.stop_requested() is None


def test_children_are_runs_themselves(folder: Folder) -> None:
    run = RunFolder.create(folder, JOB, {})
    for number in (10, 2):
        RunFolder.create(folder.child("trials", f"{number:04d}"), JOB | {"number": number}, {})
    folder.write("trials/notes.txt", b"")
    folder.write("trials/half/model/model.json", b"{}")
    assert [(child.name, child.job["number"]) for child in run.children("trials")] == [("0002", 2), ("0010", 10)]
    assert run.children("members") == []
    assert RunFolder.open(folder.child("trials/0002")).job["number"] == 2


def test_runs_are_found_oldest_first(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    for name, started in (("b", "2030-01-02"), ("c", "2030-01-01"), ("a", "2030-01-02")):
        RunFolder.create(folder.child(name), JOB, {"started": started})
    folder.write("no-run/x", b"")
    folder.write("newer/job.yaml", b"format: 99\n")
    with caplog.at_level(logging.WARNING):
        assert [run.name for run in find_runs(folder.uri)] == ["c", "a", "b"]
    assert "newer lehr" in caplog.text
    assert find_runs(folder.child("nowhere")) == []


def test_the_record_is_read_through_the_run(local: Folder) -> None:
    run = RunFolder.create(local, JOB, {})
    recorder = Recorder(local, begin_attempt(local, workers=1, checkpoint=None))
    recorder.write_steps({"step": [0]})
    recorder.write_epochs({"epoch": [1]})
    recorder.event("note", "hello")
    assert (run.steps().num_rows, run.epochs().num_rows, len(run.events())) == (1, 1, 1)


def test_the_environment_tells_versions_hardware_seed_and_commit(tmp_path: Path, local: Folder) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", os.fspath(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert collect_environment(source=tmp_path)["git"] is None
    git("init", "-q")
    assert collect_environment(source=tmp_path)["git"] is None, "a repository without a commit"
    (tmp_path / "net.py").write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    clean = collect_environment(seed=7, source=tmp_path)
    assert clean["git"] == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "net.py").write_text("2")
    assert collect_environment(source=tmp_path)["git"]["dirty"] is True

    assert clean["seed"] == 7
    assert clean["cpus"] >= 1
    assert clean["memory_bytes"] > 2**28
    assert set(clean["versions"]) == {"python", "lehr", "ray", "torch", "torchvision", "pyarrow", "numpy"}
    assert all(clean["versions"].values())
    assert RunFolder.create(local, JOB, clean).environment == clean
    assert RunFolder.open(local).environment == clean


def test_importing_the_package_loads_neither_torch_nor_ray(python: Callable[..., Popen[str]]) -> None:
    script = (
        "import sys, lehr.runs; lehr.runs.collect_environment(); print(sorted({'torch', 'ray'} & set(sys.modules)))"
    )
    output, _ = python(script).communicate(timeout=60)
    assert output == "[]\n"


def test_the_specification_ships_with_the_package_and_names_every_column() -> None:
    text = (Path(lehr.runs.__file__).parent / "FORMAT.md").read_text()
    for columns in lehr.runs.COLUMNS.values():
        for name, column in columns.items():
            unit = column.unit + (", timing" if column.timing else "")
            assert f"| `{name}` | {column.type} | {unit} | {column.description} |" in text
    assert f"# The run folder, format {FORMAT}" in text


def test_a_job_with_a_format_of_its_own_keeps_ours(local: Folder) -> None:
    RunFolder.create(local, {"format": 7, "kind": "train"}, {})
    assert yaml.safe_load(local.read("job.yaml")) == {"format": FORMAT, "kind": "train"}
    with Lease.acquire(local):
        assert RunFolder.open(local).status() == "new"
