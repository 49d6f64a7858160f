"""`time_limit`: a job that has taken as long as it may saves and stops, and goes on for as long again."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

import lehr
from lehr.driver.running import Interrupted
from lehr.durations import seconds_in
from lehr.errors import JobError
from lehr.runs import RunFolder

JOB: dict[str, Any] = {
    "kind": "train",
    "name": "long",
    "data": {"source": "digits", "limit": 100, "validation": 0.2},
    "model": {"name": "small_cnn", "width": 8},
    "train": {"epochs": 5000, "batch_size": 50},
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def messages(run: RunFolder) -> str:
    return "\n".join(f"{event['kind']}: {event['message']}" for event in run.events())


def test_it_saves_and_stops_and_goes_on_for_as_long_again() -> None:
    steps = []
    for _ in range(2):
        with pytest.raises(Interrupted, match=r"^Stopped by its time limit of 3s at epoch"):
            lehr.run({**JOB, "time_limit": "3s"}, debug=True)
        run = RunFolder.open("runs/long")
        assert run.status() == "stopped"
        training = run.progress().training
        assert training is not None
        steps.append(training.step)
    assert 0 < steps[0] < steps[1], "the second start did not go on, or had no time of its own"
    assert messages(run).count("stopped by its time limit of 3s") == 2


def test_a_job_that_is_done_earlier_takes_no_notice() -> None:
    job = {**JOB, "time_limit": "10min", "train": {"epochs": 1, "batch_size": 50}}
    assert lehr.run(job, debug=True).status == "finished"
    assert not any(thread.name == "lehr-time-limit" for thread in threading.enumerate())


def test_before_there_is_anything_to_save_it_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    download = threading.Event()

    def slow(*_: Any, **__: Any) -> None:
        download.wait(20)

    monkeypatch.setattr("lehr.kinds.train.train_here", slow)
    with pytest.raises(Interrupted, match=r"^Stopped by its time limit of 0\.3s before the first step\. Start again"):
        lehr.run({**JOB, "time_limit": "0.3s"}, debug=True)


def test_in_a_thread_which_hears_no_signals_it_stops_as_well() -> None:
    ends = []

    def work() -> None:
        try:
            lehr.run({**JOB, "time_limit": "3s"}, debug=True)
        except Interrupted as stopped:
            ends.append(str(stopped))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert len(ends) == 1
    assert ends[0].startswith("Stopped by its time limit of 3s at epoch")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45s", 45), ("30min", 1800), ("2h", 7200), ("1h 30min", 5400), ("1h30min", 5400), ("2d", 172800), ("1.5h", 5400)],
)
def test_times_are_read_with_their_units(text: str, seconds: float) -> None:
    assert seconds_in(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "h", "-2h", "0min", "30 minutes", "2h 3d", "1e3s", "nan s", "99999999999d"])
def test_what_is_no_time_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(JobError, match=r"time_limit: .* is not a time; allowed: above 0, with its unit: 45s"):
        lehr.run({**JOB, "time_limit": text})
