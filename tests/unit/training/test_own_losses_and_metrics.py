"""Losses and metrics of a user's own: trained exactly, or refused with a sentence before the first step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.training.conftest import job_of, losses, plan_of, synthetic
from torch import Tensor
from torch.nn import functional as F

from lehr.data.dataset import UNREADABLE, Batch, DataSubset
from lehr.errors import JobError, LehrError
from lehr.kinds.train import summary
from lehr.models.description import ModelDescription
from lehr.own_code import OwnCodeError
from lehr.predict import load_predictor
from lehr.predict.predictor import Network
from lehr.runs import RunFolder, read_model
from lehr.training.evaluation import evaluate
from lehr.training.group import Group
from lehr.training.setup import Plan
from lehr.training.train_step import TrainStep
from lehr.transfer.results import accuracy_of

OWN = "tests.users_code"


# ── refused before the first step ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("loss", "field", "says"),
    [
        ("focall", "loss.name", '"focall" is not a loss; did you mean focal?'),
        ({"name": "bce", "gamma": 2.0}, "loss.gamma", "unknown option; allowed: pos_weight, target_threshold"),
        ({"name": "focal", "gamma": -1.0}, "loss.gamma", "-1.0 is out of range; allowed: 0 or more"),
        ({"name": "focal", "gamma": "two"}, "loss.gamma", '"two" is not a number'),
        ({"name": "bce", "target_threshold": 1.0}, "loss.target_threshold", "1.0 is out of range"),
        ({"name": "poly", "epsilon": -2}, "loss.epsilon", "-2 is out of range"),
        (f"{OWN}:focl", "loss.name", "tests.users_code has no focl; it has focal"),
        (f"{OWN}:nothing", "loss.name", "tests.users_code:nothing is 3; allowed: a function or a class"),
        ({"name": f"{OWN}:focal", "gama": 1}, "loss.gama", "unknown option; did you mean gamma?"),
        ({"name": f"{OWN}:focal", "label_smoothing": 0.1}, "loss.label_smoothing", "has no parameter label_smoothing"),
        ({"name": f"{OWN}:Focal", "class_weights": "balanced"}, "loss.class_weights", "has no parameter class_weights"),
        (
            f"{OWN}:summed",
            "loss",
            "returned float32 [] for outputs [7, 3], which doubles when all rows are there twice",
        ),
        (f"{OWN}:of_each_class", "loss", "returned float32 [7, 3] for outputs [7, 3]; allowed: a tensor [7]"),
        (f"{OWN}:number", "loss", "allowed: a tensor [7] with the loss of each row, or the mean over the rows"),
        (f"{OWN}:detached", "loss", "has no gradient with respect to the outputs"),
        (f"{OWN}:mistakes", "loss", "returned int64 [7] for outputs [7, 3], which has no gradient"),
        (f"{OWN}:random", "loss", "draws random numbers, or keeps something from one call to the next"),
        (f"{OWN}:Remembers", "loss", "draws random numbers, or keeps something from one call to the next"),
        (f"{OWN}:Learns", "loss", "has parameters of its own, which no optimizer would train"),
    ],
)
def test_a_loss_that_cannot_be_trained_is_refused(loss: Any, field: str, says: str) -> None:
    with pytest.raises(JobError) as refused:
        plan_of(loss=loss)
    assert refused.value.field == field
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("section", [{"loss": f"{OWN}:raises"}, {"metrics": [f"{OWN}:raises"]}])
def test_an_error_in_their_code_names_their_line_and_the_shapes(section: Any) -> None:
    with pytest.raises(OwnCodeError) as told:
        plan_of(**section)
    said = str(told.value)
    assert "tests.users_code:raises failed: AttributeError" in said
    assert "users_code.py:" in said
    assert "(return outputs.missing" in said
    assert ", 3], targets: int64 [" in said


MIX = [{"name": "mixup"}]


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "bce", "poly", f"{OWN}:soft_margin"])
def test_mixed_images_train_with_a_loss_of_shares(name: str) -> None:
    plan_of(loss=name, data__augment=MIX)


@pytest.mark.parametrize("name", [f"{OWN}:focal", f"{OWN}:Focal"])
def test_mixed_images_are_refused_with_a_loss_of_classes(name: str) -> None:
    plan_of(loss=name)
    with pytest.raises(JobError, match=r"cannot be trained on mixed images: mixup and cutmix give it targets \[7, 3\]"):
        plan_of(loss=name, data__augment=MIX)


@pytest.mark.parametrize(
    ("metrics", "field", "says"),
    [
        (["fscore"], "metrics.0.name", '"fscore" is not a metric; allowed: top_k_accuracy'),
        (["f1", "f1"], "metrics.1", '"f1" is measured already; allowed: another name, with label'),
        ([{"name": "f1", "label": "accuracy"}], "metrics.0", '"accuracy" is measured already'),
        ([{"name": "f1", "average": "both"}], "metrics.0.average", '"both" is not'),
        (["top_k_accuracy"], "metrics.0", "k: 5 is out of range; allowed: 1 to the number of classes, 3"),
        ([{"name": "top_k_accuracy", "k": 4}], "metrics.0.k", "4 is out of range"),
        ([{"name": f"{OWN}:spread", "hi": 1}], "metrics.0.hi", "unknown option; allowed: low, label, better"),
        ([f"{OWN}:focal"], "metrics.0", "the metric focal returns Tensor [16]; allowed: a number, one for each"),
        ([f"{OWN}:Learns"], "metrics.0.name", "has no method update"),
        ([f"{OWN}:none"], "metrics.0.name", "tests.users_code has no none"),
        ([{"name": "f1", "label": "f-1"}], "metrics.0.label", '"f-1" is not a label'),
    ],
)
def test_a_metric_that_cannot_be_measured_is_refused(metrics: Any, field: str, says: str) -> None:
    with pytest.raises(JobError) as refused:
        plan_of(metrics=metrics)
    assert refused.value.field == field
    assert says in str(refused.value)


@pytest.mark.parametrize("field", ["train.metric", "train.early_stopping.metric"])
def test_what_chooses_must_be_recorded_and_say_which_values_are_better(field: str) -> None:
    chosen: dict[str, Any] = {field.replace(".", "__"): "validation_f1_of_each_b"}
    with pytest.raises(JobError, match=r'"validation_f1_of_each_b" is not recorded; allowed: .*validation_accuracy'):
        plan_of(**chosen)
    with pytest.raises(JobError, match=r"f1_of_each does not say which values are better.*allowed: better: higher"):
        plan_of(metrics=[f"{OWN}:f1_of_each"], **chosen)
    plan_of(metrics=[{"name": f"{OWN}:f1_of_each", "better": "higher"}], **chosen)


def test_a_metric_that_changes_its_names_ends_the_run() -> None:
    plan = plan_of(metrics=[f"{OWN}:flipping"])
    with pytest.raises(
        LehrError, match=r"measured flipping_\w where they were to measure flipping_\w; allowed: the same"
    ):
        evaluate(plan.build_model(), plan.splits.validation, plan, Group())


# ── which values are better ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("metrics", "column", "lower"),
    [
        ([], "validation_loss", True),
        ([], "averaged_validation_accuracy", False),
        (["f1"], "validation_f1", False),
        ([f"{OWN}:ErrorRate"], "validation_error_rate", True),
        ([f"{OWN}:ErrorRate"], "averaged_validation_error_rate", True),
        ([{"name": f"{OWN}:ErrorRate", "better": "higher"}], "validation_error_rate", False),
        ([{"name": f"{OWN}:f1_of_each", "better": "lower"}], "clean_train_f1_of_each_b", True),
        ([{"name": "f1", "label": "f"}, {"name": f"{OWN}:ErrorRate", "label": "f_b"}], "validation_f_b", True),
    ],
)
def test_one_rule_says_whether_lower_is_better(metrics: Any, column: str, lower: bool) -> None:
    job = plan_of(metrics=metrics, train__averaging="ema", train__metric=column, train__evaluated_training_rows=5).job
    assert job.lower_is_better(column) is lower
    assert job.model_validate(job.model_dump()).lower_is_better(column) is lower  # as the run records it, without code


def test_the_best_epoch_by_an_own_metric_of_which_lower_is_better(train_tiny: Callable[..., RunFolder]) -> None:
    run = train_tiny(metrics=[f"{OWN}:ErrorRate"], train__metric="validation_error_rate", train__epochs=4)
    errors, accuracies = (run.epochs()[f"validation_{name}"].to_numpy() for name in ("error_rate", "accuracy"))
    assert errors == pytest.approx(1 - accuracies)
    assert len({*errors}) > 1
    outcome = run.outcome()
    assert outcome is not None
    assert (outcome.best.value, outcome.best.epoch) == (errors.min(), errors.argmin() + 1)


# ── exact ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def plain_loop(plan: Plan, gamma: float) -> tuple[list[float], Tensor]:
    """Training as anybody writes it: the loss of each step, and F1 of each class on the validation rows."""
    job, rows = plan.job, plan.splits.train
    model = plan.build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=job.optimizer.rate, momentum=0.9)
    mean, std = (
        torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (plan.preprocess.mean, plan.preprocess.std)
    )

    def inputs(batch: Batch) -> Tensor:
        return (batch.inputs.double() / 255 - mean) / std

    of_steps = []
    for epoch in range(job.train.epochs):
        for positions in plan.sampler.order(epoch).split(job.train.batch_size):
            batch = rows.gather(positions)
            p = F.softmax(model(inputs(batch)), dim=1)[torch.arange(len(positions)), batch.targets]
            loss = (-((1 - p) ** gamma) * p.log()).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            of_steps.append(float(loss.detach()))
    model.eval()
    batch = plan.splits.validation.gather(torch.arange(len(plan.splits.validation)))
    found, true = model(inputs(batch)).argmax(dim=1), batch.targets
    f1 = [2.0 * ((found == c) & (true == c)).sum() / ((found == c).sum() + (true == c).sum()) for c in range(3)]
    return of_steps, torch.stack(f1)


@pytest.mark.parametrize("loss", [f"{OWN}:focal", f"{OWN}:mean_focal", f"{OWN}:Focal", "focal"])
def test_focal_loss_and_f1_of_each_class_are_those_of_a_plain_loop(
    loss: str, train_tiny: Callable[..., RunFolder]
) -> None:
    options: dict[str, Any] = {
        "loss": {"name": loss, "gamma": 1.5},
        "metrics": [f"{OWN}:f1_of_each", {"name": "f1", "average": "none"}],
        "train__precision": "fp64",
        "train__batch_size": 7,  # a ragged last batch
        "train__epochs": 3,
    }
    found, f1 = plain_loop(plan_of(**options), 1.5)
    run = train_tiny(**options)
    assert losses(run) == pytest.approx(found, rel=1e-6)
    last = run.epochs().to_pylist()[-1]
    for name in ("f1_of_each", "f1"):
        assert [last[f"validation_{name}_{c}"] for c in "abc"] == pytest.approx(f1.tolist(), abs=1e-6)


@pytest.mark.parametrize("loss", [f"{OWN}:focal", f"{OWN}:mean_focal", f"{OWN}:soft_margin", "bce", "poly"])
@pytest.mark.parametrize("parts", [1, 3])
def test_unreadable_rows_and_gradient_accumulation_change_nothing(loss: str, parts: int) -> None:
    """A step over rows of which some cannot be read is the step over the others, whatever parts it is taken in."""
    gradients = []
    for unread, count in ((True, parts), (False, 1)):
        plan = plan_of(loss=loss, train__precision="fp64", train__gradient_accumulation=count)
        model = plan.build_model().eval()  # batch norm would see the other rows
        batch = plan.splits.train.gather(torch.arange(8))
        known = torch.tensor([0, 2, 3, 4, 7])
        targets = torch.full((8,), UNREADABLE).index_copy(0, known, batch.targets[known])
        taken = Batch(batch.inputs, targets, batch.ids) if unread else plan.splits.train.gather(known)
        step = TrainStep(plan, model, Group())
        loss_of = step._forward_and_backward(taken, 8)
        gradients.append([loss_of, *(p.grad for p in model.parameters())])
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_metrics_leave_unreadable_rows_out() -> None:
    plan = plan_of(metrics=[f"{OWN}:ErrorRate", "f1"])
    model, rows = plan.build_model(), plan.splits.validation
    few = rows.subset(torch.arange(2, len(rows)))
    unread = _with_targets(rows, rows.labels.index_fill(0, torch.arange(2), UNREADABLE))
    some, all_but = evaluate(model, unread, plan, Group(), batch_size=5), evaluate(model, few, plan, Group())
    assert some == pytest.approx(all_but, rel=1e-6)


def _with_targets(rows: DataSubset, targets: Tensor) -> DataSubset:
    copy = rows.subset(torch.arange(len(rows)))
    copy.__dict__["_labels"] = targets
    return copy


@pytest.mark.parametrize("precision", ["bf16", "fp64"])
def test_a_loss_gets_outputs_in_the_type_of_the_weights(precision: str, train_tiny: Callable[..., RunFolder]) -> None:
    run = train_tiny(loss=f"{OWN}:Focal", train__precision=precision)  # it asserts the type itself
    assert all(map(math.isfinite, losses(run)))


# ── what is recorded and predicted ──────────────────────────────────────────────────────────────────────────────────


def test_validation_loss_is_the_loss_that_is_trained_without_smoothing_and_weights() -> None:
    weighted = {"name": f"{OWN}:focal", "gamma": 1.0, "class_weights": [1.0, 2.0, 5.0]}
    model = plan_of().build_model()
    for loss in (weighted, {"name": "poly", "epsilon": 2.0, "label_smoothing": 0.3}):
        plan = plan_of(loss=loss)
        bare = plan_of(loss={**loss, "class_weights": "none", "label_smoothing": 0.0})
        assert evaluate(model, plan.splits.validation, plan, Group()) == evaluate(
            model, plan.splits.validation, bare, Group()
        )
        batch = plan.splits.train.gather(torch.arange(8))
        outputs = model(*plan.arguments(batch))
        assert not torch.isclose(plan.loss(outputs, batch.targets), bare.loss(outputs, batch.targets))


@pytest.mark.parametrize(
    ("loss", "activation"), [("focal", "softmax"), ("bce", "sigmoid"), (f"{OWN}:Sigmoid", "sigmoid")]
)
def test_a_model_carries_what_makes_its_outputs_probabilities(
    loss: str, activation: str, train_tiny: Callable[..., RunFolder]
) -> None:
    run = train_tiny(loss=loss)
    predictor = load_predictor(run.folder)
    assert ModelDescription.from_json(read_model(run.folder)[1]).activation == activation
    pixels = synthetic().validation.gather(torch.arange(5)).inputs
    with torch.inference_mode():
        network = predictor.networks[0]
        assert isinstance(network, Network)
        outputs = network.model(network.inputs(pixels))
        found = predictor(pixels)
    wanted = outputs.softmax(dim=1) if activation == "softmax" else outputs.sigmoid() / outputs.sigmoid().sum(1, True)
    torch.testing.assert_close(found, wanted)


def test_a_model_without_that_word_is_of_softmax() -> None:
    content = plan_of().describe_model().to_json()
    del content["activation"]
    assert ModelDescription.from_json(content).activation == "softmax"
    content["activation"] = "arcane"
    with pytest.raises(LehrError, match="does not describe a model"):
        ModelDescription.from_json(content)


def test_every_split_is_measured_and_nan_is_recorded_as_nan(train_tiny: Callable[..., RunFolder]) -> None:
    splits = synthetic()
    labels = splits.validation.labels
    no_c = splits.validation.subset((labels != 2).nonzero()[:, 0])
    splits = replace(splits, validation=no_c, test=splits.validation)
    run = train_tiny(
        splits,
        metrics=["per_class_accuracy", f"{OWN}:spread"],
        train__averaging={"decay": 0.5},
        train__evaluated_training_rows=6,
    )
    row = run.epochs().to_pylist()[-1]
    for split in ("validation", "clean_train", "averaged_validation"):
        names = {name.removeprefix(f"{split}_") for name in row if name.startswith(f"{split}_")}
        assert names == {"loss", "accuracy", *(f"per_class_accuracy_{c}" for c in "abc"), "spread_low", "spread_high"}
    assert math.isnan(row["validation_per_class_accuracy_c"])
    progress = run.progress()
    assert progress.metrics["test_per_class_accuracy_c"] is not None
    assert math.isnan(progress.metrics["validation_per_class_accuracy_c"] or 0)


def test_a_metric_that_is_never_a_number_chooses_the_last_model_and_says_so(
    train_tiny: Callable[..., RunFolder],
) -> None:
    splits = synthetic()
    labels = splits.validation.labels
    no_c = splits.validation.subset((labels != 2).nonzero()[:, 0])
    name = "validation_per_class_accuracy_c"
    run = train_tiny(
        replace(splits, validation=no_c),
        metrics=["per_class_accuracy"],
        train__metric=name,
        train__early_stopping={"patience": 1},
        train__epochs=3,
    )
    outcome = run.outcome()
    assert outcome is not None
    assert (outcome.status, outcome.best.metric, outcome.best.value) == ("finished", name, None)
    assert len(run.epochs()) == 3
    assert any("was not a number after any epoch" in line for line in summary(run, run.progress(), None))


@pytest.mark.parametrize("metric", ["validation_loss", "averaged_validation_loss", "validation_f1"])
def test_a_transfer_compares_accuracies_whatever_chose_the_models(
    metric: str, train_tiny: Callable[..., RunFolder]
) -> None:
    run = train_tiny(metrics=["f1"], train__metric=metric, train__averaging={"decay": 0.5}, train__epochs=3)
    outcome = run.outcome()
    assert outcome is not None
    assert outcome.best.epoch is not None
    column = "averaged_validation_accuracy" if metric.startswith("averaged") else "validation_accuracy"
    assert accuracy_of(run) == run.epochs()[column].to_pylist()[outcome.best.epoch - 1]


def test_a_loss_that_falls_below_zero_trains_and_is_not_called_diverged(train_tiny: Callable[..., RunFolder]) -> None:
    from lehr.curves import verdict

    run = train_tiny(loss=f"{OWN}:soft_margin", train__epochs=12, train__stop_on=["diverged", "not_learning"])
    assert min(losses(run)) < 0
    assert len(run.epochs()) == 12
    assert "iverge" not in verdict(run)
    assert "too high" not in verdict(run)


@pytest.mark.parametrize(
    ("loss", "chance"),
    [
        ("cross_entropy", math.log(3)),
        ({"name": "focal", "gamma": 2.0}, (2 / 3) ** 2 * math.log(3)),
        ("bce", math.log(2)),
        ({"name": "poly", "epsilon": 3.0}, math.log(3) + 3 * 2 / 3),
        (f"{OWN}:soft_margin", 0.0),
    ],
)
def test_the_loss_at_chance_level_is_that_of_the_loss(loss: Any, chance: float) -> None:
    assert plan_of(loss=loss).chance_loss == pytest.approx(chance, rel=1e-6, abs=1e-9)


def test_metrics_are_computed_on_the_whole_split_in_the_order_of_its_rows() -> None:
    plan = plan_of(metrics=[f"{OWN}:order_of_rows"])
    labels = plan.splits.validation.labels
    wanted = float(((torch.arange(len(labels)) + 1) * labels).double().mean())
    found = evaluate(plan.build_model(), plan.splits.validation, plan, Group(), batch_size=5)
    assert found["order_of_rows"] == wanted


def test_a_job_without_metrics_of_its_own_keeps_its_hash_and_names(tmp_path: Path) -> None:
    from lehr.job import job_hash

    assert job_hash(job_of()) == job_hash(job_of(metrics=[]))
    assert job_hash(job_of()) != job_hash(job_of(metrics=["f1"]))
