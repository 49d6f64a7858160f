"""A tracker that is slow, broken or away costs the run nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lehr.job import from_dict
from lehr.kinds import run_job
from lehr.runs import RunFolder
from lehr.tracking.process import tracked

TINY: dict[str, Any] = {
    "kind": "train",
    "name": "tiny",
    "data": {"source": "digits", "limit": 60},
    "model": {"name": "small_cnn", "width": 8},
    "train": {"epochs": 1, "batch_size": 30},
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fake(package: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of this name that does what `code` says when it is imported, here and in every process."""
    Path("packages", package).mkdir(parents=True)
    Path("packages", package, "__init__.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", f"{Path('packages').absolute()}:{_path()}")
    monkeypatch.syspath_prepend("packages")


def _path() -> str:
    import lehr

    return str(Path(lehr.__file__).parents[1])


def test_a_job_writes_to_its_tracker_while_it_runs(capfd: pytest.CaptureFixture[str]) -> None:
    run = run_job(from_dict({**TINY, "tracking": ["tensorboard"]}), debug=True)
    assert list((run.folder.local_path / "tensorboard").glob("events.out.tfevents*"))
    note = run.folder.read_json("tracking-tensorboard.json")
    assert (note["ended"], note["step"]) == ("finished", len(run.steps()) - 1)
    assert "tracking:" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("code", "wait", "told"),
    [
        ("import time; time.sleep(600)", 4.0, "trackio did not take everything within 4 s"),
        ("raise OSError('no route to host')", 60.0, "trackio: OSError: no route to host"),
        ("import os; os._exit(7)", 60.0, "trackio ended with exit code 7"),
    ],
)
def test_a_tracker_that_hangs_fails_or_dies_is_told_in_a_line(
    code: str, wait: float, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lehr.tracking.process.WAIT", wait)
    run = run_job(from_dict(TINY), debug=True)
    fake("trackio", code, monkeypatch)
    lines: list[str] = []
    with tracked(RunFolder.open(run.folder), ["trackio"], lines.append, lambda text: None):
        pass
    (line,) = lines
    assert line.startswith(f"tracking: {told}")
    assert line.endswith(f"the run is not affected. To go on: lehr track {run.folder.local_path} --to trackio")
    assert run.status() == "finished"


def test_an_error_of_the_job_is_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_job(from_dict(TINY), debug=True)
    with pytest.raises(KeyError), tracked(run, ["tensorboard"], print, lambda text: None):
        raise KeyError("the job's own")
    assert run.folder.read_json("tracking-tensorboard.json")["ended"] == "finished"
