"""Every kind of job runs for detection, or is refused with one sentence."""

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
from tests.unit.data.coco import write_coco
from typer.testing import CliRunner

from lehr.cli.main import app
from lehr.errors import JobError
from lehr.job import from_dict
from lehr.kinds import run_job
from lehr.predict import load_predictor
from lehr.result import Run
from lehr.runs import RunFolder

WIDE = 96
"""Width of the images, which are 64 pixels high and are letterboxed into 64 × 64."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("boxes") / "set", {"train": 24, "val": 9}, wide=WIDE)


def job(kind: str, data: Path, storage: Path, **about: Any) -> Any:
    base = {
        "data": {"source": "annotations", "path": str(data), "image_size": 64},
        "task": {"name": "detection", "width": 16, "depth": 1},
        "model": {"name": "small_cnn", "width": 8},
        "optimizer": {"name": "adam", "lr": 0.005},
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


def test_predictions_are_boxes_in_the_pixels_of_the_original_images(
    trained: RunFolder, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    storage = str(trained.folder.local_path.parent)
    (tmp_path / "job.yaml").write_text(f"data: {{source: annotations, path: {data}}}\nkind: train\ntask: detection\n")
    command("predict", "train", "job.yaml", "out", "--split", "validation", "--debug", "--storage", storage)
    results = json.loads((tmp_path / "out" / "coco_results.json").read_text())
    (tmp_path / "out" / "coco_results.json").rename(tmp_path / "coco_results.json")
    table = pq.read_table(tmp_path / "out")
    (tmp_path / "coco_results.json").rename(tmp_path / "out" / "coco_results.json")
    assert table.schema.names == ["id", "name", "label", "prediction", "classes", "scores", "boxes"]
    rows = table.to_pylist()
    assert len(rows) == 9
    truth = json.loads((data / "instances_val.json").read_text())["annotations"]
    first = [each["bbox"] for each in truth if each["image_id"] == 10]
    assert [[box[1], box[2], box[3] - box[1], box[4] - box[2]] for box in rows[0]["label"]] == first
    for row in rows:
        assert len(row["prediction"]) == len(row["classes"]) == len(row["scores"]) == len(row["boxes"])
        assert all(str(number) == name for number, name in zip(row["prediction"], row["classes"], strict=True))
        assert row["scores"] == sorted(row["scores"], reverse=True)
        assert all(0 <= x0 <= x1 <= WIDE and 0 <= y0 <= y1 <= 64 for x0, y0, x1, y1 in row["boxes"])
    first = [each for each in results if each["image_id"] == 10]
    assert [each["category_id"] - 1 for each in first] == rows[0]["prediction"]
    assert [[x, y, x + wide, y + tall] for x, y, wide, tall in (each["bbox"] for each in first)] == rows[0]["boxes"]
    assert sum(len(row["boxes"]) for row in rows) == len(results)
    command("predict", "train", "job.yaml", "out", "--split", "validation", "--debug", "--storage", storage)
    image = data / "images" / "val000.png"
    [found] = Run(trained).predict([image])
    boxes = found[found[:, 0] > 0, 2:]
    assert np.allclose(boxes, rows[0]["boxes"], atol=1e-4)
    [told] = json.loads(command("predict", "train", str(image), "--json", "--storage", storage))
    assert np.allclose([each["box"] for each in told["boxes"]], boxes, atol=1e-4)
    command("predict", "train", str(image), "--storage", storage)


def test_evaluate_measures_in_original_pixels_what_the_training_measured_in_those_of_its_input(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lehr.predict.evaluate import evaluate_other
    from lehr.predict.own_rows import rows_of, training_of

    own = training_of(from_dict(trained.job))
    assert own is not None
    chosen = rows_of("validation", own, own)
    found = evaluate_other(load_predictor(trained.folder), chosen.source, rows=chosen.rows)
    best = trained.epochs().to_pylist()[(trained.progress().best.epoch or 1) - 1]
    assert best["validation_map_50"] > 0.02
    # A box in the grey beside an image is a mistake while a network trains, and is told to nobody afterwards.
    for name in ("map", "map_50"):
        assert best[f"validation_{name}"] - 1e-6 <= found.figures[name] <= best[f"validation_{name}"] + 0.03
    monkeypatch.chdir(tmp_path)
    storage = str(trained.folder.local_path.parent)
    data = own.data.path or ""
    told = command("evaluate", "train", data, "--split", "validation", "--storage", storage)
    assert "Mean average precision" in told
    assert "nan" not in told


def test_the_report_shows_boxes_beside_the_truth_and_each_class(trained: RunFolder) -> None:
    page = (trained.folder.local_path / "report.html").read_text()
    assert "at half overlap" in page
    assert "The worst first. Green: true. Blue: found" in page
    storage = str(trained.folder.local_path.parent)
    assert "confidence" in command("diagnose", "train", "--storage", storage)
    command("compare", "train", "train", "--storage", storage)
    command("show", "train", "--storage", storage)


def test_a_server_answers_with_boxes_in_original_pixels(trained: RunFolder, data: Path) -> None:
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
    boxes = found[found[:, 0] > 0, 2:]
    assert np.allclose([each["box"] for each in told["boxes"]], boxes, atol=1e-3)


@pytest.mark.slow
def test_an_export_gives_the_boxes_of_the_run(trained: RunFolder, data: Path, tmp_path: Path) -> None:
    storage = str(trained.folder.local_path.parent)
    command("export", "train", str(tmp_path), "--format", "torch", "--storage", storage)
    program = torch.export.load(tmp_path / "model.pt2").module()
    predictor = load_predictor(trained.folder)
    pixels = torch.randint(0, 255, (3, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(program(pixels), predictor(pixels), atol=1e-4)


def test_a_search_finds_the_best_by_average_precision(data: Path, tmp_path: Path) -> None:
    found = run("search", data, tmp_path, space={"optimizer.lr": [0.005, 1e-7]}, method="grid", stopping="none")
    values = [child.progress().best.value or 0.0 for child in found.children("trials")]
    assert found.progress().best.value == max(values)


def test_a_finished_detector_starts_another(trained: RunFolder, data: Path, tmp_path: Path) -> None:
    about = {"model": {"name": "small_cnn", "width": 8, "weights": f"run:{trained.folder.local_path}"}}
    done = run("train", data, tmp_path, **about, finetune={"head_first": "50%"}, train={"epochs": 2, "batch_size": 8})
    assert done.status() == "finished"


@pytest.mark.parametrize("kind", ["transfer", "ensemble"])
def test_what_boxes_cannot_have_is_refused_in_a_sentence(kind: str, data: Path, tmp_path: Path) -> None:
    about = {"ensemble": {"method": "independent", "members": 2}}.get(kind, {})
    said = {
        "transfer": "compares its ways by classes",
        "ensemble": "the outputs of detection cannot be averaged: two networks find other boxes",
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
