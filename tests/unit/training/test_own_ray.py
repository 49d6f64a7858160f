"""On the job's own Ray nothing runs that asks a dashboard which is not there."""

from __future__ import annotations

import pytest
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

from lehr.training.ray_train import _Trainer


@pytest.mark.parametrize(("address", "kept"), [("", 1), ("10.0.0.1:6379", 2)])
def test_the_cleaner_of_placement_groups_runs_on_clusters_only(
    address: str, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rays = [PlacementGroupCleanerCallback(), object()]
    monkeypatch.setattr(TorchTrainer, "_create_default_callbacks", lambda self: rays)
    monkeypatch.setenv("RAY_ADDRESS", address)
    found = _Trainer._create_default_callbacks(object.__new__(_Trainer))
    assert len(found) == kept
    assert rays[1] in found
