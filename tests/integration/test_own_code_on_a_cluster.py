"""Every kind of own code in one file beside the job, sent to a cluster of two nodes: the run equals the one here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support import records, weights

from lehr.runs import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

JOB = """\
kind: train
data: {source: digits, limit: 330, augment: [{name: mine:dim, least: 0.7}, {name: mine:Patch, pixels: 2}]}
model: {name: mine:Net, width: 8, seen: SEEN}
loss: {name: mine:focal, gamma: 1.5}
metrics: [{name: mine:hardest_class, better: higher}]
optimizer: {name: mine:SignSGD, lr: 0.002}
schedule: {name: mine:staircase, warmup: 1ep}
callbacks: [{name: mine:Diary, file: diary, stop_at: 3}]
train: {epochs: 5, batch_size: 64, precision: fp64, evaluated_training_rows: 100}
workers: {count: 2, cpus: 2}
"""
MINE = """\
import json
import random
from pathlib import Path

import ray
import torch
from torch import nn
from torch.nn import functional as F

import sizes


def focal(outputs, targets, gamma: float):
    each = F.cross_entropy(outputs, targets, reduction="none")
    return (1 - (-each).exp()) ** gamma * each


def hardest_class(outputs, targets):
    right = outputs.argmax(dim=1) == targets
    return torch.stack([right[targets == label].double().mean() for label in targets.unique()]).min()


def dim(images, draw, least: float):
    return images * (least + (1 - least) * draw(0))[:, None, None, None].float()


class Patch:
    def __init__(self, pixels: int):
        self.pixels = pixels

    def __call__(self, image):
        top, left = (random.randrange(side - self.pixels) for side in image.shape[1:])
        image[:, top : top + self.pixels, left : left + self.pixels] = 0
        return image


class SignSGD(torch.optim.Optimizer):
    def __init__(self, params, lr: float):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad.sign(), alpha=group["lr"])


def staircase(progress: float, stairs: int = 4) -> float:
    return 0.5 ** int(progress * stairs)


class Net(nn.Sequential):
    def __init__(self, channels: int, outputs: int, seen: str, width: int = 4):
        if ray.is_initialized():  # not where lehr only looks at it
            Path(seen, ray.get_runtime_context().get_node_id()).touch()
        super().__init__(nn.Conv2d(channels, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(sizes.LEFT * width, outputs))


class Diary:
    def __init__(self, file: str, stop_at: int):
        self.file, self.stop_at = Path(file), stop_at

    def epoch_end(self, moment):
        with Path(moment.run, self.file).open("a") as file:
            print(json.dumps([moment.epoch, moment.step, moment.workers, dict(moment.metrics)]), file=file)
        if moment.epoch == self.stop_at:
            return "seen enough"
"""
TRAP = "raise AssertionError('a file beside the job was imported in place of the library')\n"


@pytest.fixture
def lehr(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """The lehr command, while a cluster of two nodes with two CPUs each is running: room for one worker on either."""
    environment = {**os.environ, "LEHR_STATE": str(tmp_path / "state"), "LEHR_STORAGE": str(tmp_path / "runs")}

    def call(*words: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "lehr", *words], capture_output=True, text=True, timeout=400, check=False,
            cwd=tmp_path, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    call("cluster", "up", "--nodes", "2", "--cpus", "2")
    yield call
    call("cluster", "down")


def test_the_run_on_two_nodes_is_the_run_here(lehr: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "sizes.py").write_text("LEFT = 36\n")
    for name in ("statistics", "pandas", "filecmp", "sched", "stat"):
        (tmp_path / f"{name}.py").write_text(TRAP)
    (tmp_path / "seen").mkdir()
    (tmp_path / "job.yaml").write_text(JOB.replace("SEEN", str(tmp_path / "seen")))
    lehr("submit", "job.yaml", "name=there", "--follow")
    assert len(list((tmp_path / "seen").iterdir())) >= 2
    lehr("run", "job.yaml", "name=here")
    here, there = (RunFolder.open(tmp_path / "runs" / name) for name in ("here", "there"))
    assert all(one.equals(other) for one, other in zip(records(here), records(there), strict=True))
    assert all((value == weights(there)[name]).all() for name, value in weights(here).items())
    diaries = [(tmp_path / "runs" / name / "diary").read_text() for name in ("here", "there")]
    assert diaries[0] == diaries[1]
    assert [json.loads(line)[0] for line in diaries[0].splitlines()] == [1, 2, 3]
    assert there.progress().message == "stopped early after epoch 3: mine:Diary asks to stop: seen enough"
