"""The report of a transfer: what was chosen and why, accuracy against time and images, and nearest neighbours."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from lehr.curves.answers import answer_sections
from lehr.curves.report import job_section
from lehr.errors import RunError
from lehr.formatting import format_metric, format_seconds
from lehr.intervals import in_words, metric_in_words
from lehr.reporting.page import Section, chart, finding, page, paragraph, table, text
from lehr.runs import DataFacts, RunFolder, UnreadableImages
from lehr.tasks.forms import spoken_in_full
from lehr.transfer.charts import images_chart, time_chart
from lehr.transfer.decision import TransferDecision
from lehr.transfer.results import STRATEGY_NAMES, StrategyTrial, strategy_trials
from lehr.transfer.strategies import LITTLE_DATA, TABLE, Advice


def write_report(run: RunFolder) -> None:
    """Writes `report.html` of the run folder. Raises RunError if the run has not started its trials."""
    run.folder.write("report.html", report_page(run).encode())


def report_page(run: RunFolder) -> str:
    """The report as HTML. Raises RunError if the run has not started its trials."""
    decision = TransferDecision.read(run.folder)
    if decision is None:
        raise RunError(f"{run.name} has not started its trials; there is nothing to report yet")
    backbone, source = run.job["backbone"]["name"], run.job["base"]["data"]["source"]
    images = f"{decision.train_rows:,} training images in {len(decision.classes)} classes"
    sections = list(_sections(run, decision, strategy_trials(run)))
    return page(run.name, f"{backbone} on {source}: {images}", sections, _facts(run, decision))


# ── the parts of the page ─────────────────────────────────────────────────────────────────────────────────────────


def _sections(run: RunFolder, decision: TransferDecision, trials: Sequence[StrategyTrial]) -> Iterator[Section]:
    yield Section("", _verdict(decision))
    yield from answer_sections(run)
    yield Section("Rule of thumb, and where this data set falls", _rule_of_thumb(decision))
    if whole := [each for each in trials if each.per_class is None]:
        caption = (
            "Validation accuracy of the best model so far, which is kept, against training time. The features strategy "
            "has a single point: its features are computed once, and its head is trained on them without evaluation in "
            "between."
        )
        body = chart(time_chart(whole)) + paragraph(caption, soft=True)
        yield Section("Accuracy against training time", body)
    if any(each.per_class for each in trials):
        caption = "Best validation accuracy with this many training images per class."
        body = chart(images_chart(trials, decision.images_per_class)) + paragraph(caption, soft=True)
        yield Section("Accuracy against the number of training images", body)
    yield Section("Trials", _trials_table(trials, decision) + paragraph(_of_the_trials(decision), soft=True))
    if run.folder.exists("neighbours.png"):
        image = base64.b64encode(run.folder.read("neighbours.png")).decode()
        picture = Markup('<img alt="Nearest neighbours" style="max-width:100%" src="data:image/png;base64,{}">')
        caption = (
            "Some validation images and their nearest training images, by cosine similarity of their features. The "
            "frame is green where the class is the same and red where it is not."
        )
        yield Section("Nearest neighbours in feature space", picture.format(image) + paragraph(caption, soft=True))
    if skipped := _skipped_images(run):
        yield Section("Skipped images", skipped)
    yield job_section(run)


def _verdict(decision: TransferDecision) -> Markup:
    warning = Markup("")
    if decision.advice and decision.advice.warning:
        conclusive = decision.similarity and decision.similarity.conclusive
        title = f"Little data, {'' if conclusive else 'perhaps '}very different from the pretraining"
        warning = finding(title, decision.advice.warning, tone="warn")
    if not decision.chosen:
        return warning + finding("No strategy has been chosen yet")
    why = f"{decision.why[:1].upper()}{decision.why[1:]}."
    return finding(f"Chosen: {decision.called or STRATEGY_NAMES[decision.chosen]}", why, tone="good") + warning


def _rule_of_thumb(decision: TransferDecision) -> Markup:
    """The 2 × 2 table, with this job's cell marked."""
    advice, similarity = decision.advice, decision.similarity
    if not advice or not similarity:
        given = "The job names its strategies, none of which needs features, so the similarity was not measured."
        return paragraph(given, soft=True)
    head = Markup(
        '<tr><th></th><th scope="col">little data (below {0} images per class)</th>'
        '<th scope="col">more data ({0} or more)</th></tr>'
    ).format(LITTLE_DATA)
    rows = Markup("")
    for similar, name in ((True, "similar to the pretraining"), (False, "different")):
        cells = _cell(advice, True, similar) + _cell(advice, False, similar)
        rows += Markup('<tr><th scope="row">{}</th>{}</tr>').format(name, cells)
    why = f"{advice.why[:1].upper()}{advice.why[1:]}."
    if not similarity.conclusive:
        why += " The strategies of both rows of the table are therefore candidates."
    return Markup('<div class="scroll"><table>{}{}</table></div><br>').format(head, rows) + paragraph(why)


