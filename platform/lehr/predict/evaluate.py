"""How good a run is on labelled rows: accuracy, recall and precision of each class, and the confusion matrix; of
numbers and of several classes a row, what their task measures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from lehr.calibration import calibration_error, reliability
from lehr.data.decode import Decoded
from lehr.data.labels import concatenate, without_label
from lehr.data.reading import check_labels
from lehr.data.sources import Source
from lehr.ensembles import log_loss
from lehr.errors import LehrError
from lehr.intervals import in_words
from lehr.job import TrainJob
from lehr.machine import cores
from lehr.predict.predictor import Predictor
from lehr.predict.rows import Predictions, predict_decoded
from lehr.predict.source_parts import prepare_source
from lehr.predict.worker import decode_ahead
from lehr.tasks.classification import Classification
from lehr.tasks.forms import PLACED
from lehr.training.metrics import make_metrics


@dataclass
class Evaluation:
    """What was measured over all readable rows.

    Attributes:
        classes: the class names.
        confusion: int64 [classes, classes]: the number of rows by true class (first) and predicted class (second).
        loss: the mean log loss, in nats.
        calibration: the expected calibration error, 0 to 1.
        members: the accuracy of each member by name; empty for a run that is not an ensemble.
        unreadable: (id, why) of each image that could not be read; no figure includes it.
        own: what the metrics of the run's job measure, by name.
        top5: the share of rows whose class is among the five most probable; None with five classes or fewer.
    """

    classes: tuple[str, ...]
    confusion: np.ndarray
    loss: float
    calibration: float
    members: dict[str, float] = field(default_factory=dict)
    unreadable: list[tuple[int, str]] = field(default_factory=list)
    own: dict[str, float] = field(default_factory=dict)
    top5: float | None = None

    @property
    def rows(self) -> int:
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """The share of rows whose most probable class is the true one, 0 to 1."""
        return float(np.trace(self.confusion) / max(1, self.rows))

    def f1_of_class(self, number: int) -> float:
        """2 P R / (P + R) of precision P and recall R of a class; NaN if it has no rows and is never predicted."""
        rows, predicted = self.confusion[number].sum(), self.confusion[:, number].sum()
        return float(2 * self.confusion[number, number] / (rows + predicted)) if rows + predicted else np.nan

    def of_class(self, number: int) -> tuple[int, float, float]:
        """(rows, recall, precision) of a class; recall or precision is NaN if it has no rows to be measured on."""
        correct = self.confusion[number, number]
        rows, predicted = self.confusion[number].sum(), self.confusion[:, number].sum()
        recall = float(correct / rows) if rows else np.nan
        return int(rows), recall, float(correct / predicted) if predicted else np.nan

    def to_json(self) -> dict[str, Any]:
        """For programs: all figures, those of each class by its name, and the matrix of counts."""
        classes = {}
        for number, name in enumerate(self.classes):
            rows, recall, precision = self.of_class(number)
            classes[name] = {"rows": rows, "recall": recall, "precision": precision, "f1": self.f1_of_class(number)}
        return {
            "rows": self.rows,
            "accuracy": self.accuracy,
            "log_loss": self.loss,
            "calibration_error": self.calibration,
            "metrics": self.own,
            "members": self.members,
            "unreadable": [{"row": row, "why": why} for row, why in self.unreadable],
            "classes": classes,
            "confusion": self.confusion.tolist(),
        }

    def most_confused(self, number: int) -> tuple[str, int] | None:
        """The wrong class that is most often predicted for rows of this class, and how often; None if there is none."""
        others = self.confusion[number].copy()
        others[number] = 0
        most = int(others.argmax())
        return (self.classes[most], int(others[most])) if others[most] else None


def evaluate(
    predictor: Predictor,
    source: Source,
    batch_size: int = 256,
    rows: np.ndarray | None = None,
    job: TrainJob | None = None,
) -> Evaluation:
    """Predicts rows of a labelled source in this process, and compares predictions with labels.

    Args:
        rows: int64, the numbers of the rows that count; by default all do.
        job: whose `metrics` are measured too, of the logarithms of the probabilities in place of the network's outputs.

    Raises:
        LehrError: the source has no labels, or has classes that the run does not know; or no image can be read.
    """
    if not source.classes:
        raise LehrError(f"{source.name}: its images have no labels; allowed: a folder for each class, or Parquet files")
    if unknown := [name for name in source.classes if name not in predictor.classes]:
        names = ", ".join(unknown[:5]) + (", …" if len(unknown) > 5 else "")
        hint = f". {source.hint}" if source.hint else ""
        raise LehrError(f"{source.name}: the run does not know the classes {names}{hint}")
    check_labels(source.labels(), source)
    labels, outputs, members, unreadable = [], [], [], []
    for first, decoded, found in _predict_parts(predictor, prepare_source(source, predictor), batch_size):
        assert found.members is not None
        readable = ~np.isnan(found.probabilities[:, 0])
        if rows is not None:
            readable &= np.isin(np.arange(first, first + len(readable)), rows)
        assert isinstance(decoded.labels, np.ndarray)
        label = decoded.labels[readable]
        labels.append(label)
        outputs.append(found.probabilities[readable])
        members.append((found.members[:, readable].argmax(axis=2) == label).sum(axis=1))
        broken = [(first + row, why) for row, why in decoded.unreadable]
        unreadable += [each for each in broken if rows is None or each[0] in rows]
    label, probabilities = np.concatenate(labels), np.concatenate(outputs)
    if not len(label):
        count = source.rows if rows is None else len(rows)
        raise LehrError(f"{source.name}: none of its {count} images can be read")
    classes = len(predictor.classes)
    confusion = np.bincount(label * classes + probabilities.argmax(axis=1), minlength=classes**2)
    accuracies = np.sum(members, axis=0) / len(label)
    return Evaluation(
        predictor.classes,
        confusion.reshape(classes, classes),
        log_loss(probabilities, label),
        calibration_error(reliability(probabilities.max(axis=1), probabilities.argmax(axis=1) == label)),
        dict(zip(predictor.names, accuracies.tolist(), strict=True)) if len(predictor.names) > 1 else {},
        unreadable,
        _own_metrics(job, probabilities, label, predictor.classes) if job and job.metrics else {},
        _top(probabilities, label, 5) if classes > 5 else None,
    )


def _top(probabilities: np.ndarray, labels: np.ndarray, k: int) -> float:
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(axis=1).mean())


@dataclass
class OtherEvaluation:
    """What was measured over all readable rows of a task whose rows have no one class.

    Attributes:
        rows: how many there were.
        figures: the metrics of the task, and of the run's job, by name.
        head, lines: a table with a line for each class or number.
        unreadable: (id, why) of each image that could not be read; no figure includes it.
    """

    rows: int
    figures: dict[str, float]
    head: list[str]
    lines: list[list[str]]
    unreadable: list[tuple[int, str]]

    def to_json(self) -> dict[str, Any]:
        """For programs: the figures, and the table as words."""
        return {
            "rows": self.rows,
            "metrics": self.figures,
            "unreadable": [{"row": row, "why": why} for row, why in self.unreadable],
            "table": {"head": self.head, "lines": self.lines},
        }


def evaluate_other(
    predictor: Predictor, source: Source, batch_size: int = 256, rows: np.ndarray | None = None
) -> OtherEvaluation:
    """Predicts rows of a source with labels of the run's kind, and compares predictions with labels.

    Args:
        rows: int64, the numbers of the rows that count; by default all do.

    Raises:
        LehrError: the source lacks labels that the run predicts; or no image can be read.
    """
    task = predictor.task
    if source.kind in PLACED and (unknown := [name for name in source.classes if name not in predictor.classes]):
        raise LehrError(f"{source.name}: the run does not know the classes {', '.join(unknown[:5])}")
    missing = [name for name in predictor.classes if name not in source.classes]
    if missing and source.kind != "captions" and (source.kind == "numbers" or not source.classes):
        has = f"its columns are {', '.join(source.classes[:8])}" if source.classes else "its rows have no labels"
        raise LehrError(f"{source.name}: there is no {', '.join(missing[:5])}, which the run predicts; {has}")
    labels, outputs, unreadable = [], [], list[tuple[int, str]]()
    for first, decoded, found in _predict_parts(predictor, prepare_source(source, predictor), batch_size):
        counts = np.ones(len(decoded.labels), bool)
        if rows is not None:
            counts = np.isin(np.arange(first, first + len(counts)), rows)
        readable = ~found.unreadable & ~without_label(decoded.labels) & counts
        labels.append(decoded.labels[readable])
        outputs.append(found.probabilities[readable])
        unreadable += [(first + row, why) for row, why in decoded.unreadable if counts[row]]
    label, values = concatenate(labels), np.concatenate(outputs)
    if not len(label):
        raise LehrError(f"{source.name}: none of its {source.rows} images can be read, or none has a label")
    head, lines = task.table(values, label)
    return OtherEvaluation(len(label), task.measure(values, label), head, lines, unreadable)


def _own_metrics(
    job: TrainJob, probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]
) -> dict[str, float]:
    task = Classification(tuple(classes))
    metrics = make_metrics(job, task, classes, torch.float32)
    outputs = torch.from_numpy(probabilities).float().clamp_min(1e-30).log()
    return metrics.measure(outputs, torch.from_numpy(labels), task, classes)


def _predict_parts(predictor: Predictor, source: Source, batch_size: int) -> Iterator[tuple[int, Decoded, Predictions]]:
    """Of each part: the id of its first row, its decoded rows, and the predictions for them, with those of members."""
    starts, numbers = source.starts, range(len(source.parts))
    for number, decoded in decode_ahead(source, predictor.wanted, numbers, cores()):
        yield int(starts[number]), decoded, predict_decoded(predictor, decoded, True, batch_size)


def confusion_picture(found: Evaluation, title: str) -> bytes:
    """The confusion matrix as a PNG: colours show shares of each true class; up to 20 classes, cells show counts."""
    import altair as alt

    from lehr.reporting import drawing

    shares = found.confusion / np.maximum(found.confusion.sum(axis=1, keepdims=True), 1)
    few = len(found.classes) <= 20
    values = [
        {"true": true, "predicted": predicted, "share": float(shares[i, j]), "rows": int(found.confusion[i, j])}
        for i, true in enumerate(found.classes)
        for j, predicted in enumerate(found.classes)
    ]
    side = min(900, max(240, (44 if few else 12) * len(found.classes)))
    names = list(found.classes)
    labels = alt.Axis(labelAngle=-40, orient="bottom")
    where = {
        "x": alt.X("predicted:N", sort=names, title="predicted class", axis=labels),
        "y": alt.Y("true:N", sort=names, title="true class", axis=alt.Axis(minExtent=0, maxExtent=300)),
    }
    base = alt.Chart(alt.InlineData(values=values))
    color = alt.Color("share:Q", scale=alt.Scale(type="sqrt", range=["#f6f7f9", "#1d5c9e"], domain=[0, 1]), legend=None)
    layers = [base.mark_rect(stroke="white", strokeWidth=1 if few else 0).encode(color=color, **where)]
    if few:
        ink = alt.condition("datum.share > 0.25", alt.value("white"), alt.value("#1d2733"))
        text = base.transform_filter("datum.rows > 0").mark_text(fontSize=11)
        layers.append(text.encode(text=alt.Text("rows:Q", format=",d"), color=ink, **where))
    head = alt.TitleParams(
        title,
        subtitle=f"accuracy {in_words(found.accuracy, found.rows)} on {found.rows:,} rows; a line for each true class",
        anchor="start",
        fontSize=16,
        subtitleFontSize=12,
        offset=12,
    )
    spec = alt.layer(*layers).properties(width=side, height=side, title=head).to_dict()
    return drawing.picture(spec)
