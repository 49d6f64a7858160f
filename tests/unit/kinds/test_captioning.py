"""Every kind of job runs for captioning, or is refused with one sentence."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.unit.data.coco import write_captions
from typer.testing import CliRunner

from lehr.cli.main import app
from lehr.errors import JobError
from lehr.job import from_dict
from lehr.kinds import run_job
from lehr.predict import load_predictor
from lehr.result import Run
from lehr.runs import RunFolder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_captions(tmp_path_factory.mktemp("captions") / "set", {"train": 24, "val": 9}, several=True)


def job(kind: str, data: Path, storage: Path, **about: Any) -> Any:
    base = {
        "data": {"source": "annotations", "path": str(data), "image_size": 32},
        "task": {"name": "captioning", "width": 16, "depth": 1, "heads": 2, "beam": 2, "least_count": 1},
        "model": {"name": "small_cnn", "width": 8},
        "optimizer": {"name": "adam", "lr": 0.01},
        "train": {"epochs": 2, "batch_size": 8},
    }
    whole = {"kind": kind, "name": kind, "storage": str(storage), **about}
    if kind == "transfer":
        whole["backbone"] = base.pop("model")
    return from_dict({**base, **whole} if kind == "train" else {**whole, "base": base})


def run(kind: str, data: Path, storage: Path, **about: Any) -> RunFolder:
    torch.set_num_threads(1)
    return run_job(job(kind, data, storage, **about), debug=True)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run("train", data, tmp_path_factory.mktemp("runs"), train={"epochs": 12, "batch_size": 8})


def command(*words: str) -> str:
    found = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


def test_predictions_are_sentences_with_their_probability(
    trained: RunFolder, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    storage = str(trained.folder.local_path.parent)
    (tmp_path / "job.yaml").write_text(f"data: {{source: annotations, path: {data}}}\nkind: train\ntask: captioning\n")
    command("predict", "train", "job.yaml", "out", "--split", "validation", "--debug", "--storage", storage)
    results = json.loads((tmp_path / "out" / "coco_results.json").read_text())
    [part] = (tmp_path / "out").glob("*.parquet")
    table = pq.read_table(part)
    assert table.schema.names == ["id", "name", "label", "caption", "log_probability"]
    rows = table.to_pylist()
    truth = json.loads((data / "captions_val.json").read_text())["annotations"]
    assert [row["label"] for row in rows] == [
        [each["caption"] for each in truth if each["image_id"] == 10 + number] for number in range(9)
    ]
    assert all(row["log_probability"] < 0 for row in rows)
    assert results == [{"image_id": 10 + number, "caption": row["caption"]} for number, row in enumerate(rows)]
    image = data / "images" / "val000.png"
    [found] = Run(trained).predict([image])
    predictor = load_predictor(trained.folder)
    assert predictor.task.to_json(found, 1)["caption"] == rows[0]["caption"]
    [told] = json.loads(command("predict", "train", str(image), "--json", "--storage", storage))
    assert told["caption"] == rows[0]["caption"]
    assert told["log_probability"] == pytest.approx(rows[0]["log_probability"], abs=1e-4)
    assert rows[0]["caption"] in command("predict", "train", str(image), "--storage", storage)


def test_predictions_need_no_captions(trained: RunFolder, data: Path, tmp_path: Path) -> None:
    storage = str(trained.folder.local_path.parent)
    command("predict", "train", str(data / "images"), str(tmp_path / "out"), "--debug", "--storage", storage)
    rows = [row for part in (tmp_path / "out").glob("*.parquet") for row in pq.read_table(part).to_pylist()]
    assert len(rows) == 33
    assert {row["label"] for row in rows} == {None}
    assert all(isinstance(row["caption"], str) for row in rows)


def test_evaluate_measures_what_the_training_measured(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lehr.predict.evaluate import evaluate_other
    from lehr.predict.own_rows import rows_of, training_of

    own = training_of(from_dict(trained.job))
    assert own is not None
    chosen = rows_of("validation", own, own)
    found = evaluate_other(load_predictor(trained.folder), chosen.source, rows=chosen.rows)
    best = trained.epochs().to_pylist()[(trained.progress().best.epoch or 1) - 1]
    for name in ("bleu_4", "cider", "exact_match"):
        assert found.figures[name] == pytest.approx(best[f"validation_{name}"], abs=1e-6)
    monkeypatch.chdir(tmp_path)
    told = command(
        "evaluate",
        "train",
        own.data.path or "",
        "--split",
        "validation",
        "--storage",
        str(trained.folder.local_path.parent),
    )
    assert "CIDEr" in told
    assert "BLEU-4" in told


def test_the_report_shows_captions_beside_the_truth_the_worst_first(trained: RunFolder) -> None:
    page = (trained.folder.local_path / "report.html").read_text()
    assert "says: " in page
    assert "true: " in page
    assert "right where it is said" in page
    storage = str(trained.folder.local_path.parent)
    command("diagnose", "train", "--storage", storage)
    command("compare", "train", "train", "--storage", storage)
    command("show", "train", "--storage", storage)


def test_a_server_answers_with_a_sentence(trained: RunFolder, data: Path) -> None:
    from lehr.predict.rows import predict
    from lehr.serving.app import Served, _answer

    predictor = load_predictor(trained.folder)

    async def ask(pixels: np.ndarray) -> np.ndarray:
        await asyncio.sleep(0)
        return predict(predictor, pixels[None]).probabilities[0]

    served = Served("train", predictor.task, predictor.wanted)
    image = (data / "images" / "val000.png").read_bytes()
    with ThreadPoolExecutor(1) as decoders:
        told = asyncio.run(_answer(served, ask, decoders, "val000.png", image)).to_json(3)
    [found] = Run(trained).predict([image])
    assert told["caption"] == predictor.task.to_json(found, 1)["caption"]


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["transformer", "lstm"])
def test_an_export_gives_the_sentences_of_the_run(decoder: str, data: Path, tmp_path: Path) -> None:
    task = {"name": "captioning", "width": 16, "depth": 1, "heads": 2, "beam": 2, "decoder": decoder}
    made = run("train", data, tmp_path, task=task)
    storage = str(made.folder.local_path.parent)
    command("export", "train", str(tmp_path / "out"), "--format", "torch", "--storage", storage)
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    predictor = load_predictor(made.folder)
    pixels = torch.randint(0, 255, (3, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(program(pixels), predictor(pixels), atol=1e-4)
    words = json.loads((tmp_path / "out" / "classes.json").read_text())["classes"]
    assert words[:3] == ["<end>", "<start>", "<unknown>"]


def test_a_search_finds_the_best_by_cider(data: Path, tmp_path: Path) -> None:
    found = run("search", data, tmp_path, space={"optimizer.lr": [0.01, 1e-7]}, method="grid", stopping="none")
    values = [child.progress().best.value or 0.0 for child in found.children("trials")]
    assert found.progress().best.metric == "validation_cider"
    assert found.progress().best.value == max(values)


def test_a_finished_captioner_starts_another(trained: RunFolder, data: Path, tmp_path: Path) -> None:
    about = {"model": {"name": "small_cnn", "width": 8, "weights": f"run:{trained.folder.local_path}"}}
    done = run("train", data, tmp_path, **about, finetune={"head_first": "50%"}, train={"epochs": 2, "batch_size": 8})
    assert done.status() == "finished"


@pytest.mark.parametrize("kind", ["transfer", "ensemble"])
def test_what_sentences_cannot_have_is_refused_in_a_sentence(kind: str, data: Path, tmp_path: Path) -> None:
    about = {"ensemble": {"method": "independent", "members": 2}}.get(kind, {})
    said = {
        "transfer": "compares its ways by classes",
        "ensemble": "the outputs of captioning cannot be averaged: words are made one after the other",
    }
    with pytest.raises(JobError, match=said[kind]):
        run(kind, data, tmp_path, **about)


@pytest.mark.slow
def test_a_recipe_leaves_out_the_steps_that_look_at_classes(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run("recipe", data, tmp_path, budget="12ep")
    assert found.status() == "finished"
    assert "initial_loss and overfit are left out: they look at classes" in capsys.readouterr().out
