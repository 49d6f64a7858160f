"""`lehr resume` says where a run goes on and whose code it takes; watching a job says how to leave it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support import tiny

from lehr.cli.main import app
from lehr.cli.resume import code_folder
from lehr.cli.submit import watch
from lehr.driver.run_folder import open_run
from lehr.job import Job, to_dict
from lehr.kinds import kind_named
from lehr.runs import Claim, Environment, Folder, RunFolder
from lehr.submission.backend import Request, Submission


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_API_SERVER_ADDRESS", "LEHR_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("lehr.ray_cluster.local_cluster.running", lambda: None)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


def run_of(here: Path, **environment: Any) -> RunFolder:
    job = {**to_dict(tiny()), "storage": str(here / "runs"), "name": "mine"}
    return RunFolder.create(Folder.at(here / "runs" / "mine"), job, replace(Environment(), **environment))


def test_a_run_that_a_cluster_began_says_that_it_goes_on_here(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[Job] = []
    monkeypatch.setattr("lehr.kinds.run_job", lambda job, **_: ran.append(job))
    run_of(here, submitted_from=str(here))
    said = "mine was begun on a cluster, and none is given or running here: it goes on on this machine. On a cluster "
    for options, told in (([], True), (["--here"], False)):
        app(["resume", "mine", "--storage", str(here / "runs"), *options], standalone_mode=False)
        assert capsys.readouterr().out.startswith(said) is told
    assert len(ran) == 2


def test_a_submitted_job_keeps_the_folder_that_was_sent_with_it(here: Path) -> None:
    job = {**to_dict(tiny()), "storage": str(here / "runs"), "name": "mine"}
    made = Request("mine", job, root=str(here / "code"), folder=str(here / "code")).load()
    folder = Folder.at(here / "runs" / "mine")
    open_run(kind_named("train"), made, folder, None, Claim(folder.uri, "me"), fresh=False)
    assert RunFolder.open(folder).environment.submitted_from == str(here / "code")


@pytest.mark.parametrize("field", ["submitted_from", "job_file"])
def test_modules_come_from_the_folder_that_a_run_was_made_in(
    field: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = here / "code"
    run_of(here, **{field: str(code if field == "submitted_from" else code / "job.yaml")})
    assert code_folder("mine", str(here / "runs")) == Path.cwd()
    assert "code, where the run was made, is not on this machine" in capsys.readouterr().out
    code.mkdir()
    assert code_folder("mine", str(here / "runs")) == code
    assert "where the run was made." in capsys.readouterr().out
    monkeypatch.setenv("HOME", str(code))  # a run of somebody else's may name any folder
    assert code_folder("mine", str(here / "runs")) == Path.cwd()


def test_watching_says_how_to_leave_and_ctrl_c_leaves_the_job_running(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Jobs:
        address, option = "http://head:8265", ""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lehr.submission.follow.follow", interrupted)
    watch(Jobs(), Submission("mine-1", "mine", 1, "running"))  # type: ignore[arg-type]
    first, *_, last = capsys.readouterr().out.strip().splitlines()
    assert first == "Watching mine. Ctrl-C stops the watching; mine keeps running."
    assert last == "No longer watching; mine keeps running. Watch it again: lehr attach mine"
