"""The report of a cross-validation: its figures, the curves of all folds, and what is confused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lehr.curves import charts, of_folds
from lehr.curves.answers import answer_sections
from lehr.curves.record import Curves
from lehr.curves.report import job_section, subtitle
from lehr.folds.results import ABOUT_EPOCHS, ABOUT_ERROR, ABOUT_INTERVALS, FoldsResult, name_of, with_error
from lehr.formatting import format_metric, format_seconds
from lehr.reporting.page import Section, chart, finding, page, paragraph, table
from lehr.runs import RunFolder
from lehr.runs.columns import listed


def report_page(run: RunFolder, found: FoldsResult, folds: Sequence[RunFolder]) -> str:
    """The page as HTML.

    Args:
        folds: the runs of the folds, in their order.
    """
    curves = [replace(Curves.read(each), name=f"fold {int(each.name)}") for each in folds]
    sentences = found.sentences()
    rows, head = fold_table(found, folds)
    notes = paragraph(f"{ABOUT_ERROR} {ABOUT_INTERVALS}", soft=True) + paragraph(ABOUT_EPOCHS, soft=True)
    drawn = chart(charts.compare_chart(curves))
    sections = [
        Section("", finding(sentences[0].rstrip("."), *sentences[1:])),
        Section("Folds", table(rows, head) + notes),
        Section("The curves of all folds", drawn),
        *answer_sections(run, "Each row was answered by the network that had not seen it: right on"),
        job_section(run),
    ]
    facts = [
        (f"Mean {name_of(found.metric)}", found.in_words()),
        ("Folds", f"{len(found.folds)}"),
        ("Rows", f"{found.rows:,}"),
        ("Epochs spent", f"{found.epochs:,}"),
        ("Time", format_seconds(run.progress().seconds.get("total", 0.0))),
    ]
    lead = f"{subtitle(curves[0])}; {len(found.folds)} folds, each validated on rows that it has not seen"
    return page(run.name, lead, sections, facts)


def fold_table(found: FoldsResult, folds: Sequence[RunFolder]) -> tuple[list[list[str]], list[str]]:
    """A line for each fold, and the head; the last line has the mean."""
    tested = [name for name in ("test_accuracy", *listed(found.folds[0].metrics, "test")) if _all_have(found, name)][:1]
    head = ["fold", name_of(found.metric), "best epoch", "epochs", "rows", *(name.replace("_", " ") for name in tested)]
    rows = []
    for fold in found.folds:
        reached = format_metric(fold.value, found.metric, {"validation": fold.rows})
        test = [format_metric(float(fold.metrics[name] or 0.0), name) for name in tested]
        epoch = "" if fold.epoch is None else str(fold.epoch)
        number = str(int(fold.folder.rpartition("/")[2]))
        rows.append([number, reached, epoch, str(fold.epochs), f"{fold.rows:,}", *test])
    rows.append(["mean", with_error(found.mean, found.error, found.metric), "", "", "", *("" for _ in tested)])
    diagnosed = dict(of_folds.titles(folds))
    return [[*row, diagnosed.get(fold, "")] for row, fold in zip(rows, [*diagnosed, ""], strict=True)], [
        *head,
        "diagnosis",
    ]


def _all_have(found: FoldsResult, name: str) -> bool:
    return all(fold.metrics.get(name) is not None for fold in found.folds)
