"""Durations are strings with a unit: there is no "is it epochs or steps" anywhere."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from lehr.durations import Duration, RunLength

LENGTH = RunLength(steps_per_epoch=12, total_steps=240)


@pytest.mark.parametrize(
    ("text", "amount", "unit", "steps"),
    [
        ("5ep", 5, "ep", 60),
        ("0.5ep", 0.5, "ep", 6),
        (".5 epochs", 0.5, "ep", 6),
        ("1epoch", 1, "ep", 12),
        ("500step", 500, "step", 500),
        (" 7 steps ", 7, "step", 7),
        ("10%", 10, "%", 24),
        ("0%", 0, "%", 0),
        ("100%", 100, "%", 240),
        ("0.3ep", 0.3, "ep", 4),  # 3.6 steps
        ("0.125ep", 0.125, "ep", 2),  # 1.5 steps: half up
    ],
)
def test_a_duration_is_read_and_counted_in_steps(text: str, amount: float, unit: str, steps: int) -> None:
    duration = Duration.parse(text)
    assert (duration.amount, duration.unit) == (amount, unit)
    assert duration.steps(LENGTH) == steps
    assert bool(duration) == (amount > 0)


ALLOWED = "allowed: epochs (5ep), steps (500step) or a share of the run (10%)"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("5", f'"5" is not a duration; {ALLOWED}'),
        ("ep", f'"ep" is not a duration; {ALLOWED}'),
        ("-1ep", f'"-1ep" is not a duration; {ALLOWED}'),
        ("1e3step", f'"1e3step" is not a duration; {ALLOWED}'),
        ("five ep", f'"five ep" is not a duration; {ALLOWED}'),
        ("٣ep", f'"٣ep" is not a duration; {ALLOWED}'),
        ("101%", '"101%" is more than the whole run; allowed: 0% to 100%'),
        ("1.5step", '"1.5step" is not a whole number of steps'),
        ("9" * 400 + "step", f'"{"9" * 57}..." is longer than any run; {ALLOWED}'),
    ],
)
def test_text_that_is_not_a_duration_is_refused_with_the_allowed_forms(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        Duration.parse(text)
    assert str(caught.value) == sentence


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 100).map(lambda x: Duration(x, "%")) | st.integers(0, 10**12).map(lambda n: Duration(n, "step")))
def test_a_duration_survives_writing_and_reading(duration: Duration) -> None:
    assert Duration.parse(str(duration)) == duration


def test_a_field_takes_a_duration_its_text_or_zero() -> None:
    class Model(BaseModel):
        warmup: Duration

    assert Model(warmup="5ep").warmup == Model(warmup=Duration(5, "ep")).warmup == Duration(5, "ep")  # type: ignore[arg-type]
    assert not Model(warmup=0).warmup  # type: ignore[arg-type]
    assert json.loads(Model(warmup="1234567step").model_dump_json()) == {"warmup": "1234567step"}  # type: ignore[arg-type]
    for wrong in (5, True, None, ["5ep"], "5"):
        with pytest.raises(ValidationError):
            Model.model_validate({"warmup": wrong})
