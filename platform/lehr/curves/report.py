"""`report.html`: one page that holds everything, and needs nothing but itself."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml

from lehr.curves import charts, drawing
from lehr.curves.findings import Diagnosis, Finding
from lehr.curves.page import PAGE
from lehr.curves.record import Curves
from lehr.runs import RunFolder
from lehr.words import clock

_FATAL = ("diverged", "not_learning", "at_chance")
_TIMES = {
    "compute": drawing.TRAIN,
    "input": drawing.VALIDATION,
    "evaluation": drawing.RATE,
    "startup": drawing.GRADIENT,
    "checkpoints": "#c2a21b",
    "records": "#3aa6a0",
    "other": drawing.SPEED,
}


def report_page(run: RunFolder, curves: Curves, diagnosis: Diagnosis) -> str:
    """The report of a run as HTML: verdict, charts, where the time went, epochs, job, environment, events."""
    progress = run.progress()
    events = [(event["time"][:19].replace("T", " "), event["kind"], event["message"]) for event in run.events()]
    tables = [
        _epoch_table(curves),
        {"title": "What happened", "rows": events, "open": True},
        {"title": "Environment", "rows": _environment(run.environment)},
    ]
    return _render(
        charts.run_chart(curves),
        title=run.name,
        subtitle=subtitle(curves),
        facts=_facts(curves, progress),
        findings=[_shown(finding) for finding in diagnosis.findings],
        times=_times(progress.get("seconds", {})),
        tables=[table for table in tables if table["rows"]],
        texts=[{"title": "Job", "body": yaml.safe_dump(dict(run.job), sort_keys=False, allow_unicode=True)}],
    )


def compare_page(runs: Sequence[Curves], diagnoses: Sequence[Diagnosis]) -> str:
    """Several runs beside each other as HTML: their curves, what differs between their jobs, and each one's verdict."""
    head = ["run", "best validation accuracy", "epochs", "verdict", *(differing := differences(runs))]
    rows = []
    for curves, diagnosis in zip(runs, diagnoses, strict=True):
        best = np.nanmax(curves.epoch_column("validation_accuracy"), initial=-1.0)
        cells = [curves.name, f"{best:.2%}" if best >= 0 else "", f"{curves.bounds()[1]:.0f}", diagnosis.first.title]
        rows.append([*cells, *(_plain(curves.option(path, "")) for path in differing)])
    return _render(
        charts.compare_chart(runs),
        title=" · ".join(curves.name for curves in runs),
        subtitle=f"{len(runs)} runs beside each other",
        tables=[{"title": "Runs", "head": head, "rows": rows, "open": True}],
        longest=max(len(curves.name) for curves in runs) + 5,
    )


def differences(runs: Sequence[Curves]) -> list[str]:
    """The dotted paths of the fields in which the jobs differ; names and storage left out."""
    flat = [_flat(curves.job) for curves in runs]
    paths = dict.fromkeys(path for each in flat for path in each)
    return [p for p in paths if p not in ("name", "notes", "storage") and len({repr(each.get(p)) for each in flat}) > 1]


def subtitle(curves: Curves) -> str:
    """What was trained, in half a line."""
    optimizer = f"{curves.option('optimizer.name', '')} at {curves.option('optimizer.lr', 0):g}"
    parts = [
        str(curves.option("model.name", "")),
        f"{curves.option('data.source', '')} data",
        optimizer,
        f"{curves.option('schedule.name', '')} schedule",
        f"batch {curves.option('train.batch_size', '')}",
    ]
    return ", ".join(parts)


def _render(chart: Any, longest: int = 15, **content: Any) -> str:
    """The page; `longest` is the number of letters in the longest label beside the curves."""
    room = 72 + 6.6 * min(longest, drawing.LONGEST_LABEL + 5)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.ChainableUndefined)
    scripts = {
        "library": library(),
        "spec": _script(chart.to_dict()),
        "looks": _script({"light": drawing.LIGHT, "dark": drawing.DARK}),
        "room": _script({"wide": room, "narrow": min(room, 196)}),
    }
    safe = {name: jinja2.utils.markupsafe.Markup(text) for name, text in scripts.items()}
    return environment.from_string(PAGE).render(**content, **safe)


def _script(value: Any) -> str:
    """JSON that can stand in a script element."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("</", "<\\/").replace("<!--", "<\\!--")


@functools.cache
def library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script; kept in the user's cache folder, since bundling takes seconds."""
    import vl_convert

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lehr"
    kept = cache / f"vega-{version('vl-convert-python')}.js"
    try:
        return kept.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        pass
    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub forgets the default
    text = bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}")
        part.write_text(text, encoding="utf-8")
        part.replace(kept)
    except OSError:
        pass  # a home that cannot be written to costs those seconds each time, no more
    return text


def _shown(finding: Finding) -> dict[str, Any]:
    tone = "good" if finding.good else "bad" if finding.name in _FATAL else "warn"
    evidence = finding.evidence[:1].upper() + finding.evidence[1:]
    return finding.to_dict() | {"tone": tone, "evidence": evidence}


def _facts(curves: Curves, progress: Mapping[str, Any]) -> list[tuple[str, str]]:
    best, facts = progress.get("best") or {}, [("State", str(progress.get("status", "new")))]
    if best.get("value") is not None:
        value = f"{best['value']:.2%}" if "accuracy" in best["metric"] else f"{best['value']:.4f}"
        facts.append((f"Best {best['metric'].replace('_', ' ')}", f"{value} (epoch {best['epoch']})"))
    if "test_accuracy" in progress.get("metrics", {}):
        facts.append(("Test accuracy of that model", f"{progress['metrics']['test_accuracy']:.2%}"))
    facts.append(("Epochs", f"{curves.bounds()[1]:.3g} of {curves.option('train.epochs', '?')}"))
    facts.append(("Steps", f"{len(curves.steps['step']):,}"))
    if progress.get("seconds"):
        facts.append(("Time", _clock(progress["seconds"].get("total", 0) + progress["seconds"].get("startup", 0))))
    return facts


def _times(seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    total = seconds.get("total", 0.0) + seconds.get("startup", 0.0)
    parts = {name: value for name, value in seconds.items() if name != "total"}
    parts["other"] = max(0.0, total - sum(parts.values()))
    return [
        {
            "name": "start-up" if name == "startup" else name,
            "percent": f"{100 * value / total:.2f}",
            "share": f"{value / total:.0%}",
            "seconds": _clock(value),
            "color": _TIMES.get(name, drawing.SPEED),
        }
        for name, value in sorted(parts.items(), key=lambda item: -item[1])
        if total and value / total >= 0.005
    ]


def _epoch_table(curves: Curves) -> dict[str, Any]:
    names = [name for name, column in curves.epochs.items() if name != "step" and np.isfinite(column).any()]
    count = len(curves.epochs["epoch"])
    rows = range(count) if count <= 60 else [*range(20), *range(count - 40, count)]
    title = "Epochs" if count <= 60 else f"Epochs: the first 20 and the last 40 of {count:,}"
    cells = [[_number(curves.epochs[name][i]) for name in names] for i in rows]
    return {"title": title, "head": [name.replace("_", " ") for name in names], "rows": cells}


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.5g}"


def _environment(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(path.replace("_", " ").replace(".", " · "), _plain(value)) for path, value in _flat(environment).items()]


def _flat(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        inner = f"{path}.{key}" if path else str(key)
        flat |= _flat(value, inner) if isinstance(value, Mapping) else {inner: value}
    return flat


def _plain(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _clock(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else clock(seconds)
