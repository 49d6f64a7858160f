"""Rules about what keeps a network from learning though its data are right: each has its trace in job and record.

They hold only where the network does not fit its training rows: what harms nothing is nothing to mend.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lehr.curves import advice
from lehr.curves.findings import NOT_LEARNING, Finding, grade
from lehr.curves.signals import Signals

DECOUPLED = ("adamw", "lamb", "nadamw", "muon", "lion")
"""Optimizers that shrink weights by rate × decay at each step: Loshchilov and Hutter, 2019."""
OF_ADAM = ("adam", "nadam", "radam", "rmsprop", "rprop", "adagrad", "adadelta", "adafactor", "asgd", "lars")
"""Optimizers whose steps do not depend on the size of the gradient, or hardly."""


def stale_statistics(s: Signals) -> Finding | None:
    """The same rows are harder for the evaluated network than for the one in training: batch norm lags behind."""
    running, clean = s.late("train_loss"), s.late("clean_train_loss")
    worse = clean / running if running > 0 else 0.0
    excess = s.limits.stale_excess * (s.chance_loss if s.chance_loss > 0 else 1.0)
    if not (worse >= s.limits.stale and clean - running >= excess) or s.is_fitted or s.is_restless:
        return None
    norm = s.network.batch_norm
    return Finding(
        name="stale_statistics",
        title="The evaluated network is not the trained one",
        rule="the loss of training rows is far higher in evaluation than in training",
        evidence=(
            f"over the last third of the run the loss of training rows is {running:.3g} in training and {clean:.3g} in "
            "evaluation, where neither dropout nor augmentation makes it harder"
            + ("; the network normalises by running statistics of its batches" if norm else "")
        ),
        confidence=grade(worse, s.limits.stale) if norm else "medium",
        advice=(
            "Let the statistics of batch norm follow faster (momentum 0.1), use larger batches, or group norm."
            if norm
            else "Look for layers that behave differently in evaluation."
        ),
        overrides={"model.norm": "group"} if s.curves.option("model.norm") == "batch" else {},
    )


def frozen(s: Signals) -> Finding | None:
    """Most of the network is not trained, though nothing in the job says so."""
    net = s.network
    if s.is_fitted or not net.parameters or s.curves.option("finetune"):
        return None
    trained, reached = net.trainable / net.parameters, net.reached / max(net.trainable, 1)
    if trained > s.limits.trained and reached > s.limits.trained:
        return None
    blocked = trained > s.limits.trained and s.at_chance and not s.has_begun
    what = (
        f"only {net.trainable:,} of {net.parameters:,} weights require a gradient"
        if trained <= s.limits.trained
        else f"a gradient reaches only {net.reached:,} of {net.trainable:,} weights in the first step"
    )
    return Finding(
        name="not_learning" if blocked else "frozen",
        title=NOT_LEARNING if blocked else "Most of the network is not trained",
        rule="most weights require no gradient, or get none, and the training rows are not fitted",
        evidence=f"{what}; accuracy is {s.on_training_rows}",
        confidence="high",
        advice=(
            "Set requires_grad where weights should be trained, and look for detach(), no_grad(), and layers whose "
            "weights start at zero."
        ),
    )


def loud_start(s: Signals) -> Finding | None:
    """Before the first update the loss is many times that of a guess: the initial weights are too large."""
    times = s.initial_loss / s.chance_loss if s.chance_loss > 0 else 0.0
    if s.is_fitted or not times > s.limits.loud or s.curves.option("model.weights"):
        return None
    return Finding(
        name="bad_initialization",
        title="Bad initialization",
        rule="the loss before the first update is many times that of a guess, and the training rows are not fitted",
        evidence=(
            f"the loss begins at {s.initial_loss:.3g}, where a guess has {s.chance_loss:.3g}: outputs that large come "
            f"from initial weights that are too large; accuracy is {s.on_training_rows}"
        ),
        confidence=grade(times, s.limits.loud),
        advice="Change the initialization (He et al., 2015) or add normalisation layers.",
        overrides=advice.better_initialization(s.curves),
    )


def rate_gone(s: Signals) -> Finding | None:
    """The learning rate drops to nearly nothing at the beginning and stays there, so that hardly a step counts."""
    drop = s.drop_share
    if drop is None or drop > s.limits.early_drop or s.is_fitted or s.is_improving:
        return None
    rates = s.curves.steps["learning_rate"]
    late, highest = float(np.median(rates[len(rates) // 2 :])), float(np.nanmax(rates))
    if not late <= s.limits.gone * highest:
        return None
    steps = int((rates > s.limits.gone * highest).sum())
    return Finding(
        name="decayed_too_early",
        title="Learning rate decayed too early",
        rule="the learning rate is practically zero for most of the run, and the training rows are not fitted",
        evidence=(
            f"the learning rate is {highest:.3g} for {steps:,} of {s.steps_taken:,} steps and {late:.3g} for most of "
            f"the others; accuracy is {s.on_training_rows}"
        ),
        confidence=grade(s.limits.gone * highest / late if late > 0 else 9.0, 1.0),
        advice="Keep the learning rate high for longer.",
        overrides={"schedule": "cosine"},
    )


def clipped(s: Signals) -> Finding | None:
    """Every gradient is cut down to a small part of itself, and little is learned."""
    limit = s.curves.option("train.max_gradient_norm")
    norms = s.curves.steps.get("gradient_norm", np.empty(0))
    norms = norms[np.isfinite(norms)]
    if s.is_fitted or not isinstance(limit, int | float) or not len(norms) or _name(s) in (*DECOUPLED, *OF_ADAM):
        return None
    share = float(limit / np.median(norms)) if np.median(norms) > 0 else 1.0
    if share > s.limits.kept_gradient:
        return None
    return Finding(
        name="clipped",
        title="Gradients are clipped to almost nothing",
        rule="train.max_gradient_norm is far below the norm of most gradients, and the training rows are not fitted",
        evidence=(
            f"gradients have a norm of {np.median(norms):.2g} in the median and are cut to {limit:.2g}, "
            f"{share:.1%} of it; accuracy is {s.on_training_rows}"
        ),
        confidence=grade(s.limits.kept_gradient / share, 1.0, strong=3.0),
        advice="Clip above the usual norm, or not at all.",
        overrides={"train.max_gradient_norm": float(f"{np.percentile(norms, 90):.1g}")},
    )


def too_regularised(s: Signals) -> Finding | None:
    """The training rows are not fitted, and regularisation is so strong that they cannot be."""
    if s.is_fitted or s.gap > max(s.limits.gap, 3 * s.standard_error(s.final(s.validation))):
        return None
    found = [each for each in (_decay(s), _dropout(s), _smoothing(s), _augmentation(s)) if each]
    if not found:
        return None
    strength, what, overrides = max(found, key=lambda each: each[0])
    return Finding(
        name="too_regularised",
        title="Too much regularisation",
        rule="training and validation accuracy are close and low, and regularisation is stronger than is usual by far",
        evidence=(f"{what}; accuracy is {s.on_training_rows} and {s.final(s.validation):.1%} on the validation split"),
        confidence=grade(strength, 1.0),
        advice="Regularise less until the network fits its training rows, and then as much as validation likes.",
        overrides=overrides,
    )


Strong = tuple[float, str, dict[str, Any]]
"""How many times too strong, the sentence, and what to change."""


def _decay(s: Signals) -> Strong | None:
    """Weight decay that makes weights forget what they learned within a few steps."""
    decay, rate = float(s.curves.option("optimizer.weight_decay", 0.0)), float(s.curves.option("optimizer.lr", 0.1))
    shrinks = decay * rate
    if not any(name in _name(s) for name in DECOUPLED):
        if any(name in _name(s) for name in OF_ADAM):
            return None  # the decay is part of a gradient whose size does not count
        shrinks /= 1 - min(float(s.curves.option("optimizer.momentum", 0.0)), 0.999)
    usual = decay <= (s.limits.usual_decoupled_decay if "w" in _name(s) else s.limits.usual_decay)
    if shrinks < s.limits.forgetting or usual:
        return None
    what = f"weight decay {decay:g} at rate {rate:g} takes {min(1.0, shrinks):.1%} of the weights away at each step"
    return shrinks / s.limits.forgetting, what, {"optimizer.weight_decay": 0.01 if "w" in _name(s) else 5e-4}


def _dropout(s: Signals) -> Strong | None:
    rates = [
        (name, float(value))
        for name, value in (s.curves.option("model") or {}).items()
        if "drop" in name and isinstance(value, int | float) and not isinstance(value, bool)
    ]
    name, rate = max(rates, key=lambda each: each[1], default=("", 0.0))
    if rate < s.limits.dropped:
        return None
    what = f"model.{name} drops {rate:.0%} of the features"
    return (1 - s.limits.dropped) / max(1 - rate, 1e-3), what, {f"model.{name}": 0.3}


def _smoothing(s: Signals) -> Strong | None:
    smoothing = float(s.curves.option("loss.label_smoothing", 0.0))
    if smoothing < s.limits.smoothed:
        return None
    what = f"loss.label_smoothing spreads {smoothing:.0%} of each target over all classes"
    return (1 - s.limits.smoothed) / max(1 - smoothing, 1e-3), what, {"loss.label_smoothing": 0.1}


def _augmentation(s: Signals) -> Strong | None:
    """Images are distorted far more than is usual, or their loss is far above that of the same rows as they are."""
    return _distortion(s) or _harder(s)


def _distortion(s: Signals) -> Strong | None:
    """Options of augmentations that are far above those of their papers: Cubuk et al., 2020; Zhong et al., 2020."""
    steps = s.curves.option("data.augment") or []
    strengths = []
    for each in (step for step in steps if isinstance(step, dict)):
        if each.get("name") == "rand_augment":
            strengths.append((each.get("operations", 2) * each.get("magnitude", 9.0) / (3 * 15), "rand_augment"))
        if each.get("name") == "erasing":
            area = (each.get("smallest", 0.02) + each.get("largest", 0.33)) / 2
            strengths.append((each.get("probability", 0.5) * area / (0.5 * 0.21), "erasing"))
    times, name = max(strengths, default=(0.0, ""))
    if times < s.limits.distorted:
        return None
    what = f"data.augment distorts images far more than is usual: {name}, {times:.0f} times as much as its paper"
    return times / s.limits.distorted, what, {"data.augment": []}


def _harder(s: Signals) -> Strong | None:
    """The loss of augmented rows is far above that of the same rows as they are."""
    steps = s.curves.option("data.augment") or []
    names = [each.get("name") if isinstance(each, dict) else each for each in steps if isinstance(steps, list)]
    plain = not float(s.curves.option("loss.label_smoothing", 0.0)) and not {"mixup", "cutmix"} & set(names)
    running, clean = s.late("train_loss"), s.late("clean_train_loss")
    if not names or not plain or s.learned >= s.limits.overcome or not running > s.limits.augmented * clean:
        return None
    what = (
        f"the loss of training rows is {running:.3g} as augmented ({', '.join(map(str, names))}) and {clean:.3g} as "
        "they are"
    )
    return running / clean / s.limits.augmented, what, {"data.augment": []}


def not_as_good_as_linear(s: Signals) -> Finding | None:
    """A linear model on small images does better than the network."""
    if not s.is_beaten or s.is_fitted:
        return None
    linear = s.survey.linear or 0.0
    return Finding(
        name="underfitting",
        title="Underfitting",
        rule="the network does worse than a linear model on small images",
        evidence=(
            f"a linear model on images of 8 × 8 pixels is right for {linear:.1%} of the validation rows, and the "
            f"network for {s.final(s.validation):.1%}, {s.on_training_rows}, after "
            f"{s.steps_taken:,} steps"
        ),
        confidence="low" if s.is_short else "medium",
        advice="Train for longer, at another learning rate or with a larger model, until the training rows are fitted.",
        overrides=advice.longer(s.curves, 3),
    )


def _name(s: Signals) -> str:
    return str(s.curves.option("optimizer.name", "sgd")).lower()
