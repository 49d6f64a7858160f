"""Cross-validation at tiny scale and without Ray: its folds, its figures, how it resumes, and what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.support import records, tiny, train_here, weights
from tests.unit.kinds.sets import digits_with_test
from typer.testing import CliRunner

import lehr
from lehr import Run
from lehr.cli.main import app
from lehr.curves.more_rows import advise_folds
from lehr.driver import Interrupted
from lehr.errors import JobError, LehrError, RunError
from lehr.folds.compare import compared
from lehr.folds.results import Fold, FoldsResult, difference, standard_error
from lehr.job import from_dict, load
from lehr.kinds import check
from lehr.kinds.folds import FoldsStudy
from lehr.query import ask
from lehr.runs import RunFolder
from lehr.runs.answers import Answers

BASE: dict[str, Any] = {
    "kind": "train",
    "data": {"source": "digits", "classes": ["0", "1", "2"], "augment": ["shift"]},
    "model": {"name": "small_cnn", "width": 8},
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
    "schedule": "cosine",
    "train": {"epochs": 3, "batch_size": 64, "evaluated_training_rows": 0, "checkpoint": {"every": "3step"}},
    "seed": 3,
}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def folds(storage: Path, name: str = "folds", **more: Any) -> Run:
    return lehr.run({**BASE, "folds": 3, "name": name, "storage": str(storage)}, more, debug=True)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def run(storage: Path) -> Run:
    return folds(storage)


def out_of_fold(run: Run) -> dict[str, np.ndarray]:
    table = pq.read_table(Path(run.folder.folder.local_path, "out_of_fold.parquet"))
    return {name: np.array(table[name].to_pylist()) for name in table.column_names}


def test_each_fold_is_the_training_that_a_person_would_run_with_its_rows(run: Run, storage: Path) -> None:
    children = run.record.children("folds")
    assert [child.name for child in children] == ["01", "02", "03"]
    for number, child in enumerate(children, 1):
        alone = lehr.run(
            {**BASE, "name": f"alone-{number}", "storage": str(storage)}, {"data.fold": f"{number}/3"}, debug=True
        )
        assert records(child) == records(alone.record)
        ours, theirs = weights(child), weights(alone.record)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        answers = Answers.read(child.folder)
        assert answers is not None
        assert answers.rows.tolist() == out_of_fold(run)["id"][out_of_fold(run)["fold"] == number].tolist()


def test_the_folds_are_the_trainings_of_the_run_in_a_notebook_and_in_a_query(run: Run, storage: Path) -> None:
    assert [each.name for each in run.trainings()] == ["01", "02", "03"]
    assert list(run.metrics()["run"]) == ["folds/01", "folds/02", "folds/03"]
    assert run.curves().title == "Comparison of 3 runs"
    assert "folds: finished" in run._repr_html_()
    pytest.importorskip("duckdb", reason="DuckDB is part of the test extra")
    found = ask("select run from trainings where run like 'folds/%' order by run", str(storage))
    assert found.rows == [("folds/folds/01",), ("folds/folds/02",), ("folds/folds/03",)]


def test_mean_and_error_are_those_of_the_folds(run: Run) -> None:
    values = np.array([child.outcome().best.value for child in run.record.children("folds")])  # type: ignore[union-attr]
    found = FoldsResult.read(run.record.folder)
    assert found.mean == pytest.approx(values.mean(), abs=1e-12)
    assert found.error == pytest.approx(values.std(ddof=1) / math.sqrt(3), abs=1e-12)
    assert run.best == {"metric": "validation_accuracy", "value": found.mean}
    progress = run.record.progress()
    assert progress.overview is not None
    assert (
        f"{found.mean:.1%} ± {100 * found.error:.1f}: mean and standard error of 3 folds" in progress.overview.headline
    )
    assert len(progress.overview.table.rows) == 3


def test_every_row_is_answered_once_by_a_network_that_had_not_seen_it(run: Run) -> None:
    rows = out_of_fold(run)
    assert rows["id"].tolist() == list(range(537))
    assert sorted(set(rows["fold"])) == [1, 2, 3]
    assert np.ptp(np.bincount(rows["fold"])[1:]) <= 1
    assert (rows["probabilities"].argmax(axis=1) == rows["prediction"]).all()
    assert np.allclose(rows["probabilities"].sum(axis=1), 1, atol=1e-5)
    found = FoldsResult.read(run.record.folder)
    assert found.measured == {"accuracy": (rows["label"] == rows["prediction"]).mean()}
    assert found.rows == 537
    each = [(rows["label"] == rows["prediction"])[rows["fold"] == fold].mean() for fold in (1, 2, 3)]
    assert [fold.value for fold in found.folds] == pytest.approx(each, abs=1e-6)
    assert all(name.endswith(f"row {at}") for at, name in zip(rows["id"], rows["name"], strict=True) if at < 3)


def test_stopped_in_any_fold_and_resumed_it_is_the_same_to_the_last_bit(
    run: Run, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = iter([("folds/01", 2), ("folds/03", 1)])
    upcoming = [next(stops)]
    usual = FoldsStudy.epoch

    def stop(study: FoldsStudy, trial: Any, row: Any) -> str | None:
        if upcoming and (trial.folder, int(row["epoch"])) == upcoming[0]:
            upcoming[0] = next(stops, ("", 0))
            study.running.run.request_stop("enough")
        return usual(study, trial, row)

    monkeypatch.setattr(FoldsStudy, "epoch", stop)
    monkeypatch.setattr("lehr.training.synchronisation.SYNC_SECONDS", 0.0)
    for _ in range(2):
        with pytest.raises(Interrupted):
            folds(storage, "stopped")
    again = folds(storage, "stopped")
    for one, other in zip(run.record.children("folds"), again.record.children("folds"), strict=True):
        assert records(one) == records(other)
    assert all((a == b).all() for a, b in zip(out_of_fold(run).values(), out_of_fold(again).values(), strict=True))
    assert FoldsResult.read(again.record.folder) == FoldsResult.read(run.record.folder)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_rows_of_a_fold_are_the_same_for_any_number_of_workers(workers: int, tmp_path: Path) -> None:
    job = tiny(data__fold="2/5", data__augment=[], data__limit=None, train__epochs=1)
    trained = train_here(job, tmp_path / "run", workers)
    answers = Answers.read(trained.folder)
    assert answers is not None
    from lehr.data.load import OpenedSources

    _, held_out = OpenedSources(job).split_ids()
    assert held_out is not None
    assert sorted(answers.rows.tolist()) == held_out.tolist()


def test_it_predicts_with_the_mean_of_its_networks(run: Run) -> None:
    image = np.random.default_rng(0).integers(0, 255, (8, 8), np.uint8)
    each = [Run(child).predict(image) for child in run.record.children("folds")]
    assert np.allclose(run.predict(image), np.mean(each, axis=0), atol=1e-6)
    with pytest.raises(RunError, match=r"each is a run in folds/folds"):
        run.best_model()


def test_the_page_has_the_folds_their_curves_and_what_is_confused(run: Run) -> None:
    page = Path(run.record.folder.local_path, "report.html").read_text()
    for words in ("fold 3", "standard error", "Bengio and Grandvalet", "Which classes are confused", "right on"):
        assert words in page
    answers = Answers.read(run.record.folder)
    assert answers is not None
    assert len(answers.rows) == 537
    assert (
        "folds/01"
        in json.loads(Path(run.record.folder.local_path, "diagnosis.json").read_text())["findings"][0]["evidence"]
    )


def test_other_epochs_are_another_run_and_the_same_again_is_finished(
    run: Run, storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert folds(storage).record.folder.uri == run.record.folder.uri
    assert "is finished" in capsys.readouterr().out
    with pytest.raises(RunError, match=r"train.epochs: 3 -> 4"):
        folds(storage, "folds", **{"train.epochs": 4})


def test_a_fold_that_fails_ends_it_with_a_sentence_and_no_mean(tmp_path: Path) -> None:
    with pytest.raises(LehrError, match=r"3 of 3 folds failed, so there is no mean: folds/01: .*loss") as failed:
        folds(tmp_path, "folds", **{"optimizer.lr": 1e30})
    assert failed.value.exit_code == 1
    assert RunFolder.open(str(tmp_path / "folds")).status() == "failed"
    with pytest.raises(RunError, match="not all folds have ended"):
        FoldsResult.read(RunFolder.open(str(tmp_path / "folds")).folder)


@pytest.mark.parametrize(
    ("command", "told", "code"),
    [
        (["show", "folds"], "mean and standard error of 3 folds", 0),
        (["diagnose", "folds"], "of 3 folds, such as folds/0", 0),
        (["evaluate", "folds", "digits"], "all but one of its networks were trained on each of these rows", 1),
        (["best", "folds"], "keeps all of its networks", 1),
        (["diagnose", "folds", "--probe"], "allowed: a training, such as", 2),
        (["runs"], "accuracy", 0),
        (["report", "folds"], "report.html", 0),
        (["compare", "folds", "alone-1"], "keeps a training for each fold", 1),
    ],
)
def test_commands_do_what_is_right_of_folds_or_say_why_not(
    command: list[str], told: str, code: int, run: Run, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(storage)
    monkeypatch.setenv("COLUMNS", "300")
    result = CliRunner().invoke(app, [*command, "--storage", str(storage)])
    words = result.output + str(result.exception or "")
    assert told in " ".join(words.split())
    assert (result.exit_code == 0) == (code == 0)
    if isinstance(result.exception, LehrError):
        assert result.exception.exit_code == code


def test_two_of_them_are_compared_fold_by_fold(run: Run, storage: Path) -> None:
    slow = folds(storage, "slow", **{"optimizer.lr": 1e-5})
    page, (said,) = compared([run.record, slow.record])
    one, other = (FoldsResult.read(each.record.folder) for each in (run, slow))
    found = difference(one, other)
    assert found.mean == pytest.approx(one.mean - other.mean)
    assert said.startswith("folds is better than slow by")
    assert f"{100 * found.mean:.1f}%" in said
    assert "slow" in page
    _, (said,) = compared([run.record, run.record])
    assert "equal in every fold" in said
    other_rows = folds(storage, "rows", **{"data.split_seed": 9, "train.epochs": 1})
    with pytest.raises(RunError, match=r"validated on different rows: data.split_seed differ"):
        compared([run.record, other_rows.record])


def test_a_standard_error_and_a_difference_by_hand() -> None:
    assert standard_error([0.8, 0.9, 1.0, 0.9]) == pytest.approx(0.0816496581 / 2)
    one, other = (
        FoldsResult("validation_accuracy", tuple(Fold(f"folds/{n}", value, 1, 1, 10) for n, value in enumerate(values)))
        for values in ([0.5, 0.7, 0.9], [0.4, 0.6, 0.8])
    )
    assert difference(one, other).mean == pytest.approx(0.1)
    assert difference(one, other).clear
    assert one.in_words() == "70.0% ± 11.5"
    assert FoldsResult("validation_mae", one.folds).in_words() == "0.7 ± 0.12"


def test_test_rows_are_measured_in_every_fold(tmp_path: Path) -> None:
    where = digits_with_test(tmp_path / "data", shift=0)
    data = {"source": "parquet", "path": where}
    found = lehr.run({**BASE, "data": data, "folds": 2, "storage": str(tmp_path)}, {"train.epochs": 1}, debug=True)
    result = FoldsResult.read(found.record.folder)
    assert [set(fold.metrics) >= {"test_accuracy"} for fold in result.folds] == [True, True]
    assert result.rows == 900


@pytest.mark.parametrize(("task", "measured"), [("regression", "mae"), ("multilabel", "map")])
def test_numbers_and_several_classes_have_folds_too(task: str, measured: str, tmp_path: Path) -> None:
    changes = {"task": task, "train.epochs": 1, "data.classes": None, "data.augment": []}
    found = folds(tmp_path, task, **changes)
    result = FoldsResult.read(found.record.folder)
    assert result.metric == f"validation_{measured}"
    table = pq.read_table(Path(found.folder.folder.local_path, "out_of_fold.parquet"))
    assert table["id"].to_pylist() == list(range(1797))
    if task == "regression":
        error = np.abs(np.array(table["prediction"].to_pylist()) - np.array(table["label"].to_pylist())).mean()
        assert result.measured["mae"] == pytest.approx(error, rel=1e-4)
    else:
        assert result.measured == {}  # of networks with thresholds of their own, ranked together, it would be wrong
    assert found.predict(np.zeros((8, 8), np.uint8)).shape[0] == 1


def test_folds_are_proposed_where_few_rows_say_little(storage: Path, tmp_path: Path) -> None:
    alone = lehr.run({**BASE, "storage": str(tmp_path)}, {"data.validation": 0.1, "train.epochs": 1}, debug=True)
    advice = advise_folds(alone.record, alone.record.progress())
    assert "54 validation rows say little. Five folds measure all 537 rows" in advice
    typed = advice.rpartition("lehr run ")[2].partition(" ")[2]  # after the job file
    assert typed == "folds=5 data.validation="
    with_share = {**BASE, "data": {**BASE["data"], "validation": 0.1}}
    check(from_dict(with_share, typed.split()))
    with pytest.raises(JobError, match=r"data.validation: has no effect with folds.* type data.validation= as well"):
        check(from_dict(with_share, ["folds=5"]))
    page = Path(alone.record.folder.local_path, "report.html").read_text()
    assert "Five folds measure all 537 rows" in page
    one_of = lehr.run({**BASE, "storage": str(tmp_path)}, {"data.fold": "1/9", "train.epochs": 1}, debug=True)
    assert advise_folds(one_of.record, one_of.record.progress()) == ""


def test_what_is_said_last_of_folds_counts(tmp_path: Path) -> None:
    (tmp_path / "plain.yaml").write_text("kind: train\ntrain: {epochs: 2}\n")
    (tmp_path / "folds.yaml").write_text("extends: plain.yaml\nfolds: 3\n")
    (tmp_path / "again.yaml").write_text("kind: train\nextends: folds.yaml\nfolds: null\n")
    kinds = [
        load(tmp_path / name, overrides).kind
        for name, overrides in (
            ("plain.yaml", []),
            ("plain.yaml", ["folds=4"]),
            ("plain.yaml", ["folds="]),
            ("folds.yaml", []),
            ("folds.yaml", ["folds="]),
            ("again.yaml", []),
            ("again.yaml", ["folds=2"]),
        )
    ]
    assert kinds == ["train", "folds", "train", "folds", "train", "train", "folds"]
    (tmp_path / "folds.yaml").write_text("kind: train\nfolds: 1\n")
    with pytest.raises(JobError, match=r"folds.yaml:2: folds: 1 is not a number of folds"):
        load(tmp_path / "folds.yaml")
