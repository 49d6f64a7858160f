"""`lehr show` fits into any terminal: a column that does not is left out and counted, never cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support import tiny, train_here
from typer.testing import CliRunner

from lehr.cli.main import app
from lehr.curves import diagnose_run
from lehr.errors import RunError
from lehr.job import from_dict, to_dict
from lehr.runs import Folder, RunFolder
from lehr.screen import facts_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    chosen = {"train__averaging": "ema", "train__metric": "averaged_validation_accuracy", "train__epochs": 2}
    job = tiny(**chosen, metrics=[{"name": "balanced_accuracy"}])
    return train_here(job, tmp_path_factory.mktemp("runs") / "one")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_no_number_is_cut_at_any_width(trained: RunFolder, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    shown = CliRunner().invoke(app, ["show", str(trained.folder.local_path)]).output
    lines = shown.splitlines()
    (first,) = (number for number, line in enumerate(lines) if line.split()[:1] == ["1"])
    assert len(lines[first]) <= width
    known = {f"{value:.5g}" for value in trained.epochs().to_pylist()[0].values() if value is not None}
    assert set(lines[first].split()) <= known
    chosen = f"{trained.epochs().to_pylist()[0]['averaged_validation_accuracy']:.5g}"
    assert chosen in lines[first].split()  # by which the model is chosen
    assert ("more columns are in the report" in shown) == (width < 200)


def test_the_loss_of_an_epoch_is_the_mean_over_the_epoch(trained: RunFolder) -> None:
    mean = trained.epochs()["train_loss"][-1].as_py()
    assert facts_of(trained.progress(), of_epoch=True)[0] == ("training loss", f"{mean:.4f}")
    now = trained.progress()
    assert now.training
    within = replace(now, training=replace(now.training, epoch=0.5, epochs_done=0))
    assert facts_of(within)[0][0] == "loss of the last steps"


@pytest.mark.parametrize("kind", ["search", "ensemble", "recipe", "transfer"])
def test_a_run_made_of_trainings_has_no_diagnosis_and_names_one_that_has(kind: str, tmp_path: Path) -> None:
    run = RunFolder.create(Folder.at(tmp_path / "many"), {"kind": kind})
    what = f"many is a run of kind {kind}, which has no learning curves of its own"
    with pytest.raises(RunError, match=f"^{what}, and no training of it has begun$"):
        diagnose_run(run)
    RunFolder.create(Folder.at(tmp_path / "many/trials/0001"), to_dict(from_dict({"kind": "train"})))
    with pytest.raises(RunError, match="such as one of them: lehr diagnose many/trials/0001"):
        diagnose_run(run)


def test_a_prediction_has_no_diagnosis_and_names_its_run(tmp_path: Path) -> None:
    run = RunFolder.create(Folder.at(tmp_path / "told"), {"kind": "predict", "run": "mine"})
    with pytest.raises(RunError, match="the run that it predicts with: lehr diagnose mine"):
        diagnose_run(run)
