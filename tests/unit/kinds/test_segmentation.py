"""Every kind of job runs for segmentation, or is refused with one sentence."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tests.unit.data.mask_sets import NAMES, write_pairs
from typer.testing import CliRunner

from lehr.cli.main import app
from lehr.errors import JobError
from lehr.job import from_dict
from lehr.kinds import run_job
from lehr.predict import load_predictor
from lehr.result import Run
from lehr.runs import RunFolder

WIDE = 96
"""Width of the images, which are 64 pixels high and are letterboxed into 48 × 48."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("masks") / "set", {"train": 24, "val": 9}, wide=WIDE)


def job(kind: str, data: Path, storage: Path, **about: Any) -> Any:
    base = {
        "data": {"path": str(data), "image_size": 48},
        "task": {"name": "segmentation", "width": 8},
        "model": {"name": "small_cnn", "width": 8},
        "loss": {"class_weights": "balanced"},
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
    return run("train", data, tmp_path_factory.mktemp("runs"), train={"epochs": 10, "batch_size": 8})


def command(*words: str) -> str:
    found = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


def masks_in(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_predictions_are_masks_in_the_pixels_of_the_original_images(
    trained: RunFolder, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    storage = str(trained.folder.local_path.parent)
    (tmp_path / "job.yaml").write_text(f"data: {{path: {data}}}\nkind: train\ntask: segmentation\n")
    words = "predict", "train", "job.yaml", "out", "--split", "validation", "--debug", "--storage", storage
    assert "9 masks as PNG files in masks/" in command(*words)
    table = pq.read_table(sorted((tmp_path / "out").glob("*.parquet"))[0])
    assert table.schema.names == ["id", "name", "label", "prediction", "classes", "shares", "mask"]
    rows = table.to_pylist()
    assert len(rows) == 9
    for row in rows:
        mask = masks_in(row["mask"])
        assert mask.shape == (64, WIDE)
        counts = np.bincount(mask.ravel(), minlength=11) / mask.size
        assert row["shares"] == pytest.approx(sorted(counts[counts > 0], reverse=True))
        assert [NAMES[number] for number in row["prediction"]] == row["classes"]
        truth = masks_in((data / "masks" / "val" / f"{row['id']:03}.png").read_bytes())
        assert np.array_equal(masks_in(row["label"]), truth)
        (file,) = (tmp_path / "out" / "masks").glob(f"{row['id']:06} *.png")
        assert np.array_equal(masks_in(file.read_bytes()), mask)
    command(*words)  # it finds what is there, and writes nothing twice
    image = data / "images" / "val" / "000.png"
    [found] = Run(trained).predict([image])
    assert np.array_equal(found, masks_in(rows[0]["mask"]))
    [told] = json.loads(command("predict", "train", str(image), "--json", "--storage", storage))
    assert np.array_equal(masks_in(base64.b64decode(told["mask"])), found)
    assert sum(told["shares"].values()) == pytest.approx(1)


def test_a_photograph_is_told_in_shares_and_left_as_a_picture(
    trained: RunFolder, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image, storage = data / "images" / "val" / "003.png", str(trained.folder.local_path.parent)
    said = command("predict", "train", str(image), "--storage", storage)
    assert "background " in said
    assert "003-found.png" in said
    assert Image.open(tmp_path / "003-found.png").size == (WIDE, 64)
    (tmp_path / "003-found.png").write_bytes(b"mine")
    assert "Not written" in command("predict", "train", str(image), "--storage", storage)
    assert (tmp_path / "003-found.png").read_bytes() == b"mine"
    assert "Picture: 003-found.png" in command("predict", "train", str(image), "--force", "--storage", storage)


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
    assert 0.02 < best["validation_miou"] < best["validation_pixel_accuracy"] < 0.99
    for name in ("miou", "pixel_accuracy"):
        assert found.figures[name] == pytest.approx(best[f"validation_{name}"], abs=0.03)
    monkeypatch.chdir(tmp_path)
    told = command("evaluate", "train", own.data.path or "", "--split", "validation", "--storage", own.storage)
    assert "Mean IoU" in told
    assert "nan" not in told


def test_the_report_shows_masks_beside_the_truth_and_what_is_confused(trained: RunFolder) -> None:
    page = (trained.folder.local_path / "report.html").read_text()
    for words in ("Confusion of pixels", "most often taken for", "Left: true. Right: found", "gallery wide"):
        assert words in page
    storage = str(trained.folder.local_path.parent)
    assert "confidence" in command("diagnose", "train", "--storage", storage)
    command("compare", "train", "train", "--storage", storage)
    command("show", "train", "--storage", storage)


def test_a_server_answers_with_a_mask_in_original_pixels(trained: RunFolder, data: Path) -> None:
    from lehr.predict.rows import predict
    from lehr.serving.app import Served, _answer

    predictor = load_predictor(trained.folder)

    async def ask(pixels: np.ndarray) -> np.ndarray:
        await asyncio.sleep(0)
        return predict(predictor, pixels[None]).probabilities[0]

    served = Served("train", predictor.task, predictor.wanted)
    image = (data / "images" / "val" / "000.png").read_bytes()
    with ThreadPoolExecutor(1) as decoders:
        told = asyncio.run(_answer(served, ask, decoders, "000.png", image)).to_json(3)
    [found] = Run(trained).predict([image])
    assert np.array_equal(masks_in(base64.b64decode(told["mask"])), found)


@pytest.mark.slow
def test_an_export_gives_the_probabilities_of_the_run(trained: RunFolder, tmp_path: Path) -> None:
    storage = str(trained.folder.local_path.parent)
    command("export", "train", str(tmp_path), "--format", "torch", "--storage", storage)
    program = torch.export.load(tmp_path / "model.pt2").module()
    predictor = load_predictor(trained.folder)
    pixels = torch.randint(0, 255, (3, 1, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(program(pixels), predictor(pixels), atol=1e-4)


def test_a_search_finds_the_best_by_mean_overlap(data: Path, tmp_path: Path) -> None:
    found = run("search", data, tmp_path, space={"optimizer.lr": [0.01, 1e-7]}, method="grid", stopping="none")
    values = [child.progress().best.value or 0.0 for child in found.children("trials")]
    assert found.progress().best.value == max(values)


def test_an_ensemble_averages_the_probabilities_of_each_pixel(data: Path, tmp_path: Path) -> None:
    from lehr.predict.evaluate import evaluate_other
    from lehr.predict.own_rows import rows_of

    found = run("ensemble", data, tmp_path, method="independent", members=2)
    assert found.status() == "finished"
    kept = json.loads((found.folder.local_path / "evaluation.json").read_text())
    predictor = load_predictor(found.folder)
    own = from_dict(found.children("members")[0].job)
    chosen = rows_of("validation", own, own)  # type: ignore[arg-type]
    again = evaluate_other(predictor, chosen.source, rows=chosen.rows).figures
    assert again["pixel_accuracy"] == pytest.approx(kept["ensemble"]["pixel_accuracy"], abs=0.03)
    pixels = torch.randint(0, 255, (2, 1, 48, 48), dtype=torch.uint8)
    with torch.no_grad():
        each = [network(pixels) for network in predictor.networks]
        assert torch.allclose(predictor(pixels), (each[0] + each[1]) / 2, atol=1e-6)
    assert "mean IoU" in (found.folder.local_path / "report.html").read_text()


def test_folds_say_of_each_row_what_a_network_said_that_had_not_seen_it(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "set", {"train": 8})
    (path / "images" / "train").rename(path / "images" / "all")
    (path / "masks" / "train").rename(path / "masks" / "all")
    found = run_job(
        job("train", path, tmp_path, name="folds", folds=2, train={"epochs": 1, "batch_size": 4}), debug=True
    )
    rows = pq.read_table(found.folder.local_path / "out_of_fold.parquet").to_pylist()
    assert [row["id"] for row in rows] == list(range(8))
    assert all(masks_in(row["mask"]).shape == masks_in(row["label"]).shape == (48, 48) for row in rows)


def test_a_finished_run_starts_another(trained: RunFolder, data: Path, tmp_path: Path) -> None:
    about = {"model": {"name": "small_cnn", "width": 8, "weights": f"run:{trained.folder.local_path}"}}
    done = run("train", data, tmp_path, **about, finetune={"head_first": "50%"}, train={"epochs": 2, "batch_size": 8})
    assert done.status() == "finished"


def test_transfer_is_refused_in_a_sentence(data: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="compares its ways by classes"):
        run("transfer", data, tmp_path)


@pytest.mark.slow
def test_a_recipe_leaves_out_the_steps_that_look_at_classes(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run("recipe", data, tmp_path, budget="12ep")
    assert found.status() == "finished"
    assert "initial_loss and overfit are left out: they look at classes" in capsys.readouterr().out
