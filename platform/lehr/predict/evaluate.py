"""How good a run is on labelled rows: accuracy, class by class, and what is taken for what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from lehr.data.sources import Source
from lehr.ensembles import expected_calibration_error, log_loss
from lehr.errors import LehrError
from lehr.machine import cores
from lehr.predict.predictor import Predictor
from lehr.predict.rows import predict_decoded, prepare
from lehr.predict.worker import decode_ahead


@dataclass
class Evaluation:
    """What was measured over all readable rows.

    Attributes:
        classes: the class names.
        confusion: int64 [classes, classes]: rows of a class (first index) that were taken for one (second index).
        loss: the mean log loss, in nats.
        calibration: the expected calibration error, 0 to 1.
        members: the accuracy of each member by name; empty for a run that is not an ensemble.
        unreadable: (id, why) of each image that could not be read and is in none of the figures.
    """

    classes: tuple[str, ...]
    confusion: np.ndarray
    loss: float
    calibration: float
    members: dict[str, float] = field(default_factory=dict)
    unreadable: list[tuple[int, str]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """The share of rows whose most probable class is their own, 0 to 1."""
        return float(np.trace(self.confusion) / max(1, self.rows))

    def of_class(self, number: int) -> tuple[int, float, float]:
        """(rows, recall, precision): of its rows the share found, and of what was taken for it the share that is it."""
        right, rows, taken = (
            self.confusion[number, number],
            self.confusion[number].sum(),
            self.confusion[:, number].sum(),
        )
        return int(rows), float(right / rows) if rows else np.nan, float(right / taken) if taken else np.nan

    def most_confused(self, number: int) -> tuple[str, int] | None:
        """The other class that rows of this one were most often taken for, and how often."""
        others = self.confusion[number].copy()
        others[number] = 0
        most = int(others.argmax())
        return (self.classes[most], int(others[most])) if others[most] else None


def evaluate(predictor: Predictor, source: Source, batch_size: int = 256) -> Evaluation:
    """Predicts every row of a labelled source, in this process.

    Raises:
        LehrError: the source has classes that the run does not know.
    """
    if not source.classes:
        raise LehrError(f"{source.name}: its images have no labels; allowed: a folder for each class, or Parquet files")
    if unknown := [name for name in source.classes if name not in predictor.classes]:
        names = ", ".join(unknown[:5]) + (", …" if len(unknown) > 5 else "")
        raise LehrError(f"{source.name}: its classes {names} are not among those of the run")
    labels, outputs, members, unreadable = [], [], [], []
    for first, label, probabilities, each, bad in _predicted(predictor, prepare(source, predictor), batch_size):
        good = ~np.isnan(probabilities[:, 0])
        labels.append(label[good])
        outputs.append(probabilities[good])
        members.append((each[:, good].argmax(axis=2) == label[good]).sum(axis=1))
        unreadable += [(first + row, why) for row, why in bad]
    label, together = np.concatenate(labels), np.concatenate(outputs)
    if not len(label):
        raise LehrError(f"{source.name}: none of its {source.rows} images can be read")
    classes = len(predictor.classes)
    confusion = np.bincount(label * classes + together.argmax(axis=1), minlength=classes**2).reshape(classes, classes)
    alone = np.sum(members, axis=0) / len(label)
    return Evaluation(
        predictor.classes,
        confusion,
        log_loss(together, label),
        expected_calibration_error(together, label),
        dict(zip(predictor.names, alone.tolist(), strict=True)) if len(predictor.names) > 1 else {},
        unreadable,
    )


def _predicted(
    predictor: Predictor, source: Source, batch_size: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray, tuple[tuple[int, str], ...]]]:
    """Part by part: id of the first row, labels, probabilities together and of each member, what was unreadable."""
    starts, numbers = source.starts, range(len(source.parts))
    for number, decoded in decode_ahead(source, predictor.size, predictor.channels, numbers, cores()):
        found = predict_decoded(predictor, decoded, True, batch_size)
        assert found.members is not None
        yield int(starts[number]), decoded.labels, found.probabilities, found.members, decoded.unreadable


def confusion_picture(found: Evaluation, title: str) -> bytes:
    """The confusion matrix as a PNG: shares of each true class, counts in the cells where there is room."""
    import altair as alt
    import vl_convert

    from lehr.reporting import drawing

    shares = found.confusion / np.maximum(found.confusion.sum(axis=1, keepdims=True), 1)
    few = len(found.classes) <= 20
    values = [
        {"true": true, "taken": taken, "share": float(shares[i, j]), "rows": int(found.confusion[i, j])}
        for i, true in enumerate(found.classes)
        for j, taken in enumerate(found.classes)
    ]
    side = min(900, max(240, (44 if few else 12) * len(found.classes)))
    names = list(found.classes)
    where = {
        "x": alt.X("taken:N", sort=names, title="taken for", axis=alt.Axis(labelAngle=-40, orient="bottom")),
        "y": alt.Y("true:N", sort=names, title="is", axis=alt.Axis(minExtent=0, maxExtent=300)),
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
        subtitle=f"accuracy {found.accuracy:.2%} on {found.rows:,} rows; each row of the picture is one true class",
        anchor="start",
        fontSize=16,
        subtitleFontSize=12,
        offset=12,
    )
    spec = alt.layer(*layers).properties(width=side, height=side, title=head).to_dict()
    look = {"config": drawing.LIGHT, "background": "white", "padding": 20}
    return vl_convert.vegalite_to_png(spec | look, scale=2)
