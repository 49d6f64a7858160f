"""Transfer from one job file: the templates, a realistic image folder, and resumed runs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import lehr
from lehr import models
from lehr.data.load import OpenedSources, splits
from lehr.errors import JobError, LehrError
from lehr.job import TrainJob, from_dict
from lehr.runs import ModelFile, RunFolder
from lehr.transfer.decision import TransferDecision
from lehr.transfer.features import Features
from lehr.transfer.head_scores import HeadScores
from lehr.transfer.results import STRATEGY_NAMES, strategy_trials

JOBS = Path(__file__).parents[2] / "jobs"
SHORT = {"base.train.epochs": 3, "base.train.evaluated_training_rows": 0, "features.steps": 60}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage folder with the pretrained network, which knows six digits."""
    folder = tmp_path_factory.mktemp("runs")
    overrides = {"storage": str(folder), "train.epochs": 4, "model.width": 8, "train.evaluated_training_rows": 0}
    torch.set_num_threads(1)
    lehr.run(JOBS / "transfer-pretrain.yaml", overrides, debug=True)
    return folder


def offline(storage: Path, name: str, **overrides: Any) -> lehr.Run:
    changes = {path.replace("__", "."): value for path, value in overrides.items()}
    return lehr.run(
        JOBS / "transfer-offline.yaml", {"storage": str(storage), "name": name, **SHORT, **changes}, debug=True
    )


