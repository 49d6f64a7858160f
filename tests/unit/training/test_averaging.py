"""Averages of the weights follow their formulas, have batch-norm statistics of their own, and resume exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.training.conftest import job_of, plan_of
from torch import Tensor, nn

from lehr.durations import RunLength
from lehr.errors import JobError
from lehr.job import to_dict
from lehr.runs import Checkpoint, Folder, RunFolder, load, newest_valid, read_model
from lehr.runs.checkpoints import saved
from lehr.training.averaging import Average
from lehr.training.group import Group
from lehr.training.loop import train

TrainTiny = Callable[..., RunFolder]
EVERY_STEP = {"train__checkpoint": {"every": "1step", "keep": 1000}}


def checkpoints(run: RunFolder) -> list[Checkpoint]:
    """One for each step."""
    return [load(run.folder, name) for name in saved(run.folder).values()]


def close(found: dict[str, Tensor], expected: dict[str, Tensor], names: Iterator[str] | None = None) -> None:
    for name in names or expected:
        torch.testing.assert_close(found[name], expected[name].to(found[name]), rtol=1e-5, atol=1e-7, msg=name)


def test_ema_is_the_moving_average_of_the_weights(train_tiny: TrainTiny) -> None:
    run = train_tiny(train__averaging={"decay": 0.8}, model__norm="batch", **EVERY_STEP)
    found = checkpoints(run)
    average = plan_of(model__norm="batch").build_model().state_dict()
    for step, checkpoint in enumerate(found):
        decay = min(0.8, (1 + step) / (10 + step))
        average = {name: decay * value + (1 - decay) * checkpoint.model[name] for name, value in average.items()}
        assert checkpoint.average is not None
        floats = (name for name, value in checkpoint.model.items() if value.is_floating_point())
        close(checkpoint.average, average, floats)


def test_swa_is_the_mean_of_the_weights_from_its_start(train_tiny: TrainTiny) -> None:
    """Of eight steps, every second one from step 3: the weights after 3, 5 and 7 steps."""
    run = train_tiny(train__averaging={"kind": "swa", "start": "3step", "every": "2step"}, **EVERY_STEP)
    found = checkpoints(run)
    for steps, members in ((3, [3]), (4, [3]), (6, [3, 5]), (8, [3, 5, 7])):
        expected = {
            name: torch.stack([found[member - 1].model[name] for member in members]).mean(0) for name in found[0].model
        }
        average = found[steps - 1].average
        assert average is not None
        close(average, expected)


@pytest.mark.parametrize(("rows", "batches"), [(None, 2), (10, 1)])
def test_the_batch_norm_statistics_of_swa_are_those_of_a_fresh_pass(
    rows: int | None, batches: int, train_tiny: TrainTiny
) -> None:
    """All 32 training rows in batches of 16, or only the first 10 of their order: the mean over the batches."""
    options: dict[str, Any] = {"model__norm": "batch", "train__batch_size": 16, "train__precision": "fp64"}
    averaging = {"kind": "swa", "start": "50%", "every": "1ep", "statistics_rows": rows}
    run = train_tiny(train__averaging=averaging, train__epochs=4, **options)
    checkpoint, _ = newest_valid(run.folder)
    assert checkpoint is not None
    assert checkpoint.average is not None

    plan = plan_of(**options)
    model = plan.build_model()
    model.load_state_dict(checkpoint.average)
    seen: dict[str, list[Tensor]] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_hook(lambda _, inputs, __, name=name: seen.setdefault(name, []).append(inputs[0]))
    model.train()
    from lehr.data.randomness import key

    training = plan.splits.train
    order = training.order(key(plan.job.seed, "statistics"))[:rows]
    for positions in order.tensor_split(batches):
        model(plan.inputs(training.gather(positions).inputs))
    assert len(seen) == 3
    for name, inputs in seen.items():
        assert len(inputs) == batches
        means = [x.transpose(0, 1).flatten(1).mean(1) for x in inputs]
        variances = [x.transpose(0, 1).flatten(1).var(1) for x in inputs]
        close(checkpoint.average, {f"{name}.running_mean": torch.stack(means).mean(0).detach()})
        close(checkpoint.average, {f"{name}.running_var": torch.stack(variances).mean(0).detach()})


def test_raw_and_averaged_weights_are_both_evaluated_and_the_record_says_which_is_which(train_tiny: TrainTiny) -> None:
    averaging = {"kind": "swa", "start": "50%", "every": "1step"}
    for metric, which in (("averaged_validation_loss", "average"), ("validation_loss", "raw")):
        run = train_tiny(train__averaging=averaging, train__metric=metric, train__epochs=4, model__norm="batch")
        epochs = run.epochs()
        assert epochs["averaged_validation_loss"].null_count == 1  # the first epoch ends before the average begins
        assert epochs["validation_loss"].null_count == 0
        weights, description = read_model(run.folder)
        assert description["from"]["weights"] == which
        best = load(run.folder, saved(run.folder)[description["from"]["step"]])
        assert best.average is not None
        close(weights, best.average if which == "average" else best.model)
        # The recorded metric is that of the recorded weights.
        plan = plan_of(model__norm="batch")
        model = plan.build_model()
        model.load_state_dict(weights)
        batch = plan.splits.validation.gather(torch.arange(len(plan.splits.validation)))
        with torch.no_grad():
            loss = nn.functional.cross_entropy(model.eval()(plan.inputs(batch.inputs)), batch.targets)
        assert description["metrics"][metric] == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"train__averaging": {"decay": 0.9}},
        {"train__averaging": {"kind": "swa", "start": "25%", "every": "3step"}},
        {"train__precision": "fp16"},
        {"train__accumulate": 3, "optimizer": {"name": "adamw", "weight_decay": 0.01}},
    ],
)
def test_a_resumed_run_ends_as_one_that_never_stopped(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lehr.training.synchronisation.SYNC_SECONDS", 0.0)  # a stop is heard after every step
    plan = plan_of(model__norm="batch", train__epochs=4, **options)

    def run(name: str, stops: int) -> Checkpoint:
        made = RunFolder.create(Folder.at(tmp_path / name), to_dict(plan.job))
        for _ in range(stops):
            asked = iter([None] * 4)
            assert train(plan, made, Group(), partial(next, asked, "asked")) == "stopped"
        assert train(plan, made, Group()) == "finished"
        checkpoint, _ = newest_valid(made.folder)
        assert checkpoint is not None
        return checkpoint

    straight, resumed = run("straight", 0), run("resumed", 3)
    assert straight.step == resumed.step == 16
    for one, other in ((straight.model, resumed.model), (straight.average or {}, resumed.average or {})):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert straight.state["scaler"] == resumed.state["scaler"]
    assert bool(straight.state["scaler"]) == ("train__precision" in options)


@pytest.mark.parametrize(
    ("averaging", "sentence"),
    [
        (
            {"kind": "swa", "start": "12step"},
            "train.averaging: start 12step is step 12, after the end of the run of 8 steps; allowed: earlier, such as "
            "train.averaging.start=75%",
        ),
        (
            {"kind": "swa", "every": "0.1ep"},
            "train.averaging: every 0.1ep rounds to 0 steps; allowed: one step or more",
        ),
        ({"start": "1ep"}, "train.averaging: start belongs to swa, not to ema; did you mean kind: swa?"),
        ({"kind": "swa", "decay": 0.9}, "train.averaging: decay belongs to ema, not to swa; did you mean kind: ema?"),
    ],
)
def test_an_impossible_average_is_refused(averaging: dict[str, Any], sentence: str) -> None:
    with pytest.raises(JobError) as caught:
        plan_of(train__averaging=averaging)
    assert str(caught.value) == sentence


def test_only_swa_with_batch_norm_recomputes_statistics() -> None:
    swa = job_of(train__averaging={"kind": "swa", "start": "0%", "every": "2step"}).train.averaging
    ema = job_of(train__averaging="ema").train.averaging
    assert swa is not None
    assert ema is not None
    length, normed, plain = RunLength(4, 8), nn.BatchNorm1d(2), nn.Linear(2, 2)
    average = Average(swa, normed, length)
    assert [average.has_stale_statistics(steps) for steps in range(1, 5)] == [True] * 4
    average.recompute_statistics(normed, [torch.ones(4, 2)], 1)
    # The statistics stay valid until the average takes the next weights, after step 3.
    assert [average.has_stale_statistics(steps) for steps in range(1, 5)] == [False, False, True, True]
    assert not Average(swa, plain, length).has_stale_statistics(1)
    assert not Average(ema, normed, length).has_stale_statistics(1)
