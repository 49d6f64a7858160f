"""What the evaluation of an ensemble is said to mean: a table of cases."""

from __future__ import annotations

import numpy as np
import pytest

from lehr.ensembles.charts import error_chart
from lehr.ensembles.evaluation import Outputs, evaluate_ensemble
from lehr.ensembles.verdict import verdict
from lehr.intervals import in_words

ROWS = 1000


def outputs(split: str, errors: list[float], baseline: float | None) -> Outputs:
    """Members that are wrong on the first rows: a member with an error of 0.1 on the first 100."""
    labels = np.zeros(ROWS, int)

    def logits(error: float) -> np.ndarray:
        wrong = np.arange(ROWS) < round(error * ROWS)
        return np.stack([np.where(wrong, -1.0, 1.0), np.where(wrong, 1.0, -1.0)], axis=1)

    return Outputs(split, labels, np.stack([logits(e) for e in errors]), None if baseline is None else logits(baseline))


def said(
    errors: list[float],
    baseline: float | None,
    method: str = "independent",
    weights: list[float] | None = None,
    split: str = "test",
    cycle_epochs: float | None = None,
) -> list[str]:
    evaluated = outputs(split, errors, baseline)
    names, weights = [f"{k:02}" for k in range(1, len(errors) + 1)], weights or [1.0] * len(errors)
    found = evaluate_ensemble(names, np.array(weights), "logits", evaluated, evaluated, last_first=False)
    return verdict(found, method, cycle_epochs)


@pytest.mark.parametrize(
    ("method", "weights", "expected"),
    [
        ("snapshot", [1, 1, 1], "All 3 snapshots combined: 10.0% ± 1.9 error on 1,000 test rows; "),
        ("snapshot", [0, 1, 1], "The last 2 of 3 snapshots combined: "),
        ("snapshot", [1, 0, 1], "2 of 3 snapshots combined: "),
        ("snapshot", [0, 0, 1], "The last snapshot alone: "),
        ("snapshot", [1, 0, 0], "Snapshot 01 alone: "),
        ("independent", [0, 1, 1], "2 of 3 members combined: "),
        ("average", [1, 1, 1], "All 3 sets of weights combined: "),
        ("average", [0, 1, 0], "The 02 average alone: "),
        ("independent", [1, 1], "Both members combined: "),
    ],
)
def test_the_first_sentence_names_the_members_that_are_used(method: str, weights: list[float], expected: str) -> None:
    assert said([0.1] * len(weights), 0.2, method, weights)[0].startswith(expected)


@pytest.mark.parametrize(
    ("ensemble", "baseline", "expected"),
    [
        (0.05, 0.2, "The ensemble is 15.00 points better (± 2.26, two standard errors) at the same training budget."),
        (0.2, 0.05, "two standard errors) at the same training budget: here, the better choice is the single network."),
        (0.100, 0.101, "0.10 points better (± 0.20, two standard errors), which is not a clear difference"),
        (0.1, 0.1, "Both are right and wrong on exactly the same rows: nothing was gained."),
    ],
)
def test_a_difference_within_two_standard_errors_is_not_called_clear(
    ensemble: float, baseline: float, expected: str
) -> None:
    sentences = said([ensemble], baseline)
    assert sentences[0].endswith(
        f"; one network trained for as many epochs with one cosine schedule: {in_words(baseline, 1000)}."
    )
    assert expected in sentences[1]


def test_reasons_are_given_only_where_nothing_was_gained() -> None:
    assert any("Cycles of 4 epochs are short" in each for each in said([0.2], 0.1, "snapshot", cycle_epochs=4))
    assert not any("Cycles of" in each for each in said([0.2], 0.1, "snapshot", cycle_epochs=40))
    assert not any("Cycles of" in each for each in said([0.1], 0.2, "snapshot", cycle_epochs=4))
    assert any("only its share of the budget" in each for each in said([0.2], 0.1))
    assert not any("only its share of the budget" in each for each in said([0.1], 0.2))


def test_without_a_test_split_the_figures_are_called_optimistic() -> None:
    assert "There is no test split" in said([0.1], 0.2, split="validation")[-1]
    assert not any("There is no test split" in each for each in said([0.1], 0.2))


def test_without_a_baseline_the_best_member_is_compared_with() -> None:
    assert said([0.3, 0.1, 0.2], None) == [
        "All 3 members combined: 20.0% ± 2.5 error on 1,000 test rows; the best member alone: 10.0% ± 1.9."
    ]


def test_an_ensemble_that_rows_cannot_tell_from_its_best_member_is_not_called_better() -> None:
    assert said([0.1, 0.1], None)[0].endswith("the best member alone: 10.0% ± 1.9.")  # right on the same rows
    assert said([0.101, 0.1, 0.101], None)[0].endswith(" 1,000 rows cannot tell these two apart.")


def test_the_bars_of_members_begin_at_zero_so_that_their_lengths_can_be_compared() -> None:
    evaluated = outputs("test", [0.10, 0.11, 0.12], 0.115)
    found = evaluate_ensemble(["1", "2", "3"], np.ones(3), "logits", evaluated, evaluated, last_first=False)
    bars, cumulative = error_chart(found, "single network").to_dict(validate=False)["concat"]
    heights = [layer["encoding"]["y"] for layer in bars["layer"] if "y" in layer["encoding"]]
    domains = [height["scale"]["domain"] for height in heights if "scale" in height]
    assert domains
    assert {domain[0] for domain in domains} == {0.0}
    assert "layer" in cumulative
