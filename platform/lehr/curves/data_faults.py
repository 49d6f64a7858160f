"""Rules about the rows: what a survey of them shows, with or without what the network made of them.

They come first: where the data are wrong, curves only show how well a network learned the wrong thing.
"""

from __future__ import annotations

import math

import numpy as np

from lehr.curves.findings import Finding, grade
from lehr.curves.signals import Signals


def bad_inputs(s: Signals) -> Finding | None:
    """Many images are blank, or the same image again and again."""
    rows = s.survey.train
    blank, repeated = rows.blank, rows.repeated
    if blank < s.limits.blank and repeated < s.limits.repeated:
        return None
    is_blank = blank / s.limits.blank >= repeated / s.limits.repeated
    share, what = (blank, "have one colour only") if is_blank else (repeated, "are copies of another training image")
    return Finding(
        name="bad_inputs",
        title="Images without content" if is_blank else "The same images again and again",
        rule="many training images are blank, or equal another one pixel by pixel",
        evidence=f"{share:.0%} of the training images {what} ({rows.seen:,} of {rows.rows:,} were looked at)",
        confidence=grade(share, s.limits.blank if is_blank else s.limits.repeated),
        advice="Look at the images as the network gets them, and repair what reads or makes them: lehr data show JOB.",
    )


def leak(s: Signals) -> Finding | None:
    """Validation images are among the training images."""
    shared = s.survey.shared
    if shared < s.limits.shared:
        return None
    return Finding(
        name="leak",
        title="Validation images are training images",
        rule="validation images equal training images pixel by pixel",
        evidence=(
            f"{shared:.0%} of the validation images are training images too, so that validation accuracy, "
            f"{s.final(s.validation):.1%}, says little about new images"
        ),
        confidence=grade(shared, s.limits.shared),
        advice="Remove the copies from one of the splits, or hold rows out of the training set.",
        overrides={"data.validation": 0.2},
    )


def missing_class(s: Signals) -> Finding | None:
    """A class of the validation rows has no training rows, or all validation rows are of one class."""
    train, validation = s.survey.train.counts, s.survey.validation.counts
    if len(train) != len(validation):
        return None
    if np.count_nonzero(validation) == 1 < np.count_nonzero(train):
        return _one_class(s)
    absent = [number for number, count in enumerate(train) if not count and validation[number]]
    if not absent:
        return None
    rows = sum(validation[number] for number in absent)
    return Finding(
        name="class_missing",
        title="A class without training rows",
        rule="a class of the validation rows has no training rows",
        evidence=(
            f"{len(absent)} of {len(train)} classes have validation rows but no training rows, so that "
            f"{rows:,} of {sum(validation):,} validation rows cannot be right"
        ),
        confidence="high",
        advice="Add training rows of these classes, or leave the classes out with data.classes.",
    )


def _one_class(s: Signals) -> Finding:
    train, validation = s.survey.train.counts, s.survey.validation.counts
    return Finding(
        name="class_missing",
        title="All validation rows are of one class",
        rule="the validation rows have one class, and the training rows several",
        evidence=(
            f"all {sum(validation):,} validation rows are of one class, of the {np.count_nonzero(train)} that training "
            f"rows have, so that validation accuracy, {s.final(s.validation):.1%}, says nothing of telling them apart"
        ),
        confidence="high",
        advice="Hold validation rows of every class out of the training set.",
        overrides={"data.validation": 0.2},
    )


def imbalanced(s: Signals) -> Finding | None:
    """Some classes have many times the rows of others, and accuracy owes most to the frequent ones."""
    counts = [count for count in s.survey.train.counts if count]
    if not counts or max(counts) < s.limits.imbalance * min(counts):
        return None
    reached = s.final(s.validation)
    if not reached < s.majority + s.limits.beyond_majority * (1 - s.majority):
        return None  # the rare classes are right too
    return Finding(
        name="imbalanced",
        title="Imbalanced classes",
        rule="the most frequent class has many times the rows of the rarest, and accuracy is near its share",
        evidence=(
            f"the classes have {min(counts):,} to {max(counts):,} training rows; always naming the most frequent class "
            f"is right for {s.majority:.1%} of the validation rows, and the network is for {reached:.1%}"
        ),
        confidence=grade(max(counts) / min(counts), s.limits.imbalance),
        advice="Draw the classes equally often, or weight them, and judge by the accuracy of each class.",
        overrides={"data.sampling": "balanced"},
    )