def _cell(advice: Advice, little: bool, similar: bool) -> Markup:
    here = (advice.little, advice.similar) == (little, similar)
    rule, candidates = TABLE[little, similar]
    style = "padding:12px 14px;border:1px solid var(--line);width:42%;" + (
        "outline:2px solid var(--good);outline-offset:-2px" if here else "color:var(--soft)"
    )
    tag = Markup(' <span class="tag">this data set</span>') if here else ""
    order = " → ".join(STRATEGY_NAMES[each] for each in candidates)
    return Markup('<td style="{}"><strong>{}</strong>{}<br>{}</td>').format(style, rule, tag, order)


def _trials_table(trials: Sequence[StrategyTrial], decision: TransferDecision) -> Markup:
    tested = any(each.test_accuracy is not None for each in trials)
    head = ["training images per class", "strategy", "validation accuracy", "test accuracy", "kept epoch"]
    head += ["parameters trained", "time"]
    rows = []
    for each in trials:
        row = [
            f"{each.per_class:,}" if each.per_class else f"{decision.images_per_class:,.0f} (all)",
            each.called,
            _percent(each.accuracy, decision.validation_rows),
            _percent(each.test_accuracy, decision.test_rows),
            "" if each.strategy == "features" else f"{each.result.best.epoch} of {each.epochs}",
            each.trained,
            format_seconds(each.seconds),
        ]
        rows.append(row if tested else [*row[:3], *row[4:]])
    return table(rows, head if tested else [*head[:3], *head[4:]])


def _of_the_trials(decision: TransferDecision) -> str:
    """What one has to know to read the table."""
    rows = f"All are measured on the same {decision.validation_rows:,} validation images, ± the 95 % interval."
    if not decision.seconds_per_image:
        return rows
    return f"{rows} The features were computed once; that time is in the first row of the features alone."


def _percent(value: float | None, rows: int = 0) -> str:
    return "" if value is None else in_words(value, rows)


def _skipped_images(run: RunFolder) -> Markup:
    """Notes about the data, and the names of unreadable images; empty if there are none."""
    data = run.environment.data or DataFacts()
    body = Markup("").join(paragraph(note) for note in data.notes)
    unreadable = data.unreadable or UnreadableImages()
    if count := unreadable.count:
        sentence = "1 image could not be read and was" if count == 1 else f"{count:,} images could not be read and were"
        body += paragraph(f"{sentence} not used:") + text("\n".join(unreadable.names))
    return body


def _facts(run: RunFolder, decision: TransferDecision) -> list[tuple[str, str]]:
    progress = run.progress()
    result = run.outcome() or progress
    best = result.best
    value = None
    if best.value is not None:
        told = metric_in_words(best.value, best.metric, decision.validation_rows)
        value = told or format_metric(best.value, best.metric)
    facts: list[tuple[str, str | None]] = [
        ("State", progress.status),
        ("Chosen", decision.called or STRATEGY_NAMES[decision.chosen] if decision.chosen else None),
        (f"Best {spoken_in_full(best.metric)}", value),
        ("Test accuracy", _percent(result.metrics.get("test_accuracy"), decision.test_rows)),
        ("Gain from pretraining", f"{100 * decision.similarity.gain:+.1f} points" if decision.similarity else None),
    ]
    return [(name, value) for name, value in facts if value]
