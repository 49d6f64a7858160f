"""Rules about rows and network: each finds its fault, and is silent where the fault does no harm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lehr.curves.diagnosis import diagnose
from lehr.curves.record import Curves
from lehr.job import from_dict, parse_overrides
from lehr.runs import DataSurvey, NetworkSurvey, SplitSurvey

from .curves import made

TRAIN = SplitSurvey(rows=1000, counts=(100,) * 10, seen=1000, mean=0.4, deviation=0.25)
VALIDATION = SplitSurvey(rows=360, counts=(36,) * 10, seen=360, mean=0.41, deviation=0.26)
SURVEY = DataSurvey(TRAIN, VALIDATION, linear=0.6, held_out=0.6, held_out_rows=250)
NETWORK = NetworkSurvey(parameters=1000, trainable=1000, reached=1000, batch_norm=True)


def surveyed(train: Any = 0.5, validation: Any = 0.5, network: NetworkSurvey = NETWORK, **changes: Any) -> Curves:
    """A run whose rows are like those above but for the changes: of the survey, or of `train.` or `validation.`."""
    parts: dict[str, dict[str, Any]] = {name: {} for name in ("train", "validation", "survey", "run")}
    for path, value in changes.items():
        part, _, name = path.rpartition("__")
        parts[part or ("survey" if name in ("shared", "linear", "held_out") else "run")][name] = value
    survey = replace(
        SURVEY,
        train=replace(TRAIN, **parts["train"]),
        validation=replace(VALIDATION, **parts["validation"]),
        **parts["survey"],
    )
    options: dict[str, Any] = {"update": 0.003, "running_loss": 1.4, "clean_loss": 1.3} | parts["run"]
    return made(options.pop("loss", 1.4), train=train, validation=validation, survey=survey, network=network, **options)


FOUND: dict[str, tuple[Curves, str, str]] = {
    "blank images": (surveyed(train__blank=0.4), "bad_inputs", "40% of the training images have one colour only"),
    "one image for all": (surveyed(train__repeated=0.9), "bad_inputs", "90% of the training images are copies"),
    "a leak": (surveyed(0.99, 0.99, shared=0.6), "leak", "60% of the validation images are training images too"),
    "a class without rows": (
        surveyed(train__counts=(0, *(111,) * 9)),
        "class_missing",
        "1 of 10 classes have validation rows but no training rows, so that 36 of 360",
    ),
    "validation rows of one class": (
        surveyed(0.5, 1.0, validation__counts=(360, *(0,) * 9)),
        "class_missing",
        "all 360 validation rows are of one class, of the 10 that training rows have",
    ),
    "imbalance": (
        surveyed(0.83, 0.83, train__counts=(820, *(20,) * 9), validation__counts=(297, *(7,) * 9)),
        "imbalanced",
        "is right for 82.5% of the validation rows, and the network is for 83.0%",
    ),
    "validation images of another brightness": (
        surveyed(0.95, 0.5, validation__mean=0.05, validation__deviation=0.05),
        "split_differs",
        "the pixels of training images are 102 ± 64, and those of validation images 13 ± 13",
    ),
    "validation labels in another order": (
        surveyed(0.95, 0.02, linear=0.02),
        "split_differs",
        "a linear model is right for 60% of the training rows that it was not fitted on, and for 2%",
    ),
    "training labels that are wrong": (
        surveyed(0.6, 0.6, linear=0.8, held_out=0.45),
        "noisy_labels",
        "a linear model is right for 80% of the validation rows, but for 45%",
    ),
    "training rows that are harder": (
        surveyed(0.55, 0.85, linear=None, held_out=None),
        "noisy_labels",
        "the network is right for up to 85.0% of the validation rows, but for 55.0%",
    ),
    "a frozen body": (
        surveyed(network=replace(NETWORK, trainable=90, reached=90)),
        "frozen",
        "only 90 of 1,000 weights require a gradient; accuracy is 50.0% on training rows",
    ),
    "a detached body": (
        surveyed(network=replace(NETWORK, reached=90)),
        "frozen",
        "a gradient reaches only 90 of 1,000",
    ),
    "initial weights that are too large": (
        surveyed(run__loss=lambda p: 60 - 50 * p),
        "bad_initialization",
        "the loss begins at 60, where a guess has 2.3",
    ),
    "a rate that goes to nothing at once": (
        surveyed(run__rate=lambda p: 0.1 if p < 0.01 else 1e-6, run__update=1e-7),
        "decayed_too_early",
        "the learning rate is 0.1 for 4 of 400 steps and 1e-06 for most of the others",
    ),
    "weights of zero": (
        surveyed(0.1, 0.1, network=replace(NETWORK, reached=10), run__validation_loss=2.3),
        "not_learning",
        "a gradient reaches only 10 of 1,000 weights",
    ),
    "a network with fewer weights than rows": (
        surveyed(0.6, 0.58, network=NetworkSurvey(parameters=300, trainable=300, reached=300)),
        "underfitting",
        "the network has 300 weights for 1,000 training rows",
    ),
    "clipping": (
        surveyed(run__job={"train": {"epochs": 20, "max_gradient_norm": 1e-3}}, run__gradient_norm=2.0),
        "clipped",
        "gradients have a norm of 2 in the median and are cut to 0.001, 0.1% of it",
    ),
    "decoupled weight decay": (
        surveyed(run__job={"optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 50.0}}),
        "too_regularised",
        "weight decay 50 at rate 0.001 takes 5.0% of the weights away at each step",
    ),
    "weight decay of SGD": (
        surveyed(run__job={"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}}),
        "too_regularised",
        "weight decay 0.1 at rate 0.05 takes 5.0% of the weights away at each step",
    ),
    "dropout": (
        surveyed(run__job={"model": {"name": "small_cnn", "dropout": 0.95}}),
        "too_regularised",
        "model.dropout drops 95% of the features",
    ),
    "label smoothing": (
        surveyed(run__job={"loss": {"name": "cross_entropy", "label_smoothing": 0.9}}),
        "too_regularised",
        "loss.label_smoothing spreads 90% of each target",
    ),
    "augmentation": (
        surveyed(run__job={"data": {"augment": [{"name": "erasing"}]}}, run__running_loss=2.1, run__clean_loss=0.7),
        "too_regularised",
        "the loss of training rows is 2.1 as augmented (erasing) and 0.7 as they are",
    ),
    "augmentation that leaves nothing to learn": (
        surveyed(run__job={"data": {"augment": [{"name": "rand_augment", "operations": 10, "magnitude": 30}]}}),
        "too_regularised",
        "data.augment distorts images far more than is usual: rand_augment, 7 times as much as its paper",
    ),
    "statistics that lag behind": (
        surveyed(0.5, 0.5, run__running_loss=0.2, run__clean_loss=1.5),
        "stale_statistics",
        "the loss of training rows is 0.2 in training and 1.5 in evaluation",
    ),
    "less than a linear model reaches": (
        surveyed(0.5, 0.45, linear=0.8, held_out=0.8),
        "underfitting",
        "a linear model on images of 8 × 8 pixels is right for 80.0% of the validation rows",
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_each_fault_is_found_first_with_its_evidence(name: str) -> None:
    curves, finding, evidence = FOUND[name]
    first = diagnose(curves).first
    assert (first.name, first.good) == (finding, False)
    assert evidence in first.evidence
    assert first.confidence != "low"


@pytest.mark.parametrize("name", FOUND)
def test_what_it_advises_can_be_typed(name: str) -> None:
    first = diagnose(FOUND[name][0]).first
    overrides = parse_overrides(first.command.replace("'", "").split()) if first.command else {}
    assert from_dict({"kind": "train"}, overrides=overrides)


HARMLESS: dict[str, Curves] = {
    "a few blank images": surveyed(0.99, 0.98, train__blank=0.01),
    "a shared image or two": surveyed(0.99, 0.98, shared=0.005),
    "rare classes that are right": surveyed(
        0.99, 0.99, train__counts=(820, *(20,) * 9), validation__counts=(297, *(7,) * 9)
    ),
    "a darker split that the network does not mind": surveyed(0.99, 0.98, validation__mean=0.05),
    "a frozen body that is good enough": surveyed(0.99, 0.98, network=replace(NETWORK, trainable=90, reached=90)),
    "clipping that costs nothing": surveyed(0.99, 0.98, run__job={"train": {"epochs": 20, "max_gradient_norm": 1e-3}}),
    "strong dropout": surveyed(0.99, 0.98, run__job={"model": {"name": "small_cnn", "dropout": 0.8}}),
    "a network that is evaluated badly for an epoch": surveyed(
        0.99, 0.98, run__clean_loss=lambda p: 3.0 if p == 0.5 else 0.05, run__running_loss=0.05
    ),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_no_harm_is_not_told(name: str) -> None:
    assert diagnose(HARMLESS[name]).first.name == "healthy"


def test_running_accuracy_lowered_by_dropout_is_no_sign_of_wrong_labels() -> None:
    curves = surveyed(0.55, 0.85, linear=None, held_out=None)
    epochs = dict(curves.epochs)
    epochs["train_accuracy"] = epochs.pop("clean_train_accuracy")
    assert diagnose(replace(curves, epochs=epochs)).first.name != "noisy_labels"


def test_clipping_says_nothing_for_an_optimizer_that_does_not_mind() -> None:
    job = {"train": {"epochs": 20, "max_gradient_norm": 1e-2}, "optimizer": {"name": "adam", "lr": 1e-3}}
    assert diagnose(surveyed(run__job=job)).first.name != "clipped"


def test_a_frozen_body_that_the_job_asks_for_is_no_fault() -> None:
    job = {"finetune": {"freeze": "body"}}
    assert diagnose(surveyed(network=replace(NETWORK, trainable=90), run__job=job)).first.name != "frozen"


def test_a_run_that_recorded_no_survey_is_judged_by_its_curves() -> None:
    assert diagnose(made(0.1, train=0.99, validation=0.98)).first.name == "healthy"


@pytest.mark.parametrize("accuracy", [0.10, 0.16, 0.33, 0.46, 0.55, 0.80])
def test_a_run_is_healthy_only_where_nearly_all_is_right(accuracy: float) -> None:
    curves = made(lambda p: 1.5 - 0.2 * p, train=accuracy + 0.02, validation=accuracy, classes=None, update=0.003)
    first = diagnose(curves).first
    assert first.name != "healthy"
    assert "healthy" not in first.summary.lower()


def test_labels_unrelated_to_images_that_are_learned_by_heart_slowly_are_no_plateau() -> None:
    by_heart: dict[str, Any] = {
        "loss": lambda p: 2.32 - 0.1 * min(p, 0.3),
        "update": 0.02,
        "validation": 0.1,
        "train": 0.2,
        "validation_loss": 2.32,
    }
    unrelated = replace(SURVEY, linear=0.1, held_out=0.1)
    first = diagnose(made(**by_heart, survey=unrelated)).first
    assert first.name == "at_chance"
    assert "The labels seem to be unrelated to the inputs" in first.advice
    for survey in (SURVEY, replace(SURVEY, linear=None, held_out=None)):  # they may be learned yet; or nobody knows
        assert diagnose(made(**by_heart, survey=survey)).first.name not in ("at_chance", "plateau")


def test_at_chance_the_rows_are_blamed_only_if_a_linear_model_learns_nothing_either() -> None:
    falling: dict[str, Any] = {
        "loss": lambda p: 2.3 - 0.1 * p,
        "update": 0.004,
        "validation": 0.1,
        "train": 0.11,
        "validation_loss": 2.3,
    }
    learnable = diagnose(made(**falling, survey=SURVEY)).first
    held_out = diagnose(made(**falling, survey=replace(SURVEY, linear=0.1, held_out=0.17))).first
    hopeless = diagnose(made(**falling, survey=replace(SURVEY, linear=0.1, held_out=0.1))).first
    assert learnable.name == held_out.name == hopeless.name == "at_chance"
    assert "a linear model on small images is right for 60.0% of the validation rows" in learnable.evidence
    assert "17.0% of the training rows that it was not fitted on" in held_out.evidence
    assert learnable.advice.startswith("The rows can be learned")
    assert held_out.advice.startswith("The rows can be learned")
    assert "The labels seem to be unrelated to the inputs" in hopeless.advice


def test_statistics_lag_behind_large_updates_without_being_at_fault() -> None:
    curves = surveyed(0.5, 0.5, run__running_loss=0.2, run__clean_loss=1.5, run__update=0.02)
    assert diagnose(curves).first.name != "stale_statistics"


def test_a_linear_model_that_beats_eight_steps_shows_that_they_are_few() -> None:
    few: dict[str, Any] = {"epochs": 8, "steps_per_epoch": 1, "loss": lambda p: 2.3 - 0.3 * p, "validation_loss": 2.2}
    curves = surveyed(0.15, 0.15, linear=0.9, held_out=0.9, **{f"run__{name}": value for name, value in few.items()})
    first = diagnose(curves).first
    assert (first.name, first.confidence) == ("underfitting", "low")
    assert first.evidence.endswith("after 8 steps")
