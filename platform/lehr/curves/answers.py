"""The part of a training's report that shows single predictions: what is confused, mistakes, samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np

from lehr.calibration import calibration_error, error_by_chance, reliability
from lehr.curves.answer_panels import panel_sections
from lehr.reporting import drawing
from lehr.reporting.page import Section, chart, gallery, heat, paragraph, table
from lehr.reporting.reliability import reliability_panel
from lehr.runs import RunFolder
from lehr.runs.answers import Answers
from lehr.runs.examples import Examples
from lehr.runs.row_names import read_row_names

MOST_CELLS = 16
"""With more classes than this the pairs that are confused most often are listed instead of the whole matrix."""
CALIBRATED = 100
"""The fewest answers whose calibration is drawn."""
PANEL = 230  # pixels
MOST_CLASSES, MOST_PAIRS, MOST_PICTURES = 200, 20, 12


KEPT = "The model that was kept is right on"


def answer_sections(run: RunFolder, who: str = KEPT) -> list[Section]:
    """Its sections; none where nothing was recorded.

    Args:
        who: answered: the words before `95 of 100 validation rows`.
    """
    names = read_row_names(run.folder)
    if examples := Examples.read(run.folder):
        return _examples(examples, names)
    answers = Answers.read(run.folder)
    if answers is None:
        return []
    classes = answers.classes
    named = {at: names.get(int(answers.rows[at]), "") for at in answers.pictures}
    found = [_confused(answers.confusion(), classes, who), _mistakes(answers, named)]
    found += [_calibrated(answers), _samples(answers, named)]
    return [each for each in found if each]


def _short(name: str) -> str:
    """The end of a name, by which a file is found: `cats/0012.jpg`."""
    return "/".join(name.split("/")[-2:])


def _confused(confusion: np.ndarray, classes: Sequence[str], who: str) -> Section:
    """The confusion matrix, and a line for each class."""
    rows, right = confusion.sum(axis=1), np.trace(confusion)
    lead = paragraph(
        f"{who} {right:,} of {rows.sum():,} validation rows, {right / rows.sum():.1%}.",
        soft=True,
    )
    if len(classes) <= MOST_CELLS:
        shares = confusion / np.maximum(rows[:, None], 1)
        cells = [[f"{count:,}" if count else "" for count in line] for line in confusion]
        matrix = heat(shares.tolist(), cells, classes, "true class ↓   answer →")
    else:
        wrong = confusion * ~np.eye(len(classes), dtype=bool)
        most = [divmod(int(at), len(classes)) for at in np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]]
        pairs = [(classes[i], classes[j], f"{wrong[i, j]:,} of {rows[i]:,}") for i, j in most if wrong[i, j]]
        matrix = table(pairs, ["true class", "taken for", "rows"])
    each = [_class(confusion, classes, number) for number in np.argsort(_recall(confusion), kind="stable")]
    head = ["class", "rows", "of them right", "of its answers right", "most often taken for"]
    return Section("Which classes are confused", lead + matrix + table(each[:MOST_CLASSES], head))


def _recall(confusion: np.ndarray) -> np.ndarray:
    rows = confusion.sum(axis=1)
    return np.where(rows > 0, np.diag(confusion) / np.maximum(rows, 1), np.inf)


def _class(confusion: np.ndarray, classes: Sequence[str], number: int) -> list[str]:
    rows, answered, right = confusion[number].sum(), confusion[:, number].sum(), confusion[number, number]
    others = confusion[number].copy()
    others[number] = 0
    taken = f"{classes[int(others.argmax())]} ({others.max():,})" if others.max() else ""
    return [classes[number], f"{rows:,}", _share(right, rows), _share(right, answered), taken]


def _share(count: int, of: int) -> str:
    return f"{count / of:.1%}" if of else ""


def _mistakes(answers: Answers, names: Mapping[int, str]) -> Section | None:
    classes = answers.classes
    count = int((answers.labels != answers.predicted).sum())
    worst = [at for at in answers.mistakes(MOST_PICTURES) if at in answers.pictures]
    if not worst:
        return None
    shown = [
        (
            answers.pictures[at],
            [
                classes[answers.labels[at]],
                f"taken for {classes[answers.predicted[at]]}, {answers.probability[at]:.0%}",
                _short(names[at]),
            ],
        )
        for at in worst
    ]
    which = f"The {len(worst)} of {count:,} that the model is surest of" if count > len(worst) else f"All {count:,}"
    lead = f"{which}. Where an answer looks right, the label may be wrong."
    return Section("Mistakes", paragraph(lead, soft=True) + gallery(shown))


def _calibrated(answers: Answers) -> Section | None:
    """How often the model is right that is so sure; of few rows chance would tell more than the model."""
    if len(answers.labels) < CALIBRATED:
        return None
    bins = reliability(answers.probability.astype(np.float64), answers.labels == answers.predicted)
    wrong, chance = calibration_error(bins), error_by_chance(bins)
    sure = sum(each.rows * each.confidence for each in bins) / len(answers.labels)
    right = sum(each.rows * each.accuracy for each in bins) / len(answers.labels)
    which = f"{'surer' if sure > right else 'less sure'} than it is right"
    if wrong < 2 * chance:
        which = "as sure as it is right, as far as so few rows show"
    lead = (
        f"It is {sure:.1%} sure on average and {right:.1%} right: {which}. Calibration error {wrong:.1%}, of which "
        f"chance makes about {chance:.1%} on {len(answers.labels):,} rows. On the dashed line a model is as sure as it "
        "is right; larger dots stand for more rows."
    )
    panel = reliability_panel(bins, "Accuracy against confidence, %", drawing.TRAIN, PANEL)
    body = paragraph(lead, soft=True) + chart(alt.concat(panel, columns=1), longest=0)
    return Section("How sure it is, and how often right", body, folded=True)


def _samples(answers: Answers, names: Mapping[int, str]) -> Section | None:
    classes = answers.classes
    worst = set(answers.mistakes(len(answers.pictures)))
    shown = [
        (
            answers.pictures[at],
            [classes[answers.predicted[at]], f"{answers.probability[at]:.0%}, right", _short(names[at])],
        )
        for at in answers.pictures
        if at not in worst
    ]
    return Section("Some right answers", gallery(shown[:MOST_PICTURES]), folded=True) if shown else None


def _examples(examples: Examples, names: Mapping[int, str]) -> list[Section]:
    """Where a row has no one class: each class or number in a line, the worst predictions, and some others."""
    lead = paragraph(f"What the model that was kept says of {len(examples.values):,} validation rows.", soft=True)
    lines = table(examples.lines[:MOST_CLASSES], examples.head)
    sections = [Section("How good it is for each", lead + lines), *panel_sections(examples.panels)]
    worst = [each for each in examples.shown if each.error > 0][:MOST_PICTURES]
    if worst:
        sentences = "The worst first.", examples.legend, "Where a prediction looks right, the label may be wrong."
        what = paragraph(" ".join(filter(None, sentences)), soft=True)
        sections.append(
            Section(
                "Mistakes",
                what + gallery([(each.picture, (*each.caption, _short(names.get(each.row, "")))) for each in worst]),
            )
        )
    others = [each for each in examples.shown if each not in worst][-MOST_PICTURES:]
    if others:
        shown = gallery([(each.picture, (*each.caption, _short(names.get(each.row, "")))) for each in others])
        sections.append(Section("Some others", shown, folded=True))
    return sections
