"""One bit of each file of a stopped run of each kind flips, or the file is gone: the resumed run ends as undisturbed.

What cannot be had back is told: parts of a training's record, or a sentence that refuses. Of files that differ only in
their numbers, such as those of the trials of a search, one stands for all. `make faults` prints the table.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import lehr
from lehr.driver import Interrupted
from lehr.errors import LehrError, RunError
from lehr.runs import RunFolder, all_attempts, has_model
from lehr.training.metric_logger import MetricLogger
from tests.support import records, weights

pytestmark = pytest.mark.slow

TRAIN: dict[str, Any] = {
    "data": {"source": "digits", "limit": 200},
    "model": {"name": "small_cnn", "width": 8},
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
    "train": {
        "epochs": 4,
        "batch_size": 64,
        "evaluated_training_rows": 20,
        "checkpoint": {"every": "2step", "keep": 2},
    },
}
SHORT = {**TRAIN, "train": {**TRAIN["train"], "epochs": 2}}
INTERVAL = 3  # steps between two checkpoints: every second step, and the end of an epoch if it is the best


@dataclass(frozen=True)
class Kind:
    """A job, the change with which it is run first, and the number of epochs after which it is stopped then."""

    job: dict[str, Any]
    first: dict[str, Any]
    stop_after: int


KINDS = {
    "train": Kind({"kind": "train", **TRAIN}, {}, 3),
    "search": Kind(
        {
            "kind": "search",
            "base": SHORT,
            "space": {"optimizer.lr": {"choice": [0.01, 0.03, 0.1]}},
            "budget": {"trials": 3},
            "stopping": "none",
            "method": "grid",
        },
        {},
        3,
    ),
    "ensemble": Kind(
        {"kind": "ensemble", "method": "independent", "members": 2, "compare": False, "base": SHORT}, {}, 3
    ),
    "snapshots": Kind({"kind": "ensemble", "method": "snapshot", "cycles": 2, "compare": False, "base": TRAIN}, {}, 3),
    "transfer": Kind(
        {
            "kind": "transfer",
            "backbone": "run:pretrained",
            "strategy": ["features", "scratch"],
            "images_per_class": [],
            "features": {"steps": 20},
            "base": {name: SHORT[name] for name in ("data", "train")},
        },
        {},
        1,
    ),
    "recipe": Kind(
        {
            "kind": "recipe",
            "budget": "60ep",
            "base": {**SHORT, "train": {**SHORT["train"], "batch_size": 16}},
            "recipe": {
                "start_at": "overfit",
                "stop_after": "coarse",
                "learning_rates": [0.05, 0.1],
                "weight_decays": [0.0],
            },
        },
        {},
        3,
    ),
    "predict": Kind({"kind": "predict", "run": "run:pretrained", "data": {"source": "digits"}}, {}, 1000),
}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdout", io.StringIO())
    torch.set_num_threads(1)


def begin(kind: Kind, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the job until it is stopped."""
    epochs, log = 0, MetricLogger.epoch

    def stop_in_time(self: MetricLogger, *arguments: Any) -> None:
        nonlocal epochs
        epochs += 1
        if epochs == kind.stop_after:
            RunFolder.open(f"runs/{name}").request_stop("enough")
        log(self, *arguments)

    with monkeypatch.context() as patch, suppress(Interrupted):
        patch.setattr(MetricLogger, "epoch", stop_in_time)
        lehr.run({**kind.job, "name": name}, kind.first, debug=True)


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


def representatives(run: Path) -> list[str]:
    """A file for each pattern of names; the newest checkpoint and the others are two patterns."""
    files = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    newest = max((file.split("/")[-2] for file in files if "/step-" in f"/{file}"), default="")
    found: dict[str, str] = {}
    for file in files:
        if "/." in f"/{file}":
            continue
        pattern = re.sub(r"\d+", "N", file.replace(newest, "newest") if newest else file)
        found.setdefault(pattern, file)
    return list(found.values())


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_costs_at_most_one_interval_between_checkpoints(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = KINDS[name]
    lehr.run({"kind": "train", **SHORT, "name": "pretrained"}, debug=True)
    begin(kind, "stopped", monkeypatch)
    shutil.copytree("runs/stopped", "runs/whole")
    whole = resume(kind, "whole")
    rows = []
    for file in representatives(Path("runs/stopped")):
        for how in ("a bit flipped", "gone"):
            shutil.rmtree("runs/damaged", ignore_errors=True)
            shutil.copytree("runs/stopped", "runs/damaged")
            damaged = Path("runs/damaged", file)
            damaged.unlink() if how == "gone" else damaged.write_bytes(flip(damaged.read_bytes()))
            rows.append((name, file, how, consequence(kind, whole)))
    with capsys.disabled():
        for row in rows:
            print(" | ".join(row))


def consequence(kind: Kind, whole: RunFolder) -> str:
    """What the damage cost, in words. Fails where it is more than what is promised."""
    try:
        run = resume(kind, "damaged")
    except LehrError as error:
        return f"refused: {str(error).splitlines()[0][:110]}"
    assert run.status() == whole.status()
    if len(whole.children("members")) > len(run.children("members")):
        return "a member is left out, told"
    said = [compare(one, Path(run.folder.uri, name)) for name, one in trainings(whole).items()]
    assert_same_result(whole, run)
    return "; ".join(sorted(set(filter(None, said)))) or "nothing"


def compare(whole: RunFolder, folder: Path) -> str:
    """What one training lost, in words; empty for nothing."""
    try:
        run = RunFolder.open(folder)
        found = records(run)
    except RunError:  # it had ended, so that nobody writes it again
        return "a finished trial, told when it is read"
    told = {event["kind"] for event in run.events()}
    # Both resume with their last attempt: one from where the stopped run was, the other from where it could.
    repeated = all_attempts(whole.folder)[-1].step - all_attempts(run.folder)[-1].step
    for one, other in zip(records(whole), found, strict=True):
        if not one.equals(other):
            if len(all_attempts(run.folder)) == 1:
                return "parts of the record of a finished trial"
            assert "record_lost" in told, f"{run.folder.uri}: the record differs, and nobody said so"
            return "parts of the record, told"
    assert repeated <= INTERVAL
    return f"{repeated} steps repeated" if repeated > 0 else ""


def assert_same_result(whole: RunFolder, run: RunFolder) -> None:
    ends = whole.outcome(), run.outcome()
    assert ends[0]
    assert ends[1]
    assert (ends[0].status, ends[0].best) == (ends[1].status, ends[1].best)
    if has_model(whole.folder):
        for key, value in weights(whole).items():
            assert value.equal(weights(run)[key]), key


def trainings(run: RunFolder) -> dict[str, RunFolder]:
    """The trainings in a run that have a record, by the names of their folders."""
    root = Path(run.folder.uri)
    found = {str(path.parent.relative_to(root)): RunFolder.open(path.parent) for path in root.rglob("job.yaml")}
    return {name: each for name, each in found.items() if each.folder.files("epochs")}


def resume(kind: Kind, name: str) -> RunFolder:
    job: dict[str, Any] = {**kind.job, "name": name}
    done: Callable[..., Any] = lehr.run
    return done(job, debug=True).record
