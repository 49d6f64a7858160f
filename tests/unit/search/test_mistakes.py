"""Every mistake in a search job gets one sentence that says what is wrong, where, and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lehr.errors import JobError
from lehr.job import load
from lehr.job.search import SearchJob
from lehr.search.check import check_search


def search_job(*overrides: str) -> SearchJob:
    job = load("job.yaml", overrides)
    assert isinstance(job, SearchJob)
    return job


MISTAKES = [
    (
        "space: {optimizer.lr: []}",
        "job.yaml:2: space.optimizer.lr.grid: [] has no values; allowed: a list with at least",
    ),
    ("space: {optimizer.lr: {grid: []}}", "space.optimizer.lr.grid: [] has no values"),
    (
        "space: {optimizer.lr: {log_uniform: [0, 1]}}",
        "space.optimizer.lr.log_uniform: [0, 1] cannot be sampled on a log scale; allowed: [low, high] with low",
    ),
    ("space: {optimizer.lr: {uniform: [1, 0]}}", "[1, 0] is not a range; allowed: [low, high] with low below high"),
    ("space: {model.width: {int: [1.5, 3]}}", "[1.5, 3] is not a range of whole numbers"),
    ("space: {optimizer.lr: {uniform: [0.1, 1], step: 2}}", "step belongs to int, not to uniform"),
    ("space: {model.width: {int: [8, 16], step: 9}}", "a step of 9 is longer than the range [8, 16]"),
    ("space: {optimizer.lr: {uniform: [0.1, 1], grid: [1]}}", "says grid and uniform; allowed: exactly one of grid"),
    ("space: {optimizer.rate: [0.1]}", "job.yaml:2: space.optimizer.rate: 0.1"),
    ("space: {optimiser.lr: [0.1]}", "did you mean optimizer?"),
    ("space: {optimizer.lr: [0.1, -1]}", "space.optimizer.lr: -1: -1 is too small; allowed: a number above 0"),
    ("space: {schedule: {choice: [cosine, cosin]}}", "did you mean cosine?"),
    ("space: {}", "space: is empty"),
    (
        "space: {optimizer.lr: {uniform: [0.1, 1]}}\nmethod: grid",
        "a grid needs single values, and uniform is a range; allowed: a list of values, or points",
    ),
    (
        "space: {optimizer.lr: [0.1, 0.2, 0.3], train.batch_size: [32, 64]}\nmethod: grid\nbudget: {trials: 5}",
        "budget.trials: the grid has 6 combinations, more than the budget of 5 trials",
    ),
    ("space: {optimizer.lr: [0.1]}\nmethod: bayes", 'method: "bayes" is not a method'),
    ("space: {optimizer.lr: [0.1]}\nstopping: hyperband", '"hyperband" is not a stopping'),
    ("space: {optimizer.lr: [0.1]}\nbudget: {trials: 0}", "0 is too small"),
    ("space: 3", "space"),
]


@pytest.mark.parametrize(("text", "sentence"), MISTAKES, ids=[text for text, _ in MISTAKES])
def test_mistakes(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(f"kind: search\n{text}\n")
    with pytest.raises(JobError) as raised:
        check_search(search_job())
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith("job.yaml")


def test_an_override_replaces_a_dimension(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("kind: search\nspace: {optimizer.lr: {log_uniform: [0.01, 1]}}\n")
    job = search_job("space.optimizer.lr={uniform: [0.1, 0.2]}", "base.train.epochs=3")
    assert job.space["optimizer.lr"].uniform == (0.1, 0.2)
    assert job.space["optimizer.lr"].log_uniform is None
    assert job.base.train.epochs == 3
