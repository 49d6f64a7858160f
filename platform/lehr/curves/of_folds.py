"""The diagnosis of a cross-validation: that of its folds, those that agree told once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lehr.curves.diagnosis import diagnose
from lehr.curves.findings import Diagnosis
from lehr.curves.record import Curves
from lehr.runs import RunFolder

FOLDER = "folds"


def diagnose_folds(name: str, folds: Sequence[RunFolder]) -> Diagnosis:
    """What most folds show comes first; each finding says in how many folds it is the first, and where to look.

    Args:
        name: of the run that has them. folds: at least one, with recorded steps.
    """
    by_name: dict[str, list[tuple[str, Diagnosis]]] = {}
    for fold in folds:
        found = diagnose(Curves.read(fold))
        by_name.setdefault(found.first.name, []).append((f"{FOLDER}/{fold.name}", found))
    ranked = sorted(by_name.values(), key=len, reverse=True)
    findings = []
    for group in ranked:
        folder, one = group[0]
        where = f"in {len(group)} of {len(folds)} folds, such as {folder}: "
        findings.append(replace(one.first, evidence=where + one.first.evidence))
    return Diagnosis(name, tuple(findings))


def titles(folds: Sequence[RunFolder]) -> list[tuple[str, str]]:
    """(folder, title of the first finding) of each fold."""
    return [(f"{FOLDER}/{fold.name}", diagnose(Curves.read(fold)).first.title) for fold in folds]