def split_differs(s: Signals) -> Finding | None:
    """Validation rows are not like training rows: other images, or other labels."""
    limits, survey = s.limits, s.survey
    reasons, strength = [], 0.0
    if survey.linear is not None and survey.held_out is not None:
        drop = survey.held_out - survey.linear
        errors = drop / _error_of_difference(s)
        confirmed = s.is_memorised and s.never_learned  # the network's own rows say the same: two kinds of evidence
        least = limits.standard_errors if confirmed else limits.differing_errors
        learns = survey.held_out > s.chance + least * _error(s.chance, survey.held_out_rows)
        if learns and errors > least and drop > limits.differing_drop:
            reasons.append(
                f"a linear model is right for {survey.held_out:.0%} of the training rows that it was not fitted on, "
                f"and for {survey.linear:.0%} of the validation rows"
            )
            strength = errors / limits.differing_errors
    train, validation = survey.train, survey.validation
    if train.deviation and validation.seen:
        moved = abs(validation.mean - train.mean) / train.deviation / limits.moved_mean
        scale = validation.deviation / train.deviation
        contrast = max(scale, 1 / max(scale, 1e-6)) / limits.other_contrast
        if max(moved, contrast) > 1:
            shown = [f"{255 * each.mean:.0f} ± {255 * each.deviation:.0f}" for each in (train, validation)]
            reasons.append(f"the pixels of training images are {shown[0]}, and those of validation images {shown[1]}")
            strength = max(strength, moved, contrast)
    reached, training = s.final(s.validation), s.final(s.training)
    below = s.chance - 4 * _error(s.chance, s.validation_rows)
    if reached < below and training > 0.5:
        reasons.append(f"validation accuracy, {reached:.1%}, is below that of a guess, {s.chance:.1%}")
        strength = max(strength, 2.0)
    minds = s.gap > max(limits.gap, 3 * s.standard_error(reached)) or not s.has_begun
    if not reasons or not minds:
        return None  # what the network learned holds for validation rows too
    return Finding(
        name="split_differs",
        title="Validation rows differ from training rows",
        rule="what holds on training rows does not hold on validation rows, though neither was learned by heart",
        evidence=f"{'; '.join(reasons)}; the network reaches {training:.1%} on training rows and {reached:.1%} here",
        confidence=grade(strength, 1.0),
        advice=(
            "Compare images and labels of both splits: how they were made, in which order the classes are numbered. "
            "Rows that are held out of the training set show what is reachable."
        ),
        overrides={"data.validation": 0.2},
    )


def noisy_labels(s: Signals) -> Finding | None:
    """Training rows are harder than validation rows: many of their labels are wrong."""
    survey, reasons, strength = s.survey, [], 0.0
    if survey.linear is not None and survey.held_out is not None and survey.held_out_rows:
        more = survey.linear - survey.held_out
        errors = more / _error_of_difference(s)
        if errors > s.limits.differing_errors and more > s.limits.differing_drop:
            reasons.append(
                f"a linear model is right for {survey.linear:.0%} of the validation rows, but for "
                f"{survey.held_out:.0%} of the training rows that it was not fitted on"
            )
            strength = errors / s.limits.differing_errors
    clean = s.curves.epoch_column("clean_train_accuracy")  # in training, dropout and augmentation make it lower
    ahead = s.best(s.validation) - s.best(clean)
    error = math.sqrt(2) * s.standard_error(s.best(s.validation))
    if ahead > max(s.limits.gap, 4 * error):
        reasons.append(
            f"the network is right for up to {s.best(s.validation):.1%} of the validation rows, but for "
            f"{s.best(clean):.1%} of the training rows without augmentation"
        )
        strength = max(strength, ahead / max(s.limits.gap, 4 * error))
    if not reasons:
        return None
    return Finding(
        name="noisy_labels",
        title="Many training labels are wrong",
        rule="validation rows are easier than training rows that nobody augmented",
        evidence="; ".join(reasons),
        confidence=grade(strength, 1.0),
        advice="Check the labels of training rows that the network gets wrong with confidence.",
        overrides={"loss.label_smoothing": 0.1},
    )


def _error_of_difference(s: Signals) -> float:
    """The standard error of the difference of the linear model's accuracies on both splits."""
    held_out, linear = s.survey.held_out or 0.0, s.survey.linear or 0.0
    return math.hypot(_error(held_out, s.survey.held_out_rows), _error(linear, s.validation_rows))


def _error(share: float, rows: int) -> float:
    """The binomial standard error of a share, never 0."""
    return math.sqrt(max(share * (1 - share), 1 / max(rows, 1)) / max(rows, 1))
