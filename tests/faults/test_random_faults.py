"""Whatever is killed, at any time, the run ends with the same record and weights as if nothing had happened.

`FAULTS=200` sets the number of random stories, `FAULT=117` runs a single one. Stories that are already in `FAULTS_LOG`
are not run again, so an interrupted `make faults` continues where it stopped.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest

from lehr.runs import RunFolder
from tests.faults.accidents import accident, two_at_once
from tests.faults.story import JOBS, Story, command, log_story, run_story
from tests.support import records, train_here, weights

FEW = 10  # `make faults` runs 200
IN_CI = (5, 9)  # a worker killed during a step; the whole command killed while it writes the model


def seeds() -> list[Any]:
    if "FAULT" in os.environ:
        return [int(os.environ["FAULT"])]
    log = Path(os.environ.get("FAULTS_LOG", os.devnull))
    done = {json.loads(line)["seed"] for line in log.read_text().splitlines()} if log.exists() else set()
    wanted = sorted(set(range(int(os.environ.get("FAULTS", FEW)))) - done)
    return [pytest.param(seed, marks=[] if seed in IN_CI else pytest.mark.slow) for seed in wanted]


TEMPORARY = re.compile(r"\..*\.tmp")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], RunFolder]:
    @cache
    def run(name: str, workers: int) -> RunFolder:
        folder = tmp_path_factory.mktemp("undisturbed") / "run"
        if workers:
            return train_here(JOBS[name][0], folder, workers)
        command(JOBS[name][0], folder)
        return RunFolder.open(folder)

    return run


@pytest.mark.parametrize("seed", seeds())
def test_a_run_with_accidents_ends_like_an_undisturbed_one(
    seed: int, undisturbed: Callable[[str, int], RunFolder], tmp_path: Path
) -> None:
    draw = random.Random(f"fault {seed}")
    name, workers = draw.choice(list(JOBS)), draw.choice([0, 0, 1, 2, 2, 3])
    (job, interval), count = JOBS[name], draw.choice([1, 1, 2, 3])
    at_once = [workers > 1 and draw.random() < 0.3 for _ in range(count)]
    accidents = [
        two_at_once(draw, workers, (tmp_path / f"{i}.0", tmp_path / f"{i}.1"))
        if both
        else (accident(draw, max(workers, 1), tmp_path / f"{i}.0"),)
        for i, both in enumerate(at_once)
    ]
    damaging = draw if draw.random() < 0.3 else None
    story = run_story(job, tmp_path / "run", workers, accidents, damaging)

    whole = undisturbed(name, workers)
    for one, other in zip(records(whole), records(story.run), strict=True):
        assert one.equals(other), f"{accidents}: the record differs"
    for key, value in weights(whole).items():
        assert value.equal(weights(story.run)[key]), f"{accidents}: {key} differs"
    assert story.run.status() == "finished"
    assert all(repeated <= interval for repeated in story.repeated), story
    _assert_reported(story)
    _assert_nothing_left(tmp_path / "run", workers)
    log_story(story, seed, workers)


def _assert_reported(story: Story) -> None:
    """One message for whoever watched, and one event in the record for each attempt that was interrupted."""
    for sentence in story.sentences:
        assert re.search("cannot (write|list|read|look up|create|delete|make)|cannot take its lease", sentence), (
            sentence
        )
    events = story.run.events()
    assert sum(event["kind"] in ("started", "resumed") for event in events) <= len(story.happened) + 1
    for event in events:
        if event["kind"] == "lost":
            assert re.fullmatch(r"attempt \d+ ended at step \d+: .{20,}", event["message"]), event


def _assert_nothing_left(folder: Path, workers: int) -> None:
    assert not [child for child in psutil.Process().children(recursive=True) if child.status() == psutil.STATUS_STOPPED]
    if workers == 0:  # the driver cleans up when it ends; workers alone do not
        assert not [file for file in folder.rglob(".*") if TEMPORARY.fullmatch(file.name)]
        assert not (folder / "lease.json").exists()
        assert not (folder / "lost.json").exists()
