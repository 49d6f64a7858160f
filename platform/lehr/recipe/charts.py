"""The charts of a recipe's steps, drawn with Altair; the page gives them its own style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import altair as alt

from lehr.recipe.initial import InitialCheck
from lehr.recipe.overfit import OverfitCheck
from lehr.recipe.rates import RateTest, RateTests
from lehr.recipe.trial_results import SearchRound, TrialResult, all_trials, best_trial
from lehr.reporting import drawing as draw
from lehr.tasks.forms import spoken_in_full

Line = tuple[str, Sequence[float], Sequence[float]]
"""A name, x and y."""
HEIGHT = 220
CHOSEN, OTHER, EARLIER = draw.VALIDATION, draw.TRAIN, "#aab4be"
RANKS = {"best": CHOSEN, "this round": OTHER, "earlier rounds": EARLIER}


def initial_loss_chart(r: InitialCheck) -> alt.ConcatChart:
    """The loss before training next to that of a guess, and the number of training images of each class."""
    losses = [{"what": "this network", "loss": r.loss}, {"what": "a guess", "loss": r.guess}]
    first = (
        _data(losses)
        .mark_bar(size=26, color=OTHER)
        .encode(
            y=alt.Y("what:N", title=None, sort=None, axis=alt.Axis(minExtent=80, maxExtent=80)),
            x=alt.X("loss:Q", title="loss", axis=alt.Axis(tickCount=5)),
            tooltip=["what:N", alt.Tooltip("loss:Q", format=".4g")],
        )
    )
    counts = [{"class": number, "images": count} for number, count in enumerate(r.counts)]
    second = (
        _data(counts)
        .mark_bar(color=draw.SPEED)
        .encode(
            x=alt.X("class:O", title="class", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
            y=alt.Y("images:Q", title=None),
            tooltip=["class:O", "images:Q"],
        )
    )
    return _beside(
        first.properties(height=120, title="Loss before training"),
        second.properties(height=120, title="Training images of each class"),
    )


def overfit_chart(r: OverfitCheck) -> alt.ConcatChart:
    """Loss and accuracy on the sample over the updates, a line for each learning rate."""
    most = _ceiling(10 * r.guess)  # a rate that is far too high would squeeze all others into one line
    positive = r.guess > 0 and all(loss > 0 for a in r.attempts for loss in a.losses)
    losses = [
        (f"{a.rate:g}", [float(i) for i in range(len(a.losses))], [min(loss, most) for loss in a.losses])
        for a in r.attempts
    ]
    accuracies = [
        (f"{a.rate:g}", [float(step) for step, _ in a.accuracies], [100 * share for _, share in a.accuracies])
        for a in r.attempts
    ]
    return _beside(
        _lines(losses, "Loss by learning rate", log=positive, rule=r.guess),
        _lines(accuracies, "Accuracy on the sample, %"),
    )


def rate_tests_chart(r: RateTests, chosen: Sequence[float]) -> alt.ConcatChart | alt.LayerChart:
    """The loss of each test over its updates, and the final loss over the learning rate; the chosen rates marked."""
    if r.tests[0].is_range_test:
        test = r.tests[0]
        return _loss_over_rate(
            list(zip(test.rates, test.losses, strict=False)), test, (), "Loss over the learning rate"
        )
    curves = [
        (f"{t.rate:g}", [float(i) for i in range(len(t.losses))], _averaged(t.losses))
        for t in sorted(r.tests, key=lambda t: t.rate)
    ]
    ends = [(t.rate, t.end) for t in sorted(r.tests, key=lambda t: t.rate)]
    most = _ceiling(3 * max(min(end for _, end in ends), r.tests[0].guess))
    cut = [(name, at, [min(y, most) for y in losses]) for name, at, losses in curves]
    return _beside(
        _lines(cut, "Loss by learning rate", rule=r.tests[0].guess),
        _loss_over_rate(
            [(rate, min(end, most)) for rate, end in ends], r.tests[0], chosen, "Final loss over the learning rate"
        ),
    )


def _loss_over_rate(
    points: Sequence[tuple[float, float]], test: RateTest, chosen: Sequence[float], title: str
) -> alt.LayerChart:
    rows = [
        {"rate": rate, "loss": draw.short(loss), "use": "searched" if rate in chosen else "not searched"}
        for rate, loss in points
        if math.isfinite(loss)
    ]
    x = _rate_axis([rate for rate, _ in points], 12)
    y = alt.Y("loss:Q", title=None, scale=alt.Scale(zero=False))
    base = _data(rows)
    line = base.mark_line(color=draw.SPEED, strokeWidth=1.4).encode(x=x, y=y)
    color = alt.Color("use:N", scale=alt.Scale(domain=["searched", "not searched"], range=[CHOSEN, OTHER]), legend=None)
    tips = [alt.Tooltip("rate:Q", format="~g"), alt.Tooltip("loss:Q", format=".4g"), "use:N"]
    dots = base.mark_circle(size=70, opacity=1).encode(x=x, y=y, color=color, tooltip=tips)
    layers = [line, *_rules(test.guess), *([dots] if chosen else [])]
    return draw.layer(*layers).properties(height=HEIGHT, title=title)


def trials_chart(rounds: Sequence[SearchRound]) -> alt.ConcatChart:
    """The metric of all trials so far over epochs, and their best values over learning rate and weight decay."""
    metric = rounds[-1].metric
    percent = metric.endswith("accuracy")
    best = best_trial(rounds)
    everything = all_trials(rounds)
    new = {trained.folder for trained in rounds[-1].trained}
    rows = [
        {
            "epoch": epoch,
            "value": draw.short(100 * value if percent else value),
            "trial": each.folder,
            "hyperparameters": str(each.setting),
            "is": _rank(each, best, new),
        }
        for each in everything.values()
        for epoch, value in enumerate(each.values, 1)
        if math.isfinite(value)
    ]
    name = spoken_in_full(metric) + (", %" if percent else "")
    color = alt.Color(
        "is:N",
        scale=alt.Scale(domain=list(RANKS), range=list(RANKS.values())),
        legend=alt.Legend(orient="bottom", title=None),
    )
    scale = _zoomed([value for each in everything.values() for value in each.values], percent)
    curves = (
        _data(rows)
        .mark_line(point=alt.OverlayMarkDef(size=18, filled=True), strokeWidth=1.6, clip=True)
        .encode(
            x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("value:Q", title=None, scale=scale),
            detail="trial:N",
            color=color,
            order=alt.Order("epoch:Q"),
            tooltip=["trial:N", "hyperparameters:N", "epoch:Q", alt.Tooltip("value:Q", title=name, format=".4g")],
        )
    )
    return _beside(
        curves.properties(height=HEIGHT, title=name[:1].upper() + name[1:]),
        _grid(list(everything.values()), best, new, metric, name),
    )


def _zoomed(values: Sequence[float], percent: bool) -> alt.Scale:
    """An axis that shows the better values apart: the worst tenth may lie below it."""
    known = sorted(100 * value for value in values if math.isfinite(value))
    if not percent or not known or known[-1] <= known[len(known) // 10]:
        return alt.Scale(zero=False)
    low, high = known[len(known) // 10], known[-1]
    return alt.Scale(domain=[low, high + 0.03 * (high - low)], nice=False, clamp=True)


def _grid(
    everything: Sequence[TrialResult], best: TrialResult, new: set[str], metric: str, name: str
) -> alt.LayerChart:
    """The best value of each trial at its learning rate and weight decay."""
    percent = metric.endswith("accuracy")
    rows = [
        {
            "rate": each.setting.rate,
            "decay": f"{each.setting.decay:g}" + (" +" if each.setting.changes else ""),
            "at": each.setting.decay,
            "value": draw.short(each.best(metric) * (100 if percent else 1)),
            "text": f"{100 * each.best(metric):.1f}" if percent else f"{each.best(metric):.3g}",
            "hyperparameters": str(each.setting),
            "trial": each.folder,
            "epochs": each.epochs,
            "is": _rank(each, best, new),
        }
        for each in everything
        if math.isfinite(each.score(metric))
    ]
    x = _rate_axis([each.setting.rate for each in everything], 24)
    y = alt.Y("decay:N", title="weight decay", sort=alt.EncodingSortField("at", order="descending"))
    color = alt.Color(
        "is:N",
        scale=alt.Scale(domain=list(RANKS), range=list(RANKS.values())),
        legend=None,
    )
    tips = ["trial:N", "hyperparameters:N", "epochs:Q", alt.Tooltip("value:Q", title=name, format=".4g")]
    base = _data(rows)
    dots = base.mark_circle(size=90, opacity=1).encode(x=x, y=y, color=color, tooltip=tips)
    words = base.mark_text(dy=-12, fontSize=10).encode(x=x, y=y, color=color, text="text:N")
    return draw.layer(dots, words).properties(height=HEIGHT, title="Best value of each trial")


def _rank(each: TrialResult, best: TrialResult, new: set[str]) -> str:
    """One of `RANKS`."""
    return "best" if each.folder == best.folder else "this round" if each.folder in new else "earlier rounds"


# ── pieces ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _lines(series: Sequence[Line], title: str, *, log: bool = False, rule: float | None = None) -> alt.LayerChart:
    """A line for each learning rate over the updates; a dashed rule at the loss of a guess."""
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
            x=alt.X("x:Q", title="update"),
            y=alt.Y("y:Q", title=None, scale=scale, axis=alt.Axis(format="~g") if log else alt.Axis()),
            color=alt.Color(
                "name:N",
                sort=None,
                scale=alt.Scale(domain=names, range=colors),
                legend=alt.Legend(orient="bottom", title=None, columns=5),
            ),
            tooltip=[
                alt.Tooltip("name:N", title="learning rate"),
                alt.Tooltip("x:Q", title="update"),
                alt.Tooltip("y:Q", format=".4g"),
            ],
        )
    )
    layers = [chart, *_rules(rule)]
    return draw.layer(*layers).properties(height=HEIGHT, title=title)


def _ceiling(most: float) -> float:
    """The highest loss that is drawn: none for a loss that may be below zero, or whose guess is not known."""
    return most if most > 0 else math.inf


def _rules(guess: float | None) -> list[alt.LayerChart]:
    return [] if guess is None or math.isnan(guess) else [_rule(guess, "a guess")]


def _rule(at: float, name: str) -> alt.LayerChart:
    base = _data([{"y": at, "text": name}])
    line = base.mark_rule(strokeDash=[4, 4], color=draw.SPEED).encode(y="y:Q")
    words = base.mark_text(align="right", dx=-4, dy=-6, fontSize=10, color=draw.SPEED)
    words = words.encode(y="y:Q", x=alt.value("width"), text="text:N")
    return draw.layer(line, words)


def _averaged(values: Sequence[float], window: int = 5) -> list[float]:
    """The mean of each value and those just before it."""
    return [sum(values[max(0, i - window + 1) : i + 1]) / min(window, i + 1) for i in range(len(values))]


def _rate_axis(rates: Sequence[float], padding: int) -> alt.X:
    """A logarithmic axis of learning rates, with a tick at each power of ten, or at each rate where they are few."""
    known = sorted(set(rates))
    powers = [10.0**k for k in range(math.floor(math.log10(known[0])), math.ceil(math.log10(known[-1])) + 1)]
    ticks = known if len(known) <= 5 else [power for power in powers if known[0] <= power <= known[-1]]
    axis = alt.Axis(format="~g", values=ticks, tickCount=40, labelOverlap=True)
    return alt.X("rate:Q", title="learning rate", scale=alt.Scale(type="log", nice=False, padding=padding), axis=axis)


def _beside(*panels: alt.Chart | alt.LayerChart) -> alt.ConcatChart:
    return cast(alt.ConcatChart, alt.concat(*panels, columns=len(panels)).resolve_scale(color="independent"))


def _data(rows: Sequence[dict[str, Any]]) -> alt.Chart:
    return alt.Chart(alt.InlineData(values=list(rows)))
