"""Which runs were measured on the same validation rows: only those can be ranked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lehr.curves.record import Curves
from lehr.intervals import not_told_from_best

SHARE = 0.2  # that is held out where a job does not say

Rows = Mapping[str, object]
"""What decides which rows validate, by the field of the job that says it."""


def rows_of(curves: Curves) -> Rows:
    """What decides on which rows a run was validated."""
    wanted = curves.option("data.validation", "auto")
    drawn = isinstance(wanted, float) or (wanted == "auto" and not curves.own_validation)
    found = {f"data.{name}": curves.option(f"data.{name}") for name in ("source", "path", "classes")}
    if found["data.path"] and ":" not in str(found["data.source"]):
        found["data.source"] = "auto"  # a path is the same data whether their form is named or found by looking
    found["data.validation"] = (SHARE if wanted == "auto" else wanted) if drawn else wanted
    if drawn:
        seed = curves.option("data.split_seed")
        found["data.split_seed"] = curves.option("seed", 0) if seed is None else seed
        for name, usual in (("fold", None), ("group", None), ("stratify", "auto")):
            found[f"data.{name}"] = curves.option(f"data.{name}") or usual
    return {**found, "rows": curves.validation_rows}


def alike(runs: Sequence[Curves]) -> list[list[Curves]]:
    """The runs in groups that were validated on the same rows, in their order."""
    groups: list[tuple[Rows, list[Curves]]] = []
    for curves in runs:
        rows = rows_of(curves)
        if (known := next((group for other, group in groups if other == rows), None)) is None:
            groups.append((rows, known := []))
        known.append(curves)
    return [group for _, group in groups]


def not_comparable(runs: Sequence[Curves]) -> str:
    """That runs were validated on different rows, why, and what to type; empty where all had the same."""
    groups = alike(runs)
    if len(groups) == 1:
        return ""
    rows = [rows_of(group[0]) for group in groups]
    fields = [each for each in dict.fromkeys(field for one in rows for field in one) if each != "rows"]
    differing = [field for field in fields if len({repr(one.get(field)) for one in rows}) > 1]
    named = "; ".join(", ".join(curves.name for curves in group) for group in groups)
    why = f" ({', '.join(differing)} differ{'s' * (len(differing) == 1)})" if differing else ""
    if differing == ["data.split_seed"]:
        why, advice = " (each seed draws its own)", " The same data.split_seed in each job makes them comparable."
    else:
        advice = " To compare such models, measure them on the same rows: lehr evaluate."
    return f"Not ranked against each other, since they were validated on different rows{why}: {named}.{advice}"


def close(runs: Sequence[Curves], best: Mapping[str, float]) -> list[str]:
    """For each group of comparable runs, which ones their rows cannot tell from its best; a sentence each.

    Args:
        best: the best accuracy of each run that has one, by its name.
    """
    found = []
    groups = alike(runs)
    for group in groups:
        ranking = sorted(((each.name, best[each.name]) for each in group if each.name in best), key=lambda one: -one[1])
        among = f" of {', '.join(each.name for each in group)}" if len(groups) > 1 else ""
        if len(ranking) > 1 and ranking[0][1] == ranking[1][1]:
            found.append(f"{ranking[0][0]} and {ranking[1][0]} are equal.")
        elif same := not_told_from_best(ranking, group[0].validation_rows or 0):
            found.append(f"The best{among} is {ranking[0][0]}; {same}")
    return found
