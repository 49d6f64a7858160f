"""Features computed once equal those that a frozen network would compute in every epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.training.conftest import job_of, synthetic

from lehr.data.batches import batches
from lehr.data.dataset import BatchSampler
from lehr.errors import JobError, LehrError
from lehr.models.small_cnn import SmallCNN
from lehr.runs import Folder, write_model
from lehr.training.setup import Plan
from lehr.transfer.features import FeatureExtractor, Features, compute_locally

CPU = torch.device("cpu")


def plan_of(**overrides: Any) -> Plan:
    return Plan.make(job_of(**{"model__norm": "batch", **overrides}), synthetic())


def network_of(plan: Plan) -> SmallCNN:
    model = plan.build_model().eval()
    assert isinstance(model, SmallCNN)
    return model


def test_features_are_the_inputs_of_the_head_in_evaluation_mode() -> None:
    plan = plan_of(model__dropout=0.5)
    extractor = FeatureExtractor(plan, CPU)
    model = network_of(plan).requires_grad_(False)
    rows = plan.splits.train
    found = extractor(rows, torch.arange(len(rows)))
    batch = rows.gather(torch.arange(len(rows)))
    order = batch.ids.argsort()
    expected = model.features(plan.inputs(batch.inputs)).mean(dim=(2, 3))[order]
    assert torch.allclose(found.values, expected, atol=1e-6)
    assert torch.equal(found.ids, batch.ids[order])
    assert torch.equal(found.labels, batch.targets[order])
    assert torch.allclose(model.head(found.values), model(plan.inputs(batch.inputs))[order], atol=1e-5)


def test_a_view_is_augmented_like_an_epoch_of_training() -> None:
    plan = plan_of(data__augment=["flip", "shift"])
    rows = plan.splits.train
    parts = list(compute_locally(plan, "train", torch.arange(len(rows)), views=3))
    assert [part.views.unique().tolist() for part in parts] == [[0], [1], [2]]
    one_batch = BatchSampler(len(rows), len(rows), 0, lambda key: torch.arange(len(rows)))
    augmented = next(batches(rows, one_batch, plan.augment, 1))
    model = network_of(plan)
    expected = model.features(plan.inputs(augmented.inputs)).mean(dim=(2, 3))[augmented.ids.argsort()]
    assert torch.allclose(parts[1].values, expected, atol=1e-5)
    assert not torch.allclose(parts[1].values, parts[0].values, atol=1e-3)


def test_random_weights_depend_on_the_seed_only_and_differ_from_the_pretrained_ones(tmp_path: Path) -> None:
    pretrained = plan_of(seed=5)
    write_model(Folder.at(tmp_path), pretrained.build_model().state_dict(), pretrained.describe_model().to_json())
    plan = plan_of(model__weights=f"run:{tmp_path}")
    positions = torch.arange(8)
    random, again = (FeatureExtractor(plan, CPU, random_weights=True) for _ in range(2))
    known = FeatureExtractor(plan, CPU)
    rows = plan.splits.train
    assert torch.equal(random(rows, positions).values, again(rows, positions).values)
    assert not torch.allclose(random(rows, positions).values, known(rows, positions).values, atol=1e-2)


def test_parquet_keeps_every_digit(tmp_path: Path) -> None:
    plan = plan_of(data__augment=["flip"])
    found = Features.concatenate(list(compute_locally(plan, "train", torch.arange(32), views=2)))
    found.write(Folder.at(tmp_path), "train")
    back = Features.read(Folder.at(tmp_path), "train")
    for name in ("ids", "labels", "views", "values"):
        assert torch.equal(getattr(back, name), getattr(found, name)), name
    some = back.originals().select(found.ids[:3])
    assert torch.equal(some.ids, found.ids[:3])
    assert torch.equal(some.values, found.values[:3])


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"PAR1")])
def test_missing_or_damaged_features_get_one_sentence(damage: Any, tmp_path: Path) -> None:
    plan = plan_of()
    next(compute_locally(plan, "train", torch.arange(32))).write(Folder.at(tmp_path), "train")
    damage(tmp_path / "features" / "train.parquet")
    with pytest.raises(LehrError, match=r"train\.parquet: missing or damaged; start over with --fresh"):
        Features.read(Folder.at(tmp_path), "train")


def test_a_network_without_a_linear_head_gets_one_sentence() -> None:
    plan = Plan.make(job_of(model={"name": "squeezenet1_1"}), synthetic(size=64))
    with pytest.raises(JobError, match="the head of squeezenet1_1 is not a linear layer with a bias"):
        FeatureExtractor(plan, CPU)
