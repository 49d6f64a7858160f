"""A run is measured on the rows that are asked for: all of a data set, or those that it trained on or held out."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support import TINY, train_here
from typer.testing import CliRunner

from lehr.cli.main import app
from lehr.job import TrainJob, from_dict
from lehr.predict import load_predictor
from lehr.predict.evaluate import evaluate
from lehr.predict.own_rows import rows_of, training_of
from lehr.runs import RunFolder

METRICS = [{"name": "balanced_accuracy"}, {"name": "top_k_accuracy", "k": 2}]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run on digits that held out a quarter, drawn by a seed of its own, and trained on 330 of the others."""
    change = {"seed": 3, "data.validation": 0.25, "train.epochs": 1, "metrics": METRICS}
    job = from_dict(TINY, overrides=change)
    assert isinstance(job, TrainJob)
    return train_here(job, tmp_path_factory.mktemp("runs") / "one")


def digits(**data: object) -> TrainJob:
    job = from_dict({"data": {"source": "digits", **data}})
    assert isinstance(job, TrainJob)
    return job


def test_validation_is_what_the_run_held_out_and_gives_what_its_last_epoch_did(trained: RunFolder) -> None:
    own = from_dict(trained.job)
    assert isinstance(own, TrainJob)
    chosen = rows_of("validation", digits(), own)
    assert chosen.said == ", the run's own validation rows"
    measured = evaluate(load_predictor(trained.folder), chosen.source, rows=chosen.rows, job=own)
    (epoch,) = trained.epochs().to_pylist()
    assert (measured.rows, measured.accuracy) == (450, pytest.approx(epoch["validation_accuracy"], abs=1e-6))
    assert measured.own == pytest.approx(
        {name: epoch[f"validation_{name}"] for name in ("balanced_accuracy", "top_2_accuracy")}, abs=1e-5
    )


def test_training_rows_are_those_that_the_run_drew_and_all_rows_are_told_apart(trained: RunFolder) -> None:
    own = from_dict(trained.job)
    assert isinstance(own, TrainJob)
    training, held_out = rows_of("train", digits(), own).rows, rows_of("validation", digits(), own).rows
    assert training is not None
    assert held_out is not None
    assert (len(training), len(held_out), len({*training} & {*held_out})) == (330, 450, 0)
    everything = rows_of(None, digits(), own)
    assert everything.rows is None
    assert everything.said == ", 330 of which the run trained on; --split validation measures the others"


def test_a_search_or_recipe_held_out_what_its_base_did() -> None:
    base = {"data": {"source": "digits", "validation": 0.25}}
    held_out = []
    for job in ({"kind": "recipe", "seed": 3, "base": base}, {**base, "seed": 3}):
        rows = rows_of("validation", digits(), training_of(from_dict(job))).rows
        assert rows is not None
        held_out.append(rows.tolist())
    assert held_out[0] == held_out[1]
    assert training_of(from_dict({"kind": "predict", "run": "run:mine", "data": {"source": "digits"}})) is None


def test_the_split_of_a_job_file_is_its_own_where_the_run_has_other_data(tmp_path: Path) -> None:
    from lehr.job import load

    (tmp_path / "job.yaml").write_text("data: {source: digits, validation: 0.1}")
    job = load(tmp_path / "job.yaml")
    assert isinstance(job, TrainJob)
    chosen = rows_of("validation", job, None)
    assert chosen.rows is not None
    assert (len(chosen.rows), chosen.said) == (179, ", the job's own validation rows")


def test_evaluate_says_which_rows_and_measures_the_metrics_of_the_job(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = str(trained.folder.local_path)
    said = CliRunner().invoke(app, ["evaluate", place, "digits", "--split", "validation"])
    assert said.exit_code == 0, said.output
    assert "on 450 rows, the run's own validation rows; log loss" in " ".join(said.output.split())
    assert "balanced accuracy 0." in said.output
    refused = CliRunner().invoke(app, ["evaluate", place, "digits", "--split", "extra", "--force"])
    assert "digits has no split extra of its own; allowed: train" in str(refused.exception)
