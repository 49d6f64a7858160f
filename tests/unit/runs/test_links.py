"""Nothing in a run folder is written or deleted through a link; the run folder and its storage may be links."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import pytest

from lehr.cli.rm import delete
from lehr.errors import LehrError, StorageError
from lehr.runs import Folder, Lease, RunFolder, begin_attempt, lease

JOB = {"kind": "train"}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = RunFolder.create(Folder.at(tmp_path / "runs/run"), JOB)
    made.folder.write("steps/part-0001-000001.parquet", b"of the run")
    return made


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Somebody else's folder."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("mine")
    return tmp_path / "mine"


def replace_by_link(path: Path, target: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.symlink_to(target)


@pytest.mark.parametrize("kind", ["steps", "epochs"])
def test_a_new_attempt_deletes_no_file_behind_a_link(run: RunFolder, mine: Path, kind: str) -> None:
    replace_by_link(run.folder.local_path / kind, mine)
    begin_attempt(run.folder, workers=1, checkpoint=None)
    assert (mine / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["steps/file", "trials/0001/steps/file", "checkpoints/step-1/file"])
def test_nothing_is_written_or_deleted_behind_a_link(run: RunFolder, mine: Path, name: str) -> None:
    path = run.folder.local_path / name
    path.parent.parent.mkdir(parents=True, exist_ok=True)
    replace_by_link(path.parent, mine)
    for folder, inside in ((run.folder, name), (run.folder.child(name.rpartition("/")[0]), "file")):
        for use in (
            partial(folder.write, inside, b""),
            partial(folder.create, f"{inside}-new", b""),
            partial(folder.delete, inside),
            folder.child(inside).delete_all,
        ):
            with pytest.raises(StorageError, match="is a link, and nothing in a run is written or deleted through"):
                use()
    assert (mine / "file").read_text() == "mine"
    assert os.listdir(mine) == ["file"]
    run.folder.child(name.rpartition("/")[0]).delete_all()  # of the link itself
    assert not os.path.lexists(path.parent)
    assert (mine / "file").read_text() == "mine"


def test_a_run_and_its_storage_may_be_links(tmp_path: Path, run: RunFolder) -> None:
    (tmp_path / "job.yaml").write_text("kind: train\n")  # the job file of a project, beside its storage
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    (tmp_path / "runs/again").symlink_to(tmp_path / "runs/run")
    for path in ("link/run", "runs/again", "link/again"):
        opened = RunFolder.open(tmp_path / path)
        opened.folder.write("steps/part-0001-000002.parquet", b"x")
        assert run.folder.read("steps/part-0001-000002.parquet") == b"x"
        opened.folder.delete("steps/part-0001-000002.parquet")
        with Lease.acquire(opened.folder):
            assert run.status() == "new"


def test_rm_of_a_linked_run_deletes_the_run_and_the_link(tmp_path: Path, run: RunFolder) -> None:
    (tmp_path / "runs/again").symlink_to(tmp_path / "runs/run")
    delete(Folder.at(tmp_path / "runs/again"))
    assert os.listdir(tmp_path / "runs") == []


def test_rm_ends_although_the_lease_is_renewed_meanwhile(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.001)
    for number in range(300):
        run.folder.write(f"checkpoints/step-{number}/state.json", b"{}")
    delete(run.folder)
    assert os.listdir(run.folder.local_path.parent) == []


def test_rm_frees_the_name_at_once(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk may take minutes to delete a run; a new one of the name can begin meanwhile, and is not deleted."""
    remove = shutil.rmtree

    def slowly(path: str) -> None:
        RunFolder.create(Folder.at(run.folder.uri), {"kind": "train", "seed": 2})
        remove(path)

    monkeypatch.setattr(shutil, "rmtree", slowly)
    run.folder.delete_all()
    assert RunFolder.open(run.folder.uri).job["seed"] == 2
    assert os.listdir(run.folder.local_path.parent) == ["run"]


def test_what_a_killed_deletion_left_is_swept(run: RunFolder) -> None:
    left = run.folder.local_path / ".steps.0123456789ab.tmp"
    (left / "deep").mkdir(parents=True)
    run.folder.sweep()
    assert not left.exists()


@pytest.mark.parametrize("name", ["log.txt"])
def test_the_log_is_never_appended_to_through_a_link(run: RunFolder, mine: Path, name: str) -> None:
    from lehr.screen import quiet

    (run.folder.local_path / name).symlink_to(mine / "file")
    with pytest.raises(LehrError, match=r"log\.txt: cannot be written"), quiet(run.folder.local_path / name):
        print("appended")
    assert (mine / "file").read_text() == "mine"
