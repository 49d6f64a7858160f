"""Resume is exact: killed and resumed equals never killed, to the last digit, at the same number of workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tests.support import Died, records, tiny, train_here, weights

from lehr.job import TrainJob
from lehr.runs import Folder, RunFolder

JOB = tiny(train__early_stopping={"patience": 3}, train__averaging={"decay": 0.9})
MID_EPOCH = tiny(train__checkpoint={"every": "4step"}, model__dropout=0.2)


def kill_at_write(ending: str) -> None:
    """SIGKILL in place of the write of the first file whose name ends like this."""
    original = Folder.write

    def write_or_die(self: Folder, name: str, data: bytes) -> None:
        if f"{self.uri}/{name}".endswith(ending):
            os.kill(os.getpid(), signal.SIGKILL)
        original(self, name, data)

    setattr(Folder, "write", write_or_die)  # noqa: B010  # in a process that ends here


def assert_equal(one: RunFolder, other: RunFolder) -> None:
    assert records(one)[0].equals(records(other)[0])
    assert records(one)[1].equals(records(other)[1])
    for name, value in weights(one).items():
        assert value.equal(weights(other)[name]), name


def test_the_same_job_twice_leaves_identical_records(tmp_path: Path) -> None:
    assert_equal(train_here(JOB, tmp_path / "a"), train_here(JOB, tmp_path / "b"))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("job", "accident"),
    [
        pytest.param(
            JOB, partial(kill_at_write, "checkpoints/step-0000000012-0001/optimizer.pt"), id="in-a-checkpoint"
        ),
        pytest.param(
            JOB, partial(kill_at_write, "checkpoints/step-0000000012-0001/manifest.json"), id="before-the-manifest"
        ),
        pytest.param(
            JOB, partial(kill_at_write, "checkpoints/step-0000000006-0001/model.safetensors"), id="in-the-first"
        ),
        pytest.param(JOB, partial(kill_at_write, "model/model-0001.json"), id="in-the-final-model"),
        pytest.param(
            MID_EPOCH, partial(kill_at_write, "checkpoints/step-0000000016-0001/state.json"), id="in-mid-epoch"
        ),
    ],
)
def test_killed_and_resumed_equals_never_killed(
    job: TrainJob, accident: Callable[..., None], workers: int, tmp_path: Path
) -> None:
    whole = train_here(job, tmp_path / "whole", workers)
    with pytest.raises(Died) as died:
        train_here(job, tmp_path / "killed", workers, prepare=accident)
    assert -signal.SIGKILL in died.value.args[0]
    resumed = train_here(job, tmp_path / "killed", workers)
    assert_equal(whole, resumed)
    assert sum(event["kind"] in ("started", "resumed") for event in resumed.events()) == 2


@pytest.mark.parametrize("damage", ["truncated", "bit flipped"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(damage: str, tmp_path: Path) -> None:
    whole = train_here(JOB, tmp_path / "whole")
    with pytest.raises(Died):
        train_here(JOB, tmp_path / "killed", prepare=partial(kill_at_write, "step-0000000018-0001/model.safetensors"))
    file = tmp_path / "killed/checkpoints/step-0000000012-0001/model.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content[: len(content) // 2] if damage == "truncated" else content)
    resumed = train_here(JOB, tmp_path / "killed")
    assert_equal(whole, resumed)
    said = [event["message"] for event in resumed.events() if event["kind"] == "checkpoint_skipped"]
    assert any("step-0000000012-0001/model.safetensors" in message and "damaged" in message for message in said)
    assert any("resumes from step 6" in event["message"] for event in resumed.events())


def test_a_second_attempt_on_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    before = train_here(JOB, tmp_path / "run")
    was = records(before), weights(before)
    after = train_here(JOB, tmp_path / "run")
    assert was[0][0].equals(records(after)[0])
    assert all(value.equal(weights(after)[name]) for name, value in was[1].items())
