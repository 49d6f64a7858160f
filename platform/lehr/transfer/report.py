"""The report of a transfer: what was chosen and why, accuracy against time and images, and nearest neighbours."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import yaml
from markupsafe import Markup

from lehr.formatting import format_seconds
from lehr.reporting import drawing
from lehr.reporting.page import Section, chart, finding, page, paragraph, table, text
from lehr.runs import RunFolder
from lehr.transfer.guide import LITTLE, TABLE

COLORS = {"features": drawing.RATE, "finetune": drawing.TRAIN, "scratch": drawing.VALIDATION}
NAMES = {"features": "features", "finetune": "fine-tuning", "scratch": "from scratch"}


@dataclass(frozen=True)
class Tried:
    """One trial: a strategy on so many images of each class (None: all)."""

    strategy: str
    count: int | None
    run: RunFolder

    @property
    def accuracy(self) -> float | None:
        """Its best validation accuracy, 0 to 1."""
        value: float | None = self.run.progress().get("best", {}).get("value")
        return value

    def curve(self) -> tuple[list[float], list[float]]:
        """(seconds since training began, validation accuracy in percent) after every epoch."""
        epochs = self.run.epochs()
        seconds = np.cumsum(epochs["seconds"].to_numpy()).tolist()
        return seconds, [100 * value for value in epochs["validation_accuracy"].to_pylist()]


def tried_in(run: RunFolder) -> list[Tried]:
    """The trials of a transfer that measured something, those on all images first."""
    found = []
    for child in run.children("trials"):
        strategy, _, count = child.name.partition("-")
        if child.folder.exists("progress.json") and child.epochs().num_rows:
            found.append(Tried(strategy, int(count) if count else None, child))
    order = list(NAMES)
    return sorted(found, key=lambda each: (each.count is not None, -(each.count or 0), order.index(each.strategy)))


def write_report(run: RunFolder) -> None:
    """Writes `report.html` of the run folder."""
    run.folder.write("report.html", report_page(run).encode())


def report_page(run: RunFolder) -> str:
    """The report as HTML."""
    about, tried = run.folder.read_json("transfer.json"), tried_in(run)
    whole = [each for each in tried if each.count is None]
    sections = [Section("", _verdict(about)), Section("The guide, and where these data are", _guide(about))]
    if whole:
        sections.append(
            Section(
                "Accuracy against training time",
                chart(time_chart(whole), longest=14)
                + paragraph(
                    "Validation accuracy after every epoch, by the seconds that training had taken. Features are "
                    "computed once, and their head is trained on them in one go: one point.",
                    soft=True,
                ),
            )
        )
    if any(each.count for each in tried):
        most = about["train_rows"] / len(about["classes"])
        sections.append(
            Section(
                "Accuracy against the number of training images",
                chart(images_chart(tried, most), longest=14)
                + paragraph("Best validation accuracy with so many training images of each class.", soft=True),
            )
        )
    sections.append(Section("What was tried", _tried(tried, about)))
    if run.folder.exists("neighbours.png"):
        image = base64.b64encode(run.folder.read("neighbours.png")).decode()
        picture = Markup('<img alt="Nearest neighbours" style="max-width:100%" src="data:image/png;base64,{}">')
        words = "The nearest training images of some validation images, by the cosine of their features."
        sections.append(
            Section("Nearest neighbours in feature space", picture.format(image) + paragraph(words, soft=True))
        )
    if skipped := _skipped(run):
        sections.append(Section("Skipped images", skipped))
    sections.append(
        Section("Job", text(yaml.safe_dump(dict(run.job), sort_keys=False, allow_unicode=True)), folded=True)
    )
    backbone, source = run.job["backbone"]["name"], run.job["base"]["data"]["source"]
    lead = f"{backbone} on {source}: {about['train_rows']:,} training images of {len(about['classes'])} classes"
    return page(run.name, lead, sections, _facts(run, about))


def time_chart(tried: Sequence[Tried]) -> alt.LayerChart:
    """Accuracy in percent over seconds, one line per strategy."""
    lines = {each.strategy: each.curve() for each in tried}
    return _lines(lines, "seconds of training", log=False)


def images_chart(tried: Sequence[Tried], most: float) -> alt.LayerChart:
    """Best accuracy in percent over images per class, one line per strategy; `most` is what all images come to."""
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for strategy in NAMES:
        points = sorted(
            (each.count or most, 100 * each.accuracy)
            for each in tried
            if each.strategy == strategy and each.accuracy is not None
        )
        if points:
            lines[strategy] = ([x for x, _ in points], [y for _, y in points])
    return _lines(lines, "training images per class, log scale", log=True)


def _lines(lines: dict[str, tuple[list[float], list[float]]], title: str, log: bool) -> alt.LayerChart:
    values = np.array([value for _, ys in lines.values() for value in ys])
    scale = drawing.accuracy_scale(values)
    x_scale = alt.Scale(type="log", nice=False) if log else alt.Scale(nice=False, zero=True)
    ticks = sorted({x for xs, _ in lines.values() for x in xs}) if log else None
    axis = alt.Axis(values=[float(round(tick)) for tick in ticks], format="d") if ticks else alt.Axis(tickCount=8)

    def x(field: str = "x:Q") -> alt.X:
        return alt.X(field, title=title, scale=x_scale, axis=axis)

    layers: list[alt.Chart] = []
    for name, (xs, ys) in lines.items():
        data = alt.InlineData(
            values=[{"x": drawing.short(a), "y": drawing.short(b)} for a, b in zip(xs, ys, strict=True)]
        )
        tips = [alt.Tooltip("x:Q", title=title, format=".3~g"), alt.Tooltip("y:Q", title=NAMES[name], format=".2f")]
        few = log or len(xs) == 1
        mark = alt.Chart(data).mark_line(
            color=COLORS[name], strokeWidth=1.8, point=alt.OverlayMarkDef(size=60 if few else 16, color=COLORS[name])
        )
        layers.append(mark.encode(x=x(), y=alt.Y("y:Q", scale=scale, title=None), tooltip=tips))
    ends = [(NAMES[name], COLORS[name], np.array(xs), np.array(ys)) for name, (xs, ys) in lines.items()]
    for end in drawing.labels(ends, scale, percent=True):
        data = alt.InlineData(values=[{key: end[key] for key in ("x", "y", "text")}])
        label = alt.Chart(data).mark_text(align="left", dx=8, color=end["color"], fontSize=11, fontWeight="bold")
        layers.append(label.encode(x=x(), y=alt.Y("y:Q", scale=scale, title=None), text="text:N"))
    return alt.layer(*layers).properties(width=drawing.WIDTH, height=260, title="Validation accuracy, %")


# ── the parts of the page ─────────────────────────────────────────────────────────────────────────────────────────


def _verdict(about: dict[str, Any]) -> Markup:
    advice = about["advice"]
    said = Markup("")
    if advice and advice["warning"]:
        said += finding("Little data, and very different", advice["warning"], tone="warn")
    if not about.get("chosen"):
        return said + finding("Nothing was chosen yet")
    return (
        finding(f"Chosen: {NAMES[about['chosen']]}", f"{about['why'][:1].upper()}{about['why'][1:]}.", tone="good")
        + said
    )


def _guide(about: dict[str, Any]) -> Markup:
    """The 2 × 2 table of the lecture, with this job's place in it."""
    advice = about["advice"]
    if not advice:
        return paragraph(
            "The strategies were given, so neither their features nor the likeness were measured.", soft=True
        )

    def cell(little: bool, similar: bool) -> Markup:
        here = (advice["little"], advice["similar"]) == (little, similar)
        words, candidates = TABLE[little, similar]
        style = "padding:12px 14px;border:1px solid var(--line);width:42%;" + (
            "outline:2px solid var(--good);outline-offset:-2px" if here else "color:var(--soft)"
        )
        tag = Markup(' <span class="tag">these data</span>') if here else ""
        return Markup('<td style="{}"><strong>{}</strong>{}<br>{}</td>').format(
            style, words, tag, " → ".join(candidates)
        )

    rows = Markup("")
    for similar, name in ((True, "similar to the pretraining"), (False, "different")):
        rows += Markup('<tr><th scope="row">{}</th>{}{}</tr>').format(name, cell(True, similar), cell(False, similar))
    head = Markup("<tr><th></th><th>little data (below {} images per class)</th><th>quite a lot</th></tr>").format(
        LITTLE
    )
    why = f"{advice['why'][:1].upper()}{advice['why'][1:]}."
    sure = about["similarity"]["sure"]
    more = "" if sure else " The measurement is too close to call, so both rows of the table were tried."
    return Markup('<div class="scroll"><table>{}{}</table></div><br>').format(head, rows) + paragraph(why + more)


