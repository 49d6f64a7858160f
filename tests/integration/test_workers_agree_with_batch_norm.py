"""Batch norm, accumulation and averaging do not let the number of workers change what is trained."""

from __future__ import annotations

from pathlib import Path

import torch
from tests.support import largest_difference, records, tiny, train_here, weights

from lehr.runs import newest_valid


def test_batch_norm_accumulation_and_swa_are_the_same_on_1_2_and_4_workers(tmp_path: Path) -> None:
    job = tiny(
        model__norm="batch",
        train__precision="fp64",
        train__accumulate=3,
        train__epochs=2,
        train__averaging={"kind": "swa", "start": "50%", "every": "4step"},
        train__metric="averaged_validation_loss",
    )
    alone = train_here(job, tmp_path / "1")
    for workers in (2, 4):
        together = train_here(job, tmp_path / str(workers), workers=workers)
        for a, b in zip(records(alone), records(together), strict=True):
            assert largest_difference(a, b) < 1e-9
        for name, value in weights(alone).items():
            assert (value - weights(together)[name]).abs().max() < 1e-9, name


def test_without_synchronisation_all_workers_evaluate_with_the_statistics_of_the_first(tmp_path: Path) -> None:
    job = tiny(model__norm="batch", train__precision="fp64", train__epochs=1, train__sync_batch_norm=False)
    alone, together = train_here(job, tmp_path / "1"), train_here(job, tmp_path / "2", workers=2)
    assert largest_difference(records(alone)[0], records(together)[0]) > 1e-4
    checkpoint, _ = newest_valid(together.folder)
    assert checkpoint is not None
    from lehr.data.load import OpenedSources, splits
    from lehr.training.evaluation import evaluate
    from lehr.training.group import Group
    from lehr.training.setup import Plan

    plan = Plan.make(job, splits(job, OpenedSources(job).decode()))
    model = plan.build_model()
    model.load_state_dict(checkpoint.model)
    torch.set_num_threads(1)
    expected = evaluate(model, plan.splits.validation, plan, Group())["loss"]
    assert abs(together.epochs()["validation_loss"][0].as_py() - expected) < 1e-9
