"""Own optimizers, schedules and augmentations, and LAMB, LARS and Muon: exact with any workers and after a resume."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support import Died, largest_difference, records, tiny, train_here, weights

from lehr.job import TrainJob, to_dict
from lehr.runs import Folder
from lehr.trust import give

MINE = """
import math
import random

import numpy as np
import torch


class Noisy(torch.optim.SGD):
    '''SGD with a little noise, as in Langevin dynamics.'''

    def __init__(self, params, lr, weight_decay=0.0, noise: float = 1e-3):
        super().__init__(params, lr=lr, weight_decay=weight_decay, momentum=0.9)
        self.noise = noise

    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.add_(torch.randn_like(parameter), alpha=self.noise * group["lr"])


def triangle(progress, step, total, peak: float = 0.5):
    return progress / peak if progress < peak else (1 - progress) / (1 - peak)


def noise(images, draw, *, strength: float = 8.0):
    return images.float() + (draw(0) * strength)[:, None, None, None].float()


class Wobble:
    '''Draws from all three generators that a transform may draw from.'''

    def __init__(self, by: int = 1):
        self.by = by

    def __call__(self, image):
        dark = random.uniform(0.8, 1) * np.random.uniform(0.8, 1)
        return (image.roll(int(torch.randint(0, self.by + 1, ())), 2) * dark).to(torch.uint8)
"""

SECTIONS: dict[str, dict[str, Any]] = {
    "own optimizer": {"optimizer": {"name": "mine:Noisy", "lr": 0.05, "weight_decay": 1e-4, "noise": 0.01}},
    "own schedule": {"schedule": {"name": "mine:triangle", "peak": 0.3}},
    "own batch augmentation": {"data__augment": [{"name": "mine:noise", "strength": 20.0}, "shift"]},
    "own image transform": {"data__augment": ["mine:Wobble", "mixup"]},
    "torchvision": {"data__augment": [{"name": "torchvision.transforms.v2:ColorJitter", "brightness": 0.4}]},
    "muon": {"optimizer": {"name": "muon", "weight_decay": 0.01}},
    "lamb": {"optimizer": {"name": "lamb", "weight_decay": 0.01}},
    "lars": {"optimizer": {"name": "lars", "weight_decay": 0.01}},
}


def of_the_user(folder: Path, job: TrainJob, dies_at: str = "") -> None:
    """Makes a worker's process that of the user, who gives the job; it dies when it writes a file of this name."""
    sys.path.insert(0, str(folder))
    give(to_dict(job))
    write = Folder.write

    def write_or_die(self: Folder, name: str, data: bytes) -> None:
        if dies_at and f"{self.uri}/{name}".endswith(dies_at):
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, name, data)

    setattr(Folder, "write", write_or_die)  # noqa: B010  # in a process that ends here


ALL_OWN = {
    **SECTIONS["own optimizer"],
    **SECTIONS["own schedule"],
    "data__augment": [
        each for name in ("own batch augmentation", "torchvision") for each in SECTIONS[name]["data__augment"]
    ]
    + SECTIONS["own image transform"]["data__augment"],
}


@pytest.mark.parametrize(
    "sections",
    [
        pytest.param(ALL_OWN, id="all own"),
        *(
            pytest.param(sections, id=name, marks=() if name == "muon" else pytest.mark.slow)
            for name, sections in SECTIONS.items()
        ),
    ],
)
def test_one_and_two_workers_agree_and_a_resume_is_exact(sections: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    job = tiny(
        data__limit=130, train__epochs=2, train__precision="fp64", train__checkpoint={"every": "2step"}, **sections
    )
    mine, dies = of_the_user, "step-0000000004-0001/manifest.json"
    alone = train_here(job, tmp_path / "alone", 1, prepare=partial(mine, tmp_path, job))
    both = train_here(job, tmp_path / "both", 2, prepare=partial(mine, tmp_path, job))
    assert largest_difference(records(alone)[0], records(both)[0]) < 1e-9
    for name, value in weights(alone).items():
        assert (value - weights(both)[name]).abs().max() < 1e-9, name
    with pytest.raises(Died):
        train_here(job, tmp_path / "killed", 2, prepare=partial(mine, tmp_path, job, dies))
    resumed = train_here(job, tmp_path / "killed", 2, prepare=partial(mine, tmp_path, job))
    assert any("resumes from step 3" in event["message"] for event in resumed.events())
    assert [one.equals(other) for one, other in zip(records(both), records(resumed), strict=True)] == [True, True]
    for name, value in weights(both).items():
        assert value.equal(weights(resumed)[name]), name