def test_the_offline_template_chooses_and_the_run_is_a_model(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = offline(storage, "auto")
    decision = TransferDecision.read(run.record.folder)
    assert decision is not None
    assert decision.advice is not None
    names = {child.name for child in run.folder.children("trials")}
    assert decision.candidates == decision.advice.candidates
    assert names == {f"{s}{n}" for s in decision.candidates for n in ("", "-2", "-5")}
    assert decision.chosen in decision.candidates
    assert run.status == "finished"
    assert run.best == lehr.Run(storage / "auto" / "trials" / decision.chosen).best
    assert run.best["value"] is not None
    rows = pq.read_table(storage / "auto" / "features" / "train.parquet")
    assert rows.schema.names == ["id", "label", "view", "features"]
    assert rows.num_rows == decision.train_rows == 40
    assert run.classes == ["6", "7", "8", "9"]
    assert run.predict(np.zeros((2, 8, 8), np.uint8)[0]).shape == (1, 4)
    page = (storage / "auto" / "report.html").read_text()
    for words in ("Accuracy against training time", "Accuracy against the number of training images", "this data set",
                  "Nearest neighbours in feature space", f"Chosen: {STRATEGY_NAMES[decision.chosen]}"):  # fmt: skip
        assert words in page, words
    said = capsys.readouterr().out
    assert f"Chosen: {decision.chosen}" in said
    assert "training images per class are little data" in said


def test_a_loss_of_training_rows_can_choose_and_each_way_is_told_as_what_it_is(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {
        "strategy": ["features", "finetune"],
        "base__train__metric": "train_loss",
        "finetune__head_first": "100%",
    }
    run = offline(storage, "by-loss", images_per_class=[2], compare_scratch=True, **options)
    decision = TransferDecision.read(run.record.folder)
    assert decision is not None
    said = capsys.readouterr().out
    assert said.count("reading ") == 1  # one look at the images serves the features and all trials
    assert "pixels as (x - mean)/std of run:digits-six; resized to 8 × 8 (bilinear)" in said
    for way in ("features: ", "head only: ", "from scratch: "):
        (line,) = (line for line in said.splitlines() if line.startswith(way))
        assert "% ± " in line
        assert " parameters trained" in line
    assert "fine-tuning: " not in said
    trials = {f"{each.strategy}{each.per_class or ''}": each for each in strategy_trials(run.record)}
    assert set(trials) == {f"{name}{few}" for name in ("features", "finetune", "scratch") for few in ("", "2")}
    assert all(each.curve()[1][-1] == pytest.approx(100 * (each.accuracy or 0)) for each in trials.values())
    spent = [HeadScores.read(trials[name].run.folder).seconds["features"] for name in ("features", "features2")]
    assert spent[0] > 0
    assert spent[1] == 0  # charged once
    page = (storage / "by-loss" / "report.html").read_text()
    assert "head only" in page
    assert "The features were computed once" in page


def test_features_and_finished_trials_are_kept_on_a_resume(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transfer that was killed after its features and its first trials resumes with the remaining ones."""
    offline(storage, "again", strategy=["features", "scratch"], images_per_class=[])
    place = storage / "again"
    ended = ("progress.json", "attempts/0001-outcome.json")
    for name in (*ended, "report.html", "model/model-0001.json", *(f"trials/scratch/{name}" for name in ended)):
        (place / name).unlink()
    before = {file: file.stat().st_mtime_ns for file in (place / "features").iterdir()}
    head = (place / "trials" / "features" / "attempts" / "0001-outcome.json").stat().st_mtime_ns
    run = offline(storage, "again", strategy=["features", "scratch"], images_per_class=[])
    assert run.status == "finished"
    assert {file: file.stat().st_mtime_ns for file in (place / "features").iterdir()} == before
    assert (place / "trials" / "features" / "attempts" / "0001-outcome.json").stat().st_mtime_ns == head
    assert (place / "model" / "model-0002.json").exists()


def test_a_deep_head_on_several_views_is_read_back(storage: Path) -> None:
    options = {"features__hidden": 16, "features__views": 3, "base__data__augment": ["shift"]}
    run = offline(storage, "deep", strategy="features", images_per_class=[], **options)
    rows = pq.read_table(storage / "deep" / "features" / "train.parquet")
    assert rows["view"].to_pylist() == [0] * 40 + [1] * 40 + [2] * 40
    assert pq.read_table(storage / "deep" / "features" / "validation.parquet").num_rows == 357
    child = RunFolder.open(storage / "deep" / "trials" / "features")
    job = from_dict(child.job)
    assert isinstance(job, TrainJob)
    validation = splits(job, OpenedSources(job).decode()).validation
    batch = validation.gather(torch.arange(len(validation)))
    found = run.predict(batch.inputs.permute(0, 2, 3, 1).contiguous().numpy())
    accuracy = float((found.argmax(1) == batch.targets.numpy()).mean())
    assert accuracy == pytest.approx(run.best["value"], abs=1e-6)
    assert {layer for layer in run.best_model().state_dict() if layer.startswith("head")} == {
        "head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"backbone": "run:nobody"}, "backbone: "),
        ({"backbone": "resnet1"}, "backbone: there are no published weights of resnet1"),
        (
            {"backbone.weights": "pretrained"},
            "backbone.weights: pretrained cannot be combined with a run, which has its own",
        ),
        ({"strategy": "feature"}, 'strategy: "feature" is not a strategy; allowed: auto, features, finetune, scratch'),
        (
            {"base.model": "resnet18"},
            "base.model: the network of a transfer is its backbone; type backbone.name=resnet18",
        ),
        ({"finetune.frozen": 9, "strategy": "finetune", "features.steps": None}, "no strategy finished: "),
        ({"base.data.augment": ["mixup"], "features.views": 2}, "features of mixed images have no single label"),
    ],
)
def test_a_wrong_transfer_gets_one_sentence(storage: Path, overrides: dict[str, Any], sentence: str) -> None:
    with pytest.raises((JobError, LehrError)) as caught:
        lehr.run(
            JOBS / "transfer-offline.yaml",
            {"storage": str(storage), "images_per_class": [], **SHORT, **overrides},
            debug=True,
        )
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.ray
@pytest.mark.slow
def test_the_results_on_ray_equal_those_in_one_process(storage: Path) -> None:
    """Features by Ray Data, trials by Ray Tune: the same features, and the same head from them."""
    overrides = {"storage": str(storage), "images_per_class": [], "strategy": ["features", "finetune"], **SHORT}
    here = lehr.run(JOBS / "transfer-offline.yaml", {**overrides, "name": "here"}, debug=True)
    there = lehr.run(JOBS / "transfer-offline.yaml", {**overrides, "name": "there"})
    for split in ("train", "validation"):
        ours, theirs = (Features.read(run.record.folder, split) for run in (here, there))
        assert torch.equal(ours.ids, theirs.ids)
        assert torch.equal(ours.labels, theirs.labels)
        assert torch.allclose(ours.values, theirs.values, atol=1e-5)
    found = [lehr.Run(run.folder.children("trials")[0]).best["value"] for run in (here, there)]
    assert found[0] == pytest.approx(found[1], abs=0.01)
    assert there.status == "finished"


# ── a realistic image folder ────────────────────────────────────────────────────────────────────────────────────────


def picture(color: str, size: tuple[int, int], form: str, mode: str = "RGB", **options: Any) -> bytes:
    """A patch of coloured noise, as an encoded file."""
    noise = np.random.default_rng(len(color) * size[0]).integers(0, 90, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise + np.array({"red": (160, 0, 0), "blue": (0, 0, 160)}[color], np.uint8))
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes with files of many formats, an empty folder, a truncated file and a text file."""
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("a.jpg", {"form": "JPEG"}),
        ("grey.png", {"form": "PNG", "mode": "L"}),
        ("cmyk.jpg", {"form": "JPEG", "mode": "CMYK"}),
        ("alpha.png", {"form": "PNG", "mode": "RGBA"}),
        ("turned.jpg", {"form": "JPEG", "exif": exif}),
        ("moving.gif", {"form": "GIF", "mode": "P"}),
        ("naïve – 写真.webp", {"form": "WEBP"}),
        ("UPPER.JPEG", {"form": "JPEG"}),
    ]
    folder = tmp_path / "photos"
    for name, color in (("röd", "red"), ("blue ones", "blue")):
        (folder / name).mkdir(parents=True)
        for number, (file, options) in enumerate(kinds * 3):
            size = (20 + 7 * number, 60 - 2 * number)
            (folder / name / f"{number}{file}").write_bytes(picture(color, size, **options))
    (folder / "empty").mkdir()
    (folder / "röd" / "cut.jpg").write_bytes(picture("red", (64, 64), "JPEG")[:200])
    (folder / "röd" / "text.jpg").write_text("this is no image")
    (folder / "röd" / "notes.txt").write_text("ignored")
    return folder


def test_a_realistic_image_folder_trains_and_skipped_images_are_reported(photos: Path, tmp_path: Path) -> None:
    """With the template for clusters."""
    torch.save(models.build("resnet18", 3, 1000, {}, seed=3).state_dict(), tmp_path / "resnet18.pth")
    overrides = {
        "storage": str(tmp_path / "runs"), "name": "photos", "base.data.path": str(photos),
        "backbone": {"name": "resnet18", "weights": str(tmp_path / "resnet18.pth")}, "base.data.image_size": 32,
        "base.train": {"epochs": 1, "batch_size": 16, "evaluated_training_rows": 0},
        "strategy": ["features", "finetune"], "base.workers": {"gpus": 0}, "features.steps": 60,
    }  # fmt: skip
    run = lehr.run(JOBS / "transfer.yaml", overrides, debug=True)
    assert run.status == "finished"
    data = run.folder.environment.data
    assert data is not None
    assert data.unreadable is not None
    assert data.unreadable.count == 2
    assert {name.rpartition("/")[2] for name in data.unreadable.names} == {"cut.jpg", "text.jpg"}
    page = (tmp_path / "runs" / "photos" / "report.html").read_text()
    for words in ("Skipped images", "cut.jpg", "text.jpg", "no images and is ignored: empty", "röd"):
        assert words in page, words
    assert run.classes == ["blue ones", "röd"]
    weights = ModelFile.read(run.record.folder).description["preprocess"]
    assert weights["mean"] == [0.485, 0.456, 0.406]
    accuracy = lehr.Run(tmp_path / "runs" / "photos" / "trials" / "features").best["value"]
    assert accuracy > 0.6  # red and blue are easy, even for random features; greyscale ones among them are not
