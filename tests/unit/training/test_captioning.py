"""Captioning trains, is measured, resumed and kept alike by any number of workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import largest_difference, records, train_here, weights
from tests.unit.data.coco import write_captions

from lehr import models
from lehr.data.load import OpenedSources, splits
from lehr.errors import JobError
from lehr.job import TrainJob, from_dict, to_dict
from lehr.runs import Folder, RunFolder
from lehr.runs.examples import Examples
from lehr.training.evaluation import evaluate
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan, check_job
from lehr.training.train_step import TrainStep


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # 22 rows in batches of 8: of two workers and of three parts each has rows of its own, and the last batch is ragged.
    return write_captions(tmp_path_factory.mktemp("captions") / "set", {"train": 22, "val": 7}, several=True)


def caption(path: Path, **overrides: Any) -> TrainJob:
    job = from_dict(
        {
            "kind": "train",
            "data": {"source": "annotations", "path": str(path), "augment": ["crop"]},
            "task": {"name": "captioning", "width": 16, "depth": 1, "heads": 2, "least_count": 1},
            "model": {"name": "small_cnn", "width": 8},
            "optimizer": {"name": "adam", "lr": 0.003},
            "train": {"epochs": 2, "batch_size": 8, "evaluated_training_rows": 4},
        },
        overrides={name.replace("__", "."): value for name, value in overrides.items()},
    )
    assert isinstance(job, TrainJob)
    return job


def plan_of(job: TrainJob) -> Plan:
    check_job(job)
    return Plan.make(job, splits(job, OpenedSources(job).decode()))


@pytest.mark.parametrize("decoder", ["transformer", "lstm"])
def test_two_workers_measure_and_keep_what_one_does(decoder: str, data: Path, tmp_path: Path) -> None:
    job = caption(data, train__precision="fp64", task__decoder=decoder)
    one = train_here(job, tmp_path / "one")
    two = train_here(job, tmp_path / "two", workers=2)
    for mine, theirs in zip(records(one), records(two), strict=True):
        assert largest_difference(mine, theirs) < 1e-9
    first, second = (Examples.read(run.folder) for run in (one, two))
    assert first is not None
    assert second is not None
    assert np.allclose(first.values, second.values, atol=1e-5)
    assert [each.caption for each in first.shown] == [each.caption for each in second.shown]
    assert np.all(one.epochs()["validation_perplexity"].to_numpy() > 1)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(data: Path, tmp_path: Path) -> None:
    def run(name: str, stop_after: int | None) -> RunFolder:
        plan = plan_of(caption(data, train__averaging="ema", train__early_stopping={"patience": 5}))
        folder = Folder.at(tmp_path / name)
        made = RunFolder.open(folder) if folder.exists("job.yaml") else RunFolder.create(folder, to_dict(plan.job))
        asked = iter(range(100))
        train(plan, made, Group(), lambda: "enough" if stop_after is not None and next(asked) >= stop_after else None)
        return RunFolder.open(folder)

    whole = run("whole", None)
    assert run("parts", 1).status() == "stopped"
    parts = run("parts", None)
    assert str([each.to_pydict() for each in records(whole)]) == str([each.to_pydict() for each in records(parts)])
    assert all(torch.equal(value, weights(parts)[name]) for name, value in weights(whole).items())


def test_streamed_captions_are_those_in_memory(data: Path) -> None:
    from lehr.data.streaming import ThreadDecoder

    job = caption(data)
    opened = OpenedSources(job)
    held = splits(job, opened.decode()).train
    streamed = splits(job, opened.stream(ThreadDecoder(1))).train
    some = torch.arange(5)
    assert torch.equal(held.gather(some).targets.values, streamed.gather(some).targets.values)
    assert torch.equal(held.gather(some).targets.starts, streamed.gather(some).targets.starts)


def test_which_caption_a_row_learns_depends_on_seed_epoch_and_row_alone(data: Path) -> None:
    plan = plan_of(caption(data))
    rows = torch.arange(1, 22, 2)  # which have two captions

    def learned(epoch: int, chosen: torch.Tensor) -> list[bytes]:
        targets = plan.augment(plan.splits.train.gather(chosen), epoch).targets
        return [row.numpy().tobytes() for row in targets.rows()]

    whole = [learned(epoch, rows) for epoch in range(6)]
    assert [learned(2, rows[k : k + 1])[0] for k in range(len(rows))] == whole[2]
    assert len({each[0] for each in whole}) == 2
    assert whole[0] != whole[1]
    other = plan_of(caption(data, seed=5, data__split_seed=0))
    assert [row.numpy().tobytes() for row in other.augment(other.splits.train.gather(rows), 2).targets.rows()] != whole[
        2
    ]


def test_parts_of_a_batch_add_up_to_the_whole(data: Path) -> None:
    found = []
    for parts in (1, 3):
        plan = plan_of(caption(data, train__gradient_accumulation=parts, train__precision="fp64"))
        model = plan.build_model()
        TrainStep(plan, model, Group())(plan.augment(plan.splits.train.gather(torch.arange(8)), 0), 8, 0)
        found.append(torch.cat([each.detach().flatten() for each in model.parameters()]))
    assert torch.allclose(found[0], found[1], atol=1e-10)


def test_measures_do_not_depend_on_how_many_rows_are_evaluated_at_once(data: Path) -> None:
    plan = plan_of(caption(data, train__precision="fp64"))
    model = plan.build_model()
    found = [evaluate(model, plan.splits.validation, plan, Group(), batch_size=size) for size in (1, 3, 7)]
    for other in found[1:]:
        assert other == pytest.approx(found[0], abs=1e-9, nan_ok=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task.decoder": "gru"}, r'task.decoder: "gru" is no decoder; allowed: transformer, lstm'),
        ({"task.beams": 3}, r"task.beams: .*did you mean beam"),
        ({"data.augment": ["mixup"]}, r"mixup mixes two images and their classes, and a row of captioning has no one"),
        ({"loss": "focal"}, r"loss.name: has no effect with task: captioning"),
        ({"metrics": ["f1"]}, r"metrics: captioning measures perplexity, BLEU-4, CIDEr and exact match by itself"),
        ({"data.per_class": 3}, r"needs one class a row, and captioning has none; type data.limit=100"),
        ({"data.classes": ["dog"]}, r"data.classes"),
        ({"data.source": "digits", "data.path": None}, r"its rows have no captions, which captioning learns"),
        ({"task": "classification"}, r"none of which is an annotation|boxes"),
    ],
)
def test_what_captioning_cannot_have_is_refused_with_what_to_type(
    data: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(JobError, match=said):
        plan_of(caption(data, **changes))


def test_flip_is_told_to_leave_left_and_right_as_they_are(data: Path) -> None:
    [note] = [each for each in plan_of(caption(data, data__augment=["flip"])).notes if "flip" in each]
    assert note == (
        "data.augment: flip mirrors images, and left and right in its captions stay as they are: leave it out where "
        "they count"
    )
    assert not [each for each in plan_of(caption(data)).notes if "flip" in each]


def test_a_classifiers_weights_start_the_encoder_and_a_captioners_all_with_the_same_words(data: Path) -> None:
    plan = plan_of(caption(data))
    made = plan.build_model()
    classifier = models.build("small_cnn", 1, 3, {"width": 8}, 5)
    own = {name: value.clone() for name, value in made.state_dict().items()}
    assert not models.start_from(made, classifier.state_dict(), plan.task.told_apart(()), ["a", "b", "c"])
    now = made.state_dict()
    for name, value in now.items():
        before = own[name] if name.startswith("head.") else classifier.state_dict()[name.removeprefix("backbone.")]
        assert torch.equal(value, before), name
    words = plan.task.told_apart(())
    assert models.start_from(plan_of(caption(data, seed=3)).build_model(), now, words, words)
    assert not models.start_from(plan.build_model(), now, words, [*words, "more"])
