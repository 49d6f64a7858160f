"""A training on photographs is as long as they want and as the time allows."""

from __future__ import annotations

import math
import time
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lehr import models
from lehr.job import to_dict
from lehr.photos import photo_job, speed
from lehr.photos.plan import LEAST_EPOCHS, LEAST_ROWS, MOST_EPOCHS, Costs, Length, Work, fit_length, validation_share

LAPTOP = Costs(forward=0.02, step=0.07, decode=0.01, imports=3.0)
CASES = [
    # photographs, minutes -> ways, epochs, limit
    (192, 10, ("features", "finetune"), 20, None),
    (192, 2, ("features", "finetune"), 3, None),
    (192, 0.7, ("features",), 20, None),
    (1200, 10, ("features", "finetune"), 5, None),
    (20000, 10, ("features",), 5, 11000),
    (20000, 0.1, ("features",), 5, LEAST_ROWS),
]


@pytest.mark.parametrize(("rows", "minutes", "ways", "epochs", "limit"), CASES)
def test_with_less_time_fewer_epochs_then_features_alone_then_fewer_photographs(
    rows: int, minutes: float, ways: tuple[str, ...], epochs: int, limit: int | None
) -> None:
    found = fit_length(Work(rows, min(rows // 4, 2000), 0, LAPTOP), minutes, pretrained=True)
    assert found.strategies == ways
    assert abs(found.epochs - epochs) <= 2
    assert (found.limit is None) == (limit is None)
    assert limit is None or found.limit == pytest.approx(limit, rel=0.3)


times = st.floats(1e-4, 2.0)
works = st.builds(
    Work,
    rows=st.integers(1, 50_000),
    validation=st.integers(0, 2000),
    test=st.integers(0, 2000),
    costs=st.builds(Costs, forward=times, step=times, decode=st.floats(0, 0.1), imports=st.floats(0.1, 20)),
)


@given(works, st.floats(0.05, 600), st.booleans())
def test_the_time_is_kept_wherever_the_least_fits(work: Work, minutes: float, pretrained: bool) -> None:
    found = fit_length(work, minutes, pretrained=pretrained)
    some = min(work.rows, LEAST_ROWS)
    least = work.seconds(["features"], found.epochs, some) if pretrained else work.seconds([], 1, some)
    assert found.seconds <= max(60 * minutes, 30 * minutes + work.start, least) * (1 + 1e-9)
    assert found.epochs >= 1
    if "finetune" in found.strategies:
        assert LEAST_EPOCHS <= found.epochs <= MOST_EPOCHS


@given(works, st.floats(0.05, 600), st.booleans())
def test_more_time_is_never_less_training(work: Work, minutes: float, pretrained: bool) -> None:
    def much(found: Length) -> tuple[int, float, int]:
        return len(found.strategies), found.limit or math.inf, found.epochs if "finetune" in found.strategies else 0

    less, more = (fit_length(work, each, pretrained=pretrained) for each in (minutes, 2 * minutes))
    assert much(less) <= much(more)
    assert less.seconds <= more.seconds * (1 + 1e-9)


@pytest.mark.parametrize(("rows", "share"), [(10, 0.2), (240, 0.2), (10_000, 0.2), (20_000, 0.1), (10_000_000, 0.01)])
def test_of_very_many_photographs_a_smaller_share_is_held_out(rows: int, share: float) -> None:
    assert validation_share(rows) == share


def test_the_job_is_the_same_however_busy_the_machine_is_and_the_time_is_a_range(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(20):
            (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20), (number, 0, 0)).save(tmp_path / "photos" / name / f"{number}.png")
    file = tmp_path / "resnet18.pth"
    torch.save(models.build("resnet18", 3, 7, {}, seed=0).state_dict(), file)
    jobs, told = [], []
    for busy in (1.0, 3.0):
        with patch("lehr.photos.job.measure", lambda *_, busy=busy, **__: Costs(0.02, 0.07, 0.001, 2.0, busy)):
            made = photo_job(str(tmp_path / "photos"), {"model.weights": str(file)}, say=lambda _: None)
            jobs.append(to_dict(made.job))
            told.append(made.told[-1])
            short = photo_job(str(tmp_path / "photos"), {"model.weights": str(file)}, 0.9, say=lambda _: None)
            told.append(short.told[-1])
    assert jobs[0] == jobs[1]
    assert told[0].startswith("Takes about 2 minutes on this machine: ")
    assert told[2].startswith("Takes 1.5 to 5 minutes on this machine, as other programs use it: ")
    assert told[1] != told[3], "minutes that are asked for are kept as busy as the machine is"


def test_what_other_programs_take_is_not_measured_but_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a call waits as long as it computes, it costs what it computes, and the machine is twice as busy."""

    def call() -> None:
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass
        time.sleep(0.05)

    monkeypatch.setattr(speed, "SECONDS", 0.3)
    took, waited = speed._seconds(call, torch.device("cpu"))
    assert took == pytest.approx(0.05, rel=0.2)
    assert waited >= 0.095
