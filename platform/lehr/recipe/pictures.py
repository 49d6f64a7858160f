"""The pictures of a recipe's steps, as Altair charts that the page draws in its own looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from lehr.recipe.initial import Initial
from lehr.recipe.overfit import Overfit
from lehr.recipe.rates import Rates, RateTest
from lehr.recipe.trial_results import Round, Trained, best_of, pool
from lehr.reporting import drawing as draw

Line = tuple[str, Sequence[float], Sequence[float]]
HEIGHT = 220
CHOSEN, OTHER = draw.VALIDATION, draw.TRAIN


def start(r: Initial) -> Any:
    """The loss before training beside that of a guess, and how many training images each class has."""
    losses = [{"what": "at the start", "loss": r.loss}, {"what": "a guess", "loss": r.guess}]
    first = (
        _data(losses)
        .mark_bar(size=26, color=OTHER)
        .encode(
            y=alt.Y("what:N", title=None, sort=None, axis=alt.Axis(minExtent=80, maxExtent=80)),
            x=alt.X("loss:Q", title="loss"),
            tooltip=["what:N", alt.Tooltip("loss:Q", format=".4g")],
        )
    )
    counts = [{"class": number, "images": count} for number, count in enumerate(r.counts)]
    second = (
        _data(counts)
        .mark_bar(color=draw.SPEED)
        .encode(
            x=alt.X("class:O", title="class number", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
            y=alt.Y("images:Q", title=None),
            tooltip=["class:O", "images:Q"],
        )
    )
    return _beside(
        first.properties(height=120, title="Loss before training"),
        second.properties(height=120, title="Training images of each class"),
    )


def learned(r: Overfit) -> Any:
    """The loss on the sample over the updates, a line for each rate, and the share of the sample that is right."""
    most = 10 * r.guess  # a rate that is far too high would press all others into one line
    losses = [
        (f"{a.rate:g}", [float(i) for i in range(len(a.losses))], [min(loss, most) for loss in a.losses])
        for a in r.attempts
    ]
    right = [
        (f"{a.rate:g}", [float(step) for step, _ in a.accuracies], [100 * share for _, share in a.accuracies])
        for a in r.attempts
    ]
    return _beside(
        lines(losses, "Loss, by rate", "update", log=True, rule=r.guess),
        lines(right, "Right in the sample, %", "update"),
    )


def tests(r: Rates, chosen: Sequence[float]) -> Any:
    """The loss of each test over its steps; and the loss at the end over the rate, those that go on marked."""
    if r.tests[0].sweep:
        test = r.tests[0]
        return _rated(
            [(rate, loss) for rate, loss in zip(test.rates, test.losses, strict=False)], test, (), "Loss, over the rate"
        )
    curves = [
        (f"{t.rate:g}", [float(i) for i in range(len(t.losses))], _averaged(t.losses))
        for t in sorted(r.tests, key=lambda t: t.rate)
    ]
    ends = [(t.rate, t.end) for t in sorted(r.tests, key=lambda t: t.rate)]
    most = 3 * max(r.tests[0].guess, min(end for _, end in ends))
    cut = [(name, at, [min(y, most) for y in losses]) for name, at, losses in curves]
    return _beside(
        lines(cut, "Loss, by rate", "step", rule=r.tests[0].guess),
        _rated(
            [(rate, min(end, most)) for rate, end in ends], r.tests[0], chosen, "Loss of the last steps, over the rate"
        ),
    )


def _rated(points: Sequence[tuple[float, float]], test: RateTest, chosen: Sequence[float], title: str) -> Any:
    rows = [
        {"rate": rate, "loss": draw.short(loss), "goes": "goes on" if rate in chosen else "does not"}
        for rate, loss in points
        if math.isfinite(loss)
    ]
    x = _rate_axis([rate for rate, _ in points], 12)
    y = alt.Y("loss:Q", title=None, scale=alt.Scale(zero=False))
    base = _data(rows)
    line = base.mark_line(color=draw.SPEED, strokeWidth=1.4).encode(x=x, y=y)
    color = alt.Color("goes:N", scale=alt.Scale(domain=["goes on", "does not"], range=[CHOSEN, OTHER]), legend=None)
    tips = [alt.Tooltip("rate:Q", format="~g"), alt.Tooltip("loss:Q", format=".4g"), "goes:N"]
    dots = base.mark_circle(size=70, opacity=1).encode(x=x, y=y, color=color, tooltip=tips)
    layers = [line, _rule(test.guess, "a guess"), *([dots] if chosen else [])]
    return alt.layer(*layers).properties(height=HEIGHT, title=title)


def trials(rounds: Sequence[Round]) -> Any:
    """The metric of all trials so far over their epochs, the best marked; and where they lie in rate and decay."""
    metric, lower = rounds[-1].metric, rounds[-1].lower
    percent = metric.endswith("accuracy")
    best = best_of(rounds)
    everything = pool(rounds)
    new = {trained.folder for trained in rounds[-1].trained}
    rows = [
        {
            "epoch": epoch,
            "value": draw.short(100 * value if percent else value),
            "trial": each.folder,
            "setting": str(each.setting),
            "is": _rank(each, best, new),
        }
        for each in everything.values()
        for epoch, value in enumerate(each.values, 1)
        if math.isfinite(value)
    ]
    name = metric.replace("_", " ") + (", %" if percent else "")
    color = alt.Color(
        "is:N",
        scale=alt.Scale(domain=["the best", "this round", "before"], range=[CHOSEN, OTHER, "#aab4be"]),
        legend=alt.Legend(orient="bottom", title=None),
    )
    scale = _zoomed([value for each in everything.values() for value in each.values], percent and not lower)
    curves = (
        _data(rows)
        .mark_line(point=alt.OverlayMarkDef(size=18, filled=True), strokeWidth=1.6, clip=True)
        .encode(
            x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("value:Q", title=None, scale=scale),
            detail="trial:N",
            color=color,
            order=alt.Order("epoch:Q"),
            tooltip=["trial:N", "setting:N", "epoch:Q", alt.Tooltip("value:Q", title=name, format=".4g")],
        )
    )
    return _beside(
        curves.properties(height=HEIGHT, title=name[:1].upper() + name[1:]),
        _map(list(everything.values()), best, new, lower, percent, name),
    )


def _zoomed(values: Sequence[float], percent: bool) -> Any:
    """An axis on which the better values can be told apart: the worst tenth may lie below it."""
    known = sorted(100 * value for value in values if math.isfinite(value))
    if not percent or not known or known[-1] <= known[len(known) // 10]:
        return alt.Scale(zero=False)
    low, high = known[len(known) // 10], known[-1]
    return alt.Scale(domain=[low, high + 0.03 * (high - low)], nice=False, clamp=True)


def _map(everything: Sequence[Trained], best: Trained, new: set[str], lower: bool, percent: bool, name: str) -> Any:
    rows = [
        {
            "rate": each.setting.rate,
            "decay": f"{each.setting.decay:g}" + (" +" if each.setting.changes else ""),
            "at": each.setting.decay,
            "value": draw.short(abs(each.best(lower)) * (100 if percent else 1)),
            "text": f"{100 * each.best(lower):.1f}" if percent else f"{abs(each.best(lower)):.3g}",
            "setting": str(each.setting),
            "trial": each.folder,
            "epochs": each.epochs,
            "is": _rank(each, best, new),
        }
        for each in everything
        if math.isfinite(each.best(lower))
    ]
    x = _rate_axis([each.setting.rate for each in everything], 24)
    y = alt.Y("decay:N", title="weight decay", sort=alt.EncodingSortField("at", order="descending"))
    color = alt.Color(
        "is:N",
        scale=alt.Scale(domain=["the best", "this round", "before"], range=[CHOSEN, OTHER, "#aab4be"]),
        legend=None,
    )
    tips = ["trial:N", "setting:N", "epochs:Q", alt.Tooltip("value:Q", title=name, format=".4g")]
    base = _data(rows)
    dots = base.mark_circle(size=90, opacity=1).encode(x=x, y=y, color=color, tooltip=tips)
    words = base.mark_text(dy=-12, fontSize=10).encode(x=x, y=y, color=color, text="text:N")
    return alt.layer(dots, words).properties(height=HEIGHT, title="Best of each, over rate and weight decay")


def _rank(each: Trained, best: Trained, new: set[str]) -> str:
    return "the best" if each.folder == best.folder else "this round" if each.folder in new else "before"


# ── pieces ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def lines(series: Sequence[Line], title: str, x: str, *, log: bool = False, rule: float | None = None) -> Any:
    """Named lines over x; a dashed rule where a guess is."""
    rows = [
        {"x": a, "y": draw.short(b), "name": name}
        for name, at, values in series
        for a, b in zip(at, values, strict=True)
        if math.isfinite(b) and (b > 0 or not log)
    ]
    names = [name for name, _, _ in series]
    colors = [draw.RUN_COLORS[number % len(draw.RUN_COLORS)] for number in range(len(names))]
    scale = alt.Scale(type="log", nice=False) if log else alt.Scale(zero=False)
    chart = (
        _data(rows)
        .mark_line(strokeWidth=1.8, clip=True)
        .encode(
            x=alt.X("x:Q", title=x),
            y=alt.Y("y:Q", title=None, scale=scale, axis=alt.Axis(format="~g") if log else alt.Axis()),
            color=alt.Color(
                "name:N",
                sort=None,
                scale=alt.Scale(domain=names, range=colors),
                legend=alt.Legend(orient="bottom", title=None, columns=5),
            ),
            tooltip=[alt.Tooltip("name:N", title="rate"), "x:Q", alt.Tooltip("y:Q", format=".4g")],
        )
    )
    layers = [chart, *([_rule(rule, "a guess")] if rule else [])]
    return alt.layer(*layers).properties(height=HEIGHT, title=title)


def _rule(at: float, name: str) -> Any:
    base = _data([{"y": at, "text": name}])
    line = base.mark_rule(strokeDash=[4, 4], color=draw.SPEED).encode(y="y:Q")
    words = base.mark_text(align="right", dx=-4, dy=-6, fontSize=10, color=draw.SPEED)
    words = words.encode(y="y:Q", x=alt.value("width"), text="text:N")
    return alt.layer(line, words)


def _averaged(values: Sequence[float], window: int = 5) -> list[float]:
    """The mean of each value and those just before it."""
    return [sum(values[max(0, i - window + 1) : i + 1]) / min(window, i + 1) for i in range(len(values))]


def _rate_axis(rates: Sequence[float], padding: int) -> Any:
    """A logarithmic axis of learning rates, with a tick at each power of ten, or at each rate where they are few."""
    known = sorted(set(rates))
    powers = [10.0**k for k in range(math.floor(math.log10(known[0])), math.ceil(math.log10(known[-1])) + 1)]
    ticks = known if len(known) <= 5 else [power for power in powers if known[0] <= power <= known[-1]]
    axis = alt.Axis(format="~g", values=ticks, tickCount=40, labelOverlap=True)
    return alt.X("rate:Q", title="learning rate", scale=alt.Scale(type="log", nice=False, padding=padding), axis=axis)


def _beside(*panels: Any) -> Any:
    return alt.concat(*panels, columns=len(panels)).resolve_scale(color="independent")


def _data(rows: Sequence[dict[str, Any]]) -> Any:
    return alt.Chart(alt.InlineData(values=list(rows)))
