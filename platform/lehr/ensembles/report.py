"""The report of an ensemble as one page: what it achieves, its members, how they differ, and its calibration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lehr.curves.report import job_section
from lehr.ensembles.charts import disagreement_chart, error_chart, reliability_chart
from lehr.ensembles.evaluation import EnsembleEvaluation, ModelMetrics
from lehr.ensembles.verdict import BASELINE_NAME
from lehr.formatting import format_seconds
from lehr.intervals import in_words
from lehr.job import EnsembleJob
from lehr.reporting.page import Section, chart, finding, page, paragraph, table
from lehr.runs import RunFolder

SELECTION = {
    "equal": "equal weights",
    "best": "the best one, chosen on validation rows",
    "last": "the last ones, their number chosen on validation rows",
    "greedy": "weights from greedy selection on validation rows",
    "fitted": "weights fitted on validation rows",
}
MEMBERS = {
    "snapshot": "snapshots of one run",
    "independent": "independent networks",
    "average": "averages of the weights",
}


def report_page(run: RunFolder, job: EnsembleJob, found: EnsembleEvaluation, verdict: Sequence[str]) -> str:
    """The page as HTML.

    Args:
        verdict: what the evaluation means, in sentences.
    """
    members = f"{len(found.names)} {MEMBERS[job.method]} ({job.base.model.name})"
    selection = "the last ones" if job.combine.last else SELECTION[job.selection]
    lead = f"{members}, combined by the mean of their {job.combine.by}; {selection}"
    return page(run.name, lead, list(_sections(run, job, found, verdict)), _facts(run, job, found))


def _sections(run: RunFolder, job: EnsembleJob, found: EnsembleEvaluation, verdict: Sequence[str]) -> Iterator[Section]:
    baseline = BASELINE_NAME[job.method]
    yield Section("", finding(verdict[0].rstrip("."), *verdict[1:], tone=tone_of(found)))
    yield Section("Error", chart(error_chart(found, baseline)))
    yield Section("", table(*_member_table(found, baseline)))
    if len(found.names) > 1:
        caption = (
            "The share of rows that two members classify differently. Members that always agree gain nothing from "
            "being combined."
        )
        yield Section("Disagreement", paragraph(caption, soft=True) + chart(disagreement_chart(found)))
    caption = (
        "Accuracy against confidence. On the dashed line, a model is as confident as it is accurate. Larger dots stand "
        "for more rows."
    )
    body = paragraph(caption, soft=True) + chart(reliability_chart(found, baseline))
    yield Section("Calibration", body)
    yield job_section(run)


def _facts(run: RunFolder, job: EnsembleJob, found: EnsembleEvaluation) -> list[tuple[str, str]]:
    baseline = (
        [(BASELINE_NAME[job.method].capitalize(), in_words(found.baseline.error, found.rows))] if found.baseline else []
    )
    return [
        ("Ensemble error", in_words(found.ensemble.error, found.rows)),
        *baseline,
        ("Best member", in_words(found.members[found.best_member].error, found.rows)),
        ("Members used", f"{found.used} of {len(found.names)}"),
        ("Calibration error", f"{found.ensemble.calibration:.2%}"),
        ("Evaluated on", f"{found.rows:,} {found.split} rows"),
        ("Time", format_seconds(run.progress().seconds.get("total", 0.0))),
    ]


def tone_of(found: EnsembleEvaluation) -> str:
    """The colour of the verdict: `good` or `bad` where the ensemble clearly is, else none."""
    if found.difference is None or not found.difference.clear:
        return ""
    return "good" if found.difference.mean < 0 else "bad"


def _member_table(found: EnsembleEvaluation, baseline: str) -> tuple[list[list[str]], list[str]]:
    def row(name: str, weight: str, model: ModelMetrics) -> list[str]:
        return [name, weight, in_words(model.error, found.rows), f"{model.log_loss:.4f}", f"{model.calibration:.2%}"]

    weights = found.weights.tolist()
    rows = [row(n, f"{w:.3f}", m) for n, w, m in zip(found.names, weights, found.members, strict=True)]
    rows.append(row("ensemble", "", found.ensemble))
    if found.baseline:
        rows.append(row(baseline, "", found.baseline))
    return rows, ["member", "weight", "error", "log loss", "calibration error"]
