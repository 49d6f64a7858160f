"""Which strategies are tried for which data, and when validation overrules the rule of thumb."""

from __future__ import annotations

import pytest

from lehr.job.transfer import Strategy
from lehr.transfer.similarity import Similarity
from lehr.transfer.strategies import advise, choose


def similarity(gain: float, error: float = 0.01) -> Similarity:
    return Similarity(0.5 + gain, 0.5, 1000, error)


@pytest.mark.parametrize(
    ("images", "classes", "gain", "candidates", "warns"),
    [
        (40, 4, 0.13, ("features", "finetune"), False),
        (1000, 4, 0.14, ("finetune", "features"), False),
        (40, 4, -0.01, ("features", "finetune", "scratch"), True),
        (1000, 4, 0.01, ("finetune", "scratch", "features"), False),
        (119, 4, 0.13, ("features", "finetune"), False),  # from 30 per class on, the data is no longer little
        (120, 4, 0.13, ("finetune", "features"), False),
    ],
)
def test_size_and_similarity_decide_what_to_try(
    images: int, classes: int, gain: float, candidates: tuple[str, ...], warns: bool
) -> None:
    advice = advise(images, classes, similarity(gain))
    assert advice.candidates == candidates
    assert bool(advice.warning) == warns
    assert f"{100 * gain:+.1f} ± 1.0 points" in advice.why


def test_where_similarity_is_too_close_to_call_both_rows_of_the_table_are_tried() -> None:
    assert advise(40, 4, similarity(0.08, error=0.06)).candidates == ("features", "finetune", "scratch")
    assert advise(40, 4, similarity(0.08, error=0.02)).candidates == ("features", "finetune")


@pytest.mark.parametrize(
    ("accuracy", "rows", "expected", "why"),
    [
        # better, but by less than chance explains: the cheaper one is kept
        (
            {"features": 0.60, "finetune": 0.65},
            40,
            "features",
            "finetune is 5.0 points above it on 40 validation images, which chance can explain: the intervals overlap, "
            "and features is the cheaper; more validation images would tell, strategy=finetune takes the other",
        ),
        # the same difference, measured on many images
        ({"features": 0.60, "finetune": 0.65}, 4000, "finetune", "finetune is 5.0 points above features"),
        (
            {"features": 0.66, "finetune": 0.65},
            4000,
            "features",
            "features has the best validation accuracy and is the cheapest; 4,000 validation images do not tell it "
            "from finetune: the intervals overlap",
        ),
        ({"features": 0.75, "finetune": 0.65}, 4000, "features", "features is 10.0 points above finetune"),
        ({"finetune": 0.65}, 40, "finetune", "no other strategy was tried"),
        # scratch was trained for comparison only and is not a candidate
        ({"features": 0.60, "finetune": 0.60, "scratch": 0.99}, 4000, "features", "best validation accuracy"),
    ],
)
def test_validation_decides_where_the_difference_is_more_than_chance(
    accuracy: dict[Strategy, float], rows: int, expected: str, why: str
) -> None:
    for order in (("features", "finetune"), ("finetune", "features")):
        choice = choose(order, accuracy, rows)
        assert choice.strategy == expected
        assert why in choice.why


def test_what_was_not_fine_tuned_is_not_called_so() -> None:
    choice = choose(("features", "finetune"), {"features": 0.5, "finetune": 0.9}, 400, {"finetune": "head only"})
    assert choice.why.startswith("head only is 40.0 points above features")
