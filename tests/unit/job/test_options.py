"""Free options are checked against the signature of what they are for, before anything runs."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest

from lehr.errors import JobError
from lehr.job import check_call, from_dict, not_a_choice


def shift(images: object, draw: object, *, pixels: int = 1, share: float = 0.5) -> None: ...


def required(pixels: int, fill: str) -> None: ...


def open_ended(depth: int = 3, **others: Any) -> None: ...


def no_options() -> None: ...


def varied(a: int | None = None, b: Literal["x", "y"] = "x", c: list[int] | float = 0.0, d: bool = True) -> None: ...


def unresolved(a: "NotDefinedAnywhere" = None) -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037


class Net:
    def __init__(self, channels: int, outputs: int, depth: int = 2, dropout: float = 0.0) -> None: ...


SKIP = ("images", "draw", "channels", "outputs")

FINE: list[tuple[Any, dict[str, Any]]] = [
    (shift, {}),
    (shift, {"pixels": 2, "share": 1}),
    (required, {"pixels": 1, "fill": "black"}),
    (open_ended, {"anything": "goes", "depth": 4}),
    (no_options, {}),
    (varied, {"a": None, "b": "y", "c": "unchecked", "d": False}),
    (varied, {"a": 3}),
    (unresolved, {"a": 3}),
    (Net, {"depth": 3, "dropout": 0.1}),
    (math.hypot, {}),
    (dict, {"no": "signature"}),
]


@pytest.mark.parametrize(("function", "options"), FINE)
def test_valid_options_pass(function: Any, options: dict[str, Any]) -> None:
    check_call(function, options, skip=SKIP, field="x", error=from_dict({}).error)


WRONG: list[tuple[Any, dict[str, Any], str]] = [
    (shift, {"pixel": 2}, "x.pixel: unknown option; did you mean pixels? allowed: pixels, share"),
    (shift, {"zzz": 2}, "x.zzz: unknown option; allowed: pixels, share"),
    (shift, {"images": 2}, "x.images: unknown option; allowed: pixels, share"),
    (no_options, {"a": 2}, "x.a: unknown option; it has no options"),
    (shift, {"pixels": "two"}, 'x.pixels: "two" is not a whole number'),
    (shift, {"pixels": 1.5}, "x.pixels: 1.5 is not a whole number"),
    (shift, {"pixels": True}, "x.pixels: true is not a whole number"),
    (shift, {"share": "half"}, 'x.share: "half" is not a number'),
    (shift, {"share": True}, "x.share: true is not a number"),
    (varied, {"a": "x"}, 'x.a: "x" is not a whole number'),
    (varied, {"b": "z"}, 'x.b: "z" is not a b; allowed: x, y'),
    (varied, {"d": 1}, "x.d: 1 is not true or false"),
    (required, {}, "x: needs pixels and fill"),
    (required, {"pixels": 1}, "x: needs fill"),
    (required, {"pixels": 1, "fill": 0}, "x.fill: 0 is not text"),
    (open_ended, {"images": 2}, "x.images: unknown option; allowed: depth"),
    (open_ended, {"depth": "deep"}, 'x.depth: "deep" is not a whole number'),
    (Net, {"dept": 3}, "x.dept: unknown option; did you mean depth? allowed: depth, dropout"),
    (Net, {"channels": 3}, "x.channels: unknown option; allowed: depth, dropout"),
]


@pytest.mark.parametrize(("function", "options", "sentence"), WRONG)
def test_an_option_that_does_not_fit_is_refused_in_one_sentence(
    function: Any, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(JobError) as caught:
        check_call(function, options, skip=SKIP, field="x", error=from_dict({}).error)
    assert str(caught.value) == sentence


def test_a_wrong_choice_names_the_nearest_spelling() -> None:
    assert not_a_choice("agd", "optimizer", ["sgd", "adam"]) == (
        '"agd" is not an optimizer; did you mean sgd? allowed: sgd, adam'
    )
    assert not_a_choice(5, "model", ["mlp"]) == "5 is not a model; allowed: mlp"
