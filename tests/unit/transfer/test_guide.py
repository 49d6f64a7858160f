"""The guide: what to try for which data, and what validation may decide."""

from __future__ import annotations

import pytest

from lehr.transfer.guide import advise, choose
from lehr.transfer.similarity import Similarity


def alike(gain: float, error: float = 0.01) -> Similarity:
    return Similarity(0.5 + gain, 0.5, 1000, error)


@pytest.mark.parametrize(
    ("images", "classes", "gain", "candidates", "warns"),
    [
        (40, 4, 0.13, ("features", "finetune"), False),
        (1000, 4, 0.14, ("finetune", "features"), False),
        (40, 4, -0.01, ("features", "finetune", "scratch"), True),
        (1000, 4, 0.01, ("finetune", "scratch", "features"), False),
        (119, 4, 0.13, ("features", "finetune"), False),  # little ends at 30 of each class
        (120, 4, 0.13, ("finetune", "features"), False),
    ],
)
def test_size_and_likeness_say_what_to_try(
    images: int, classes: int, gain: float, candidates: tuple[str, ...], warns: bool
) -> None:
    advice = advise(images, classes, alike(gain))
    assert advice.candidates == candidates
    assert bool(advice.warning) == warns
    assert f"{100 * gain:+.1f} ± 1.0 points" in advice.why


def test_where_likeness_is_too_close_to_call_both_sides_are_tried() -> None:
    assert advise(40, 4, alike(0.08, error=0.06)).candidates == ("features", "finetune", "scratch")
    assert advise(40, 4, alike(0.08, error=0.02)).candidates == ("features", "finetune")


@pytest.mark.parametrize(
    ("accuracy", "rows", "expected", "why"),
    [
        # better by less than chance explains: the first choice stands
        ({"features": 0.60, "finetune": 0.65}, 40, "features", "which chance explains, and the guide prefers features"),
        # the same difference on many images
        ({"features": 0.60, "finetune": 0.65}, 4000, "finetune", "finetune is 5.0 points above features"),
        ({"features": 0.66, "finetune": 0.65}, 4000, "features", "features has the best validation accuracy"),
        ({"finetune": 0.65}, 40, "finetune", "nothing else was tried"),
        # scratch was trained to be shown, and is no candidate
        ({"features": 0.60, "finetune": 0.60, "scratch": 0.99}, 4000, "features", "best validation accuracy"),
    ],
)
def test_validation_decides_beyond_chance(accuracy: dict, rows: int, expected: str, why: str) -> None:
    choice = choose(("features", "finetune"), accuracy, rows)
    assert choice.strategy == expected
    assert why in choice.why
