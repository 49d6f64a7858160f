"""Run folders with small networks, made without training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support import tiny

from lehr import models
from lehr.job import to_dict
from lehr.runs import Folder, RunFolder, write_model


def make_run(folder: Path, seed: int = 0, classes: int = 10, mean: float = 0.3, channels: int = 1) -> RunFolder:
    """A run of a network with random weights that takes images of 8 × 8 pixels."""
    run = RunFolder.create(Folder.at(folder), to_dict(tiny(seed=seed)))
    description: dict[str, Any] = {
        "model": {"name": "small_cnn", "options": {"width": 8, "norm": "batch"}},
        "classes": [str(number) for number in range(classes)],
        "preprocess": {
            "height": 8,
            "width": 8,
            "channels": channels,
            "mean": (mean,) * channels,
            "std": (0.2,) * channels,
        },
        "dtype": "float32",
    }
    model = models.build("small_cnn", channels, classes, description["model"]["options"], seed)
    for value in model.buffers():  # statistics unlike those of a new layer
        if value.is_floating_point():
            value.add_(torch.rand(value.shape, generator=torch.Generator().manual_seed(seed)))
    write_model(run.folder, model.state_dict(), description)
    return run


@pytest.fixture
def trained(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "runs/one")


@pytest.fixture
def ensemble(tmp_path: Path) -> Callable[..., RunFolder]:
    """Makes an ensemble of three members with the given weights."""
    from lehr.predict import EnsembleDescription, EnsembleMember

    def make(weights: tuple[float, float, float] = (1.0, 2.0, 1.0), by: Any = "probabilities") -> RunFolder:
        run = RunFolder.create(Folder.at(tmp_path / f"runs/{by}"), to_dict(tiny()))
        for number in range(3):
            make_run(run.folder.local_path / f"members/{number + 1:02}", seed=number, mean=0.3 if number else 0.5)
        members = tuple(EnsembleMember(f"members/{number:02}", weight) for number, weight in enumerate(weights, 1))
        EnsembleDescription(by, members, "equal").write(run.folder)
        return run

    return make
