"""Every kind of job runs for numbers and for several classes a row, or is refused with one sentence."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import lehr
from lehr.cli.main import app
from lehr.data.pack import pack
from lehr.data.sources import open_source
from lehr.errors import JobError, RunError
from lehr.job import from_dict
from lehr.kinds import check, report_of, run_job
from lehr.predict import load_predictor
from lehr.result import Run
from lehr.runs import RunFolder

TASKS = ("multilabel", "regression")
BASE: dict[str, Any] = {
    "data": {"source": "digits", "limit": 80},
    "model": {"name": "small_cnn", "width": 8},
    "optimizer": {"name": "adam", "lr": 0.01},
    "train": {"epochs": 2, "batch_size": 40},
}
NAMES = {"multilabel": [str(number) for number in range(10)], "regression": ["value"]}


def run(storage: Path, task: str, **job: Any) -> RunFolder:
    torch.set_num_threads(1)
    whole = {"kind": "train", "name": job.get("kind", "train"), "storage": str(storage), **job}
    if whole["kind"] == "train":
        whole = {**BASE, "task": task, **whole}
    else:
        whole["base"] = {**BASE, "task": task, **job.get("base", {})}
    return run_job(from_dict(whole), debug=True)


@pytest.fixture(scope="module", params=TASKS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, RunFolder]:
    return request.param, run(tmp_path_factory.mktemp("runs"), request.param)


def command(*words: str) -> str:
    found = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


def test_a_training_is_predicted_with_evaluated_and_told(
    trained: tuple[str, RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, folder = trained
    monkeypatch.chdir(tmp_path)
    storage = str(folder.folder.local_path.parent)
    command("predict", "train", "digits", "out", "--debug", "--storage", storage)
    table = pq.read_table(tmp_path / "out")
    assert table.num_rows == 1797
    rows = table.slice(0, 3).to_pylist()
    if task == "regression":
        assert table.schema.names == ["id", "name", "label", "prediction"]
        assert [row["label"] for row in rows] == [[0.0], [1.0], [2.0]]
    else:
        assert table.schema.names == ["id", "name", "label", "prediction", "classes", "probabilities"]
        assert rows[1]["label"] == [0.0, 1.0, *[0.0] * 8]
        limits = load_predictor(folder.folder).task.state()["thresholds"]
        above = [k for k, share in enumerate(rows[0]["probabilities"]) if share >= limits[k]]
        assert rows[0]["prediction"] == above
        assert rows[0]["classes"] == [str(k) for k in above]
    told = command("evaluate", "train", "digits", "--split", "validation", "--storage", storage)
    metric = "MAE" if task == "regression" else "average precision"
    assert metric in told
    assert "359 rows, the run's own validation rows" in " ".join(told.split())
    assert "confidence" in command("diagnose", "train", "--storage", storage)
    command("compare", "train", "train", "--storage", storage)
    page = (folder.folder.local_path / "report.html").read_text()
    assert "How good it is for each" in page
    assert "The worst first" in page
    best = Run(folder).best
    assert best["metric"] == ("validation_mae" if task == "regression" else "validation_map")
    classes, values = Run(folder).classes, Run(folder).predict([np.zeros((8, 8), np.uint8)])
    assert classes == NAMES[task]
    assert values.shape == (1, len(classes))


def test_evaluate_measures_what_the_training_recorded(trained: tuple[str, RunFolder]) -> None:
    from lehr.predict.evaluate import evaluate_other
    from lehr.predict.own_rows import rows_of, training_of

    task, folder = trained
    job = training_of(from_dict(folder.job))
    assert job is not None
    chosen = rows_of("validation", job, job)
    found = evaluate_other(load_predictor(folder.folder), chosen.source, rows=chosen.rows)
    epoch = folder.progress().best.epoch
    recorded = folder.epochs().to_pylist()[(epoch or 1) - 1]
    for name in ("mae", "rmse", "r2") if task == "regression" else ("map",):
        assert found.figures[name] == pytest.approx(recorded[f"validation_{name}"], abs=1e-5), name


def test_members_of_an_ensemble_are_averaged(tmp_path: Path, trained: tuple[str, RunFolder]) -> None:
    task, _ = trained
    done = run(tmp_path, task, kind="ensemble", method="independent", members=2, compare=False)
    predictor = load_predictor(done.folder)
    pixels = torch.randint(0, 255, (3, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        each, both = predictor.logits(pixels), predictor(pixels)
    assert torch.allclose(both, each.mean(dim=0), atol=1e-6)
    if task == "multilabel":
        one = load_predictor(done.children("members")[0].folder).task.state()
        assert predictor.task.state() != one  # chosen for both together
    report_of(done)
    assert "Members" in (done.folder.local_path / "report.html").read_text()


@pytest.mark.parametrize("task", TASKS)
def test_a_search_finds_the_best_by_the_metric_of_its_task(tmp_path: Path, task: str) -> None:
    found = run(tmp_path, task, kind="search", space={"optimizer.lr": [0.01, 1e-6]}, method="grid", stopping="none")
    best = found.progress().best
    values = [child.progress().best.value or math.nan for child in found.children("trials")]
    assert best.value == (min(values) if task == "regression" else max(values))


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_recipe_leaves_out_the_steps_that_look_at_classes_and_says_so(
    tmp_path: Path, task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(tmp_path, task, kind="recipe", budget="12ep")
    assert found.status() == "finished"
    assert "initial_loss and overfit are left out: they look at classes" in capsys.readouterr().out
    assert Run(found).predict([np.zeros((8, 8), np.uint8)]).shape[1] == len(NAMES[task])


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", ["snapshot", "average"])
def test_snapshots_and_averages_of_one_run_are_members(tmp_path: Path, task: str, method: str) -> None:
    about = {"cycles": 2} if method == "snapshot" else {}
    found = run(tmp_path, task, kind="ensemble", method=method, **about)
    assert found.status() == "finished"
    assert load_predictor(found.folder).task.names == tuple(NAMES[task])


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (
            {"kind": "transfer", "backbone": "resnet18"},
            r"base.task: is regression, and a transfer compares its ways by",
        ),
        (
            {"kind": "recipe", "recipe": {"start_at": "overfit"}},
            r"recipe.start_at: has no effect with base.task: regre",
        ),
        ({"kind": "ensemble", "combine": {"by": "logits"}}, r"combine.by: logits are of one class a row"),
        ({"kind": "ensemble", "combine": "fitted"}, r"combine.select: fitted fits the log loss of one class a row"),
    ],
)
def test_what_needs_classes_is_refused_with_one_sentence(job: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said) as refused:
        check(from_dict({**job, "base": {"task": "regression"}}))
    assert "\n" not in str(refused.value)


def test_an_ensemble_that_is_not_finished_has_no_page(tmp_path: Path) -> None:
    started = RunFolder.create(
        lehr.runs.Folder.at(tmp_path / "e"),
        json.loads(json.dumps({"kind": "ensemble", "base": {"task": "regression"}})),
    )
    with pytest.raises(RunError):
        report_of(started)


def test_labels_of_every_kind_are_packed_and_read_again(tmp_path: Path) -> None:
    def error(field: str, what: str) -> JobError:
        return JobError(what, field=field)

    for kind in ("classes", "numbers"):
        source = open_source(from_dict({"kind": "train"}).data, error, kind)  # type: ignore[attr-defined]
        pack(source, str(tmp_path / kind))
        section = from_dict({"kind": "train", "data": {"source": "parquet", "path": str(tmp_path / kind)}})
        again = open_source(section.data, error, kind)  # type: ignore[attr-defined]
        assert again.classes == source.classes
        assert np.array_equal(again.labels(), source.labels())


@pytest.mark.parametrize("task", TASKS)
def test_the_rows_and_the_parameters_of_a_job_are_shown_before_it_runs(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(f"kind: train\ntask: {task}\nmodel: {{name: small_cnn, width: 8}}\n")
    told = command("data", "show", "job.yaml")
    assert "1,797" in told
    assert "No samples are drawn" in told
    assert "head.weight" in command("show", "job.yaml", "--parameters")


COLUMNS: dict[str, Any] = {"regression": ["length", "width"], "multilabel": ["sharp", "round"]}


@pytest.mark.parametrize("task", TASKS)
def test_evaluate_takes_the_table_that_a_run_learned_from_by_its_path_alone(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    lines = ["file,length,width,sharp,round"]
    for number in range(24):
        Image.fromarray(draw.integers(0, 255, (8, 8, 3), np.uint8)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{number / 3:.2f},{number % 5},{number % 2},{int(number > 7)}")
    for name in ("table.csv", "other.tsv", "third.txt"):
        Path(name).write_text("\n".join(lines).replace(",", "\t" if name.endswith(".tsv") else ",") + "\n")
    data = {"source": "table", "path": str(tmp_path / "table.csv"), "labels": COLUMNS[task], "validation": 0.25}
    run(tmp_path / "runs", task, data=data, train={"epochs": 1, "batch_size": 8})
    for name in ("table.csv", "other.tsv", "third.txt"):
        told = command("evaluate", "train", name, "--storage", "runs")
        assert " on 24 rows" in told
        assert all(column in told for column in COLUMNS[task])
    told = command("evaluate", "train", "table.csv", "--split", "validation", "--storage", "runs")
    assert " on 6 rows, the run's own validation rows" in told
