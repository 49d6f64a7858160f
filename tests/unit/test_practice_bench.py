"""The bench of verdicts cannot be tuned to: its cases for development are not those that are reported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.benchmarks.practice.cases import NETWORKS, NEVER_SEEN, Case, draft, draw_cases, split_of
from tests.benchmarks.practice.data_sets import FOR_DEVELOPMENT, LOADERS, Rows, load
from tests.benchmarks.practice.faults import FAULTS, UNFINISHED
from tests.benchmarks.practice.judge import Verdict, interval, summary
from tests.benchmarks.practice.planted import PLANTED, drafted
from tests.benchmarks.practice.trial import judge, train_case

from lehr.curves.findings import Confidence, Finding

REPORT, DEVELOP = draw_cases("report", 400, 20300102), draw_cases("develop", 400, 20300102)


def said(name: str, confidence: Confidence = "medium", fault: str = "", cost: float = 0.3, gap: float = 0.0) -> Verdict:
    first = Finding(name, name, "", "", confidence, "")
    return Verdict("case", FAULTS.get(fault, UNFINISHED), first, 0.9 - cost, 0.9, gap, 400)


def test_no_fault_is_reported_on_a_data_set_that_it_was_developed_on() -> None:
    pairs = [{(case.fault, case.data) for case in cases if case.fault} for cases in (DEVELOP, REPORT)]
    assert not pairs[0] & pairs[1]
    assert not {fault for fault, _ in pairs[0]} & NEVER_SEEN
    assert {fault for fault, _ in pairs[1]} >= NEVER_SEEN
    assert len(FAULTS) >= 30


def test_the_date_decides_the_cases_and_a_third_are_sound() -> None:
    assert draw_cases("report", 400, 20300102) == REPORT
    assert draw_cases("report", 400, 20300103) != REPORT
    assert 0.26 < sum(not case.fault for case in REPORT) / len(REPORT) < 0.41
    assert {case.network for case in REPORT} == set(NETWORKS)
    assert all(split_of(case.fault, case.data) == "report" for case in REPORT if case.fault)


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_changes_the_run_and_nothing_changes_its_twin(name: str) -> None:
    network = (FAULTS[name].networks or ("cnn",))[0]
    drawn, twin, fault = draft(Case(0, 5, "shapes", network, name))
    again, _, _ = draft(Case(0, 5, "shapes", network, name))
    assert fault.name == name

    def differ(one: Rows, other: Rows) -> bool:
        return not (np.array_equal(one.images, other.images) and np.array_equal(one.labels, other.labels))

    assert drawn.job != twin.job or differ(drawn.train, twin.train) or differ(drawn.validation, twin.validation)
    assert drawn.job == again.job
    assert not differ(drawn.train, again.train)
    assert len(drawn.train) > 10
    assert len(drawn.validation) > 10


def test_development_has_data_sets_that_no_report_has() -> None:
    """There sound runs are of all lengths and sizes, and faults can be looked at that are only reported elsewhere."""
    assert not {case.data for case in REPORT} & set(FOR_DEVELOPMENT)
    assert not set(LOADERS) & set(FOR_DEVELOPMENT)
    sound = [draft(case)[0] for case in DEVELOP if case.data == "sides" and not case.fault]
    assert len(sound) > 10
    assert min(each.job["train"]["epochs"] for each in sound) < 6 < max(each.job["train"]["epochs"] for each in sound)
    assert min(len(each.validation) for each in sound) < 100


@pytest.mark.parametrize("name", ["shapes", "textures", "digits", "glyphs", "counts", "faint", "sides"])
def test_the_rows_of_a_data_set_are_of_all_its_classes(name: str) -> None:
    rows = load(name)
    assert set(rows.labels) == set(range(len(rows.classes)))
    assert rows.images.dtype == np.uint8


def test_a_verdict_is_judged_by_what_is_wrong_with_the_run() -> None:
    assert said("frozen", fault="frozen_body").judgement == "right"
    assert said("underfitting", fault="frozen_body").judgement == "acceptable"
    assert said("nothing_seen", fault="frozen_body").judgement == "silent"
    assert said("healthy", fault="frozen_body").judgement == "wrong"
    assert said("healthy", fault="frozen_body", cost=0.01).judgement == "sound", "it cost nothing"
    assert said("overfitting", fault="frozen_body", cost=0.01).judgement == "alarm"
    assert said("healthy", fault="leak", cost=0.0).judgement == "wrong", "a leak is one even if it costs nothing"
    assert said("healthy", cost=0.3).judgement == "wrong", "three times the epochs were much better"
    assert said("too_short", cost=0.3).judgement == "right"
    assert said("overfitting", cost=0.0, gap=0.3).judgement == "sound", "it is true"
    assert said("too_short", cost=0.0).judgement == "alarm", "three times the epochs were no better"
    assert said("too_short", cost=0.05).judgement == "sound", "they may have been, which 400 rows cannot tell"
    assert said("underfitting", cost=0.0).judgement == "alarm"
    assert replace(said("underfitting", cost=0.3), linear=0.9, twin=0.6).judgement == "sound", (
        "a linear model is better"
    )
    assert said("underfitting", fault="too_small", cost=0.01).judgement == "sound", "a fault may be named"


def test_confidence_counts_against_a_wrong_verdict() -> None:
    table = dict(
        summary([said("healthy", "medium", "leak"), said("plateau", "low", "leak"), said("leak", "high", "leak")])
    )
    assert table["right or acceptable"].startswith("1 of 3 (33%")
    assert table["wrong with confidence"].startswith("1 of 3")
    assert table["holds, of those said with high confidence"].startswith("1 of 1 (100%")


def test_the_interval_of_a_share_is_wilsons() -> None:
    assert interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-3)  # Brown, Cai and DasGupta, 2001
    assert interval(0, 0) == (0.0, 1.0)


def test_a_kept_case_is_judged_again_without_training(tmp_path: Path) -> None:
    place = train_case(Case(0, 12, "digits", "perceptron", "leak"), tmp_path / "case")
    kept = {file: file.stat().st_mtime_ns for file in place.rglob("*") if file.is_file()}
    verdict = judge(place)
    assert (verdict.first.name, verdict.judgement) == ("leak", "right")
    assert judge(train_case(Case(0, 12, "digits", "perceptron", "leak"), place)) == verdict
    assert {file for file, changed in kept.items() if file.stat().st_mtime_ns != changed} <= {place / "case.json"}


@pytest.mark.parametrize("name", [name for name in PLANTED if "photographs" not in name])
def test_each_planted_fault_is_a_job_and_rows(name: str) -> None:
    planted = drafted(PLANTED[name])
    assert planted.job["kind"] == "train"
    assert len(planted.train) == len(planted.train.images)
    assert len(planted.validation) > 20
