"""Initial weights: published ones and files, with their own preprocessing, and one sentence if they are wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.training.conftest import job_of, plan_of, synthetic

from lehr import models
from lehr.errors import JobError
from lehr.job import load
from lehr.models import pretrained
from lehr.models.pretrained import IMAGENET
from lehr.models.weights import read_weights
from lehr.runs import Folder, write_model
from lehr.training.setup import Plan, check_job

RESNET = "resnet18-f37072fd.pth"  # torchvision's file name, which contains the start of its hash


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's folder for downloaded weights, empty, without a network."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def down(url: str, *args: Any, **options: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", down)
    place = tmp_path / "hub" / "checkpoints"
    place.mkdir(parents=True)
    return place


def refused(weights: str, name: str = "resnet18") -> str:
    with pytest.raises(JobError) as caught:
        check_job(job_of(model={"name": name, "weights": weights}))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_a_network_one_sentence_says_where_to_save_the_file(hub: Path) -> None:
    sentence = refused("pretrained")
    assert f"download https://download.pytorch.org/models/{RESNET} elsewhere and save it as {hub / RESNET}" in sentence
    assert "model.weights: the weights of resnet18 cannot be downloaded (Name or service not known)" in sentence


def test_a_file_saved_there_is_used_with_the_preprocessing_of_the_weights(hub: Path) -> None:
    theirs = models.build("resnet18", 3, 1000, {}, seed=9)
    torch.save(theirs.state_dict(), hub / RESNET)
    plan = plan_of(synthetic(size=32), model={"name": "resnet18", "weights": "pretrained"})
    ours = plan.build_model()
    assert torch.equal(ours.get_parameter("layer4.1.conv2.weight"), theirs.get_parameter("layer4.1.conv2.weight"))
    assert ours.get_parameter("fc.weight").shape == (3, 512)  # sized to the data
    assert (plan.preprocess.mean, plan.preprocess.std) == (IMAGENET["mean"], IMAGENET["std"])
    assert plan.preprocess.shape == (3, 32, 32)
    white = plan.inputs(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8))[0, :, 0, 0]
    assert white.tolist() == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])


def test_a_network_for_colour_images_accepts_greyscale_images(hub: Path) -> None:
    torch.save(models.build("resnet18", 3, 1000, {}, seed=9).state_dict(), hub / RESNET)
    plan = plan_of(synthetic(channels=1, size=32), model={"name": "resnet18", "weights": "pretrained"})
    assert plan.inputs(torch.zeros(2, 1, 32, 32, dtype=torch.uint8)).shape == (2, 3, 32, 32)
    assert plan.build_model()(plan.inputs(torch.zeros(2, 1, 32, 32, dtype=torch.uint8))).shape == (2, 3)


def test_a_network_for_greyscale_images_accepts_colour_images(tmp_path: Path) -> None:
    """The weights of a run on greyscale images bring its mean and standard deviation with them."""
    grey = plan_of(synthetic(channels=1))
    description = grey.describe_model()
    write_model(Folder.at(tmp_path), grey.build_model().state_dict(), description.to_json())
    plan = plan_of(synthetic(channels=3), model={"name": "small_cnn", "width": 8, "weights": f"run:{tmp_path}"})
    red = torch.zeros(1, 3, 12, 12, dtype=torch.uint8)
    red[:, 0] = 100
    (mean,), (std,) = description.preprocess["mean"], description.preprocess["std"]
    assert plan.inputs(red).shape == (1, 1, 12, 12)
    assert float(plan.inputs(red)[0, 0, 0, 0]) == pytest.approx((29.9 / 255 - mean) / std, abs=1e-5)


def _truncated(file: Path) -> None:
    torch.save(models.build("resnet18", 3, 10, {}, seed=0).state_dict(), file)
    file.write_bytes(file.read_bytes()[:100_000])


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (lambda file: file.write_bytes(b"<html>404</html>"), "is a web page, not weights; download it again by"),
        (lambda file: file.write_bytes(b""), "is empty; download or save it again"),
        (
            lambda file: file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid"),
            "only points to a file",
        ),
        (lambda file: file.write_bytes(b"hello"), "is damaged or is not a weights file"),
        (_truncated, "is damaged or is not a weights file"),
        (lambda file: torch.save([1, 2], file), "does not contain weights"),
        (lambda file: torch.save(torch.nn.Linear(2, 2), file), "is damaged or is not a weights file"),  # pickled code
    ],
)
def test_a_damaged_file_gets_one_sentence(hub: Path, write: Callable[[Path], None], why: str) -> None:
    write(hub / RESNET)
    assert f"model.weights: {hub / RESNET} {why}" in refused("pretrained")


@pytest.mark.parametrize(
    ("weights", "name", "sentence"),
    [
        ("pretrained", "small_cnn", "there are no published weights of small_cnn; allowed: a network of torchvision"),
        ("pretrained:IMAGENET1K_V9", "resnet18", "resnet18 has no weights named IMAGENET1K_V9; allowed: IMAGENET1K_V1"),
        ("pretrained:", "resnet18", '"pretrained:" is not a valid weights reference; allowed: run:NAME'),
        ("missing.pth", "resnet18", "there is no file "),
        ("resnet18", "resnet18", '"resnet18" is not a valid weights reference; allowed: run:NAME'),
    ],
)
def test_weights_that_do_not_exist_get_one_sentence(hub: Path, weights: str, name: str, sentence: str) -> None:
    assert sentence in refused(weights, name)


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_file_beside_the_job_is_found(ending: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "jobs").mkdir()
    theirs = models.build("small_cnn", 3, 5, {"width": 8}, seed=9).state_dict()
    if ending == ".pth":
        torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in theirs.items()}},
                   tmp_path / "jobs" / "net.pth")  # fmt: skip
    else:
        save_file(theirs, tmp_path / "jobs" / f"net{ending}")
    (tmp_path / "jobs" / "job.yaml").write_text(f"model: {{name: small_cnn, width: 8, weights: net{ending}}}\n")
    job = load(tmp_path / "jobs" / "job.yaml")
    plan = Plan.make(job, synthetic())  # type: ignore[arg-type]
    assert torch.equal(plan.build_model().state_dict()["features.0.weight"], theirs["features.0.weight"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"name": "small_cnn", "width": 16},
            "features.0.weight is [16, 3, 3, 3] in the network and [8, 3, 3, 3] in the",
        ),
        (
            {"name": "cifar_resnet", "depth": 8},
            "stem.0.weight of the network is not in the weights, which have features.0",
        ),
    ],
)
def test_weights_of_another_shape_get_one_sentence(options: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    torch.save(models.build("small_cnn", 3, 5, {"width": 8}, seed=9).state_dict(), tmp_path / "net.pth")
    with pytest.raises(JobError, match=r"model\.weights") as caught:
        plan_of(model={**options, "weights": str(tmp_path / "net.pth")}).build_model()
    assert sentence in str(caught.value)


@pytest.mark.parametrize("name", ["densenet121", "googlenet", "vgg11_bn"])
def test_files_with_older_layer_names_fit_the_present_networks(name: str, hub: Path) -> None:
    """torchvision loads them with names changed and auxiliary heads dropped; so do we."""
    entry = pretrained._entry(name, "")
    options = {"aux_logits": True, "init_weights": False} if name == "googlenet" else {}
    theirs = models.find(name)[0](channels=3, outputs=1000, **options).state_dict()
    old = {key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.") if name == "densenet121" else key: value
           for key, value in theirs.items() if not key.endswith("num_batches_tracked")}  # fmt: skip
    torch.save(old, hub / entry.url.rpartition("/")[2])
    weights, classes = read_weights("pretrained", "", name)
    assert len(classes) == 1000
    model = models.build(name, 3, 3, {}, seed=0)
    assert not models.start_from(model, weights, ("a", "b", "c"), classes)
    first = next(key for key in theirs if key.endswith("weight"))
    assert torch.equal(model.state_dict()[first], theirs[first])