def _tried(tried: Sequence[Tried], about: dict[str, Any]) -> Markup:
    most = about["train_rows"] / len(about["classes"])
    tests = [each.run.progress().get("metrics", {}).get("test_accuracy") for each in tried]
    head = ["images per class", "strategy", "validation accuracy", "test accuracy", "epochs", "time"]
    rows = []
    for each, test in zip(tried, tests, strict=True):
        progress = each.run.progress()
        rows.append(
            [
                f"{each.count or most:,.0f}" + ("" if each.count else " (all)"),
                NAMES[each.strategy],
                "" if each.accuracy is None else f"{each.accuracy:.2%}",
                "" if test is None else f"{test:.2%}",
                str(each.run.epochs().num_rows) if each.strategy != "features" else "",
                format_seconds(progress.get("seconds", {}).get("total", 0)),
            ]
        )
    if not any(test is not None for test in tests):
        head, rows = [*head[:3], *head[4:]], [[*row[:3], *row[4:]] for row in rows]
    return table(rows, head)


def _skipped(run: RunFolder) -> Markup | None:
    data = run.environment.get("data", {})
    found = data.get("unreadable")
    notes = data.get("notes", [])
    if not found and not notes:
        return None
    said = Markup("").join(paragraph(note) for note in notes)
    if found:
        said += paragraph(f"{found['count']} could not be read and took no part:") + text("\n".join(found["names"]))
    return said


def _facts(run: RunFolder, about: dict[str, Any]) -> list[tuple[str, str]]:
    progress = run.progress()
    facts = [("State", str(progress.get("status", "new")))]
    if about.get("chosen"):
        facts.append(("Chosen", NAMES[about["chosen"]]))
    best = progress.get("best") or {}
    if best.get("value") is not None:
        facts.append(("Validation accuracy", f"{best['value']:.2%}"))
    if "test_accuracy" in progress.get("metrics", {}):
        facts.append(("Test accuracy", f"{progress['metrics']['test_accuracy']:.2%}"))
    if about["similarity"]:
        facts.append(("Likeness", f"{100 * about['similarity']['gain']:+.1f} points"))
    return facts
