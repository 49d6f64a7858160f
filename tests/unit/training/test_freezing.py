"""Fine-tuning: frozen weights do not change, every layer has its rate, and a resumed run trains the same layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support import records, weights
from tests.unit.training.conftest import plan_of, synthetic
from torch import Tensor, nn

from lehr import models
from lehr.durations import RunLength
from lehr.errors import JobError
from lehr.job import FinetuneSection, to_dict
from lehr.models.small_cnn import SmallCNN
from lehr.models.vision import torchvision
from lehr.runs import Folder, RunFolder
from lehr.training.freezing import Freezing, blocks, first_steps, rates
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.optimizers import build_optimizer
from lehr.training.prepare import prepare_model

TrainTiny = Callable[..., RunFolder]


def names(model: nn.Module, head: str) -> list[list[str]]:
    return [block.names for block in blocks(model, head)]


def test_a_network_below_its_head_is_a_list_of_blocks_from_the_image_up() -> None:
    assert names(SmallCNN(3, 4, width=8), "head") == [
        ["features.0", "features.1"],
        ["features.3", "features.4"],
        ["features.7", "features.8"],
    ]
    with torch.device("meta"):
        vision = torchvision().models
        assert names(vision.resnet18(), "fc") == [
            ["conv1", "bn1"],
            *([f"layer{stage}.{block}"] for stage in (1, 2, 3, 4) for block in (0, 1)),
        ]
        vit = blocks(vision.vit_b_16(), "heads.head")
        assert [block.names[0] for block in vit] == [
            "conv_proj",
            *(f"encoder.layers.encoder_layer_{layer}" for layer in range(12)),
        ]
        assert vit[-1].names[1:] == ["encoder.ln"]
        assert len(vit[0].loose) == 2  # class token and positions lie at the bottom


@pytest.mark.parametrize(
    ("model", "head"),
    [("resnet18", "fc"), ("vgg11_bn", "classifier.6"), ("densenet121", "classifier"), ("convnext_tiny", "classifier.2"),
     ("efficientnet_b0", "classifier.1"), ("mobilenet_v3_small", "classifier.3"), ("squeezenet1_1", "classifier.1"),
     ("swin_t", "head"), ("cifar_resnet", "head"), ("wide_resnet", "head")],
)  # fmt: skip
def test_every_parameter_below_the_head_is_in_exactly_one_block(model: str, head: str) -> None:
    with torch.device("meta"):
        net = models.build(model, 3, 7, {}, seed=0)
    assert models.head_of(net, 7) == head
    below = [id(parameter) for block in blocks(net, head) for parameter in block.parameters()]
    outside = {id(parameter) for parameter in net.get_submodule(head).parameters()}
    assert sorted(below) == sorted(id(parameter) for parameter in net.parameters() if id(parameter) not in outside)
    assert len(blocks(net, head)) >= 4


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1, 0.1, 0.1, 0.1]),
        ({"lr_factor": 1.0}, [1.0, 1.0, 1.0, 1.0]),
        ({"lr_factor": 0.5, "layer_decay": 0.5}, [0.0625, 0.125, 0.25, 0.5]),
        ({"lr_factor": 0.2, "layer_decay": 0.8}, [0.1024, 0.128, 0.16, 0.2]),
    ],
)
def test_rates_fall_from_the_top_to_the_image(options: dict[str, float], expected: list[float]) -> None:
    assert rates(FinetuneSection.model_validate(options), 4) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"head_first": "20%"}, [40, 40, 40]),
        ({"head_first": 0}, [0, 0, 0]),
        ({"head_first": "2ep"}, [20, 20, 20]),
        ({"head_first": "20ep", "unfreeze": "30ep"}, [80, 60, 40]),  # 20% and 10%: the run is shorter than expected
        ({"head_first": "10step", "unfreeze": "1ep"}, [30, 20, 10]),
        ({"head_first": "10step", "unfreeze": "1ep", "frozen": 2}, [None, None, 10]),
        ({"head_first": "100%"}, [200, 200, 200]),
    ],
)
def test_blocks_unfreeze_from_the_top(options: dict[str, Any], expected: list[int | None]) -> None:
    assert first_steps(FinetuneSection.model_validate(options), RunLength(10, 200), 3) == expected


def test_the_optimizer_has_each_layer_at_its_rate() -> None:
    """Three blocks at 0.5, 0.25 and 0.125 of the job's rate, the head at 1; norms and biases apart, without decay."""
    plan = plan_of(optimizer__weight_decay=0.1)
    model = prepare_model(plan, Group())
    freezing = Freezing(FinetuneSection(lr_factor=0.5, layer_decay=0.5, frozen=1), plan.length, model, "head")
    found = build_optimizer(plan.job, model, freezing.rates()).param_groups
    by_id = {id(parameter): name for name, parameter in model.named_parameters()}
    table = [(group["share"], group["weight_decay"], [by_id[id(p)] for p in group["params"]]) for group in found]
    assert table == [
        (1.0, 0.1, ["head.weight"]),
        (1.0, 0.0, ["head.bias"]),
        (0.5, 0.1, ["features.7.weight"]),
        (0.5, 0.0, ["features.8.weight", "features.8.bias"]),
        (0.25, 0.1, ["features.3.weight"]),
        (0.25, 0.0, ["features.4.weight", "features.4.bias"]),
    ]


# ── trainings ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def pretrained(train_tiny: TrainTiny) -> dict[str, Any]:
    """Options that start a job from a run with batch norm on other classes; a block is a convolution with its norm."""
    run = train_tiny(synthetic(classes=4), model__norm="batch")
    return {"model": {"name": "small_cnn", "width": 8, "norm": "batch", "weights": f"run:{run.folder.local_path}"}}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not name.startswith("head") and not torch.equal(before[name], after[name])}


NORM = {f"features.{layer}.{name}" for layer in (1, 4, 8) for name in ("running_mean", "running_var")}
COUNTS = {f"features.{layer}.num_batches_tracked" for layer in (1, 4, 8)}
ALL = {f"features.{layer}.weight" for layer in (0, 1, 3, 4, 7, 8)} | {f"features.{layer}.bias" for layer in (1, 4, 8)}


def of(layers: tuple[int, ...], among: set[str]) -> set[str]:
    return {name for name in among if int(name.split(".")[1]) in layers}


@pytest.mark.parametrize(
    ("finetune", "expected"),
    [
        ({"head_first": "100%"}, set()),
        ({"head_first": "100%", "batch_norm": "train"}, set()),
        ({"head_first": 0, "frozen": 3, "batch_norm": "train"}, set()),
        ({"head_first": 0}, ALL),
        ({"head_first": 0, "batch_norm": "train"}, ALL | NORM | COUNTS),
        ({"head_first": 0, "frozen": 2}, of((7, 8), ALL)),
        ({"head_first": 0, "frozen": 2, "batch_norm": "train"}, of((7, 8), ALL | NORM | COUNTS)),
        ({"head_first": "1ep", "unfreeze": "3step"}, of((3, 4, 7, 8), ALL)),
    ],
)
@pytest.mark.parametrize("averaging", [None, {"kind": "ema"}, {"kind": "swa", "start": "1ep"}])
def test_frozen_weights_do_not_change(
    finetune: dict[str, Any],
    averaging: dict[str, Any] | None,
    expected: set[str],
    pretrained: dict[str, Any],
    train_tiny: TrainTiny,
) -> None:
    """Neither by gradients, nor by weight decay and momentum, nor by an average, nor its running statistics."""
    decay = {"optimizer__weight_decay": 0.01, "optimizer__decay_norms": True}
    run = train_tiny(**pretrained, finetune=finetune, train__averaging=averaging, **decay)
    start = weights(RunFolder.open(pretrained["model"]["weights"].removeprefix("run:")))
    checkpoint = Folder.at(run.folder.local_path).child("checkpoints", "step-0000000008-0001")
    from lehr.runs.weights import unpack

    assert moved(start, unpack(checkpoint.read("model.safetensors"))) == expected
    if averaging and finetune.get("batch_norm") != "train":
        assert moved(start, unpack(checkpoint.read("average.safetensors"))) == expected


def test_a_resumed_run_trains_the_same_parameters_as_one_that_never_stopped(
    pretrained: dict[str, Any], tmp_path: Path
) -> None:
    """Stopped at every other step while blocks unfreeze one after the other: the same to the last digit."""
    finetune = {"head_first": "2step", "unfreeze": "2step", "layer_decay": 0.5, "batch_norm": "train"}
    plan = plan_of(
        **pretrained, finetune=finetune, optimizer__name="adam", optimizer__lr=0.01,
        train__checkpoint={"every": "1step", "keep": 9},
    )  # fmt: skip

    def new(name: str) -> RunFolder:
        return RunFolder.create(Folder.at(tmp_path / name), to_dict(plan.job))

    whole = new("whole")
    train(plan, whole, Group())
    broken, ended = new("broken"), "stopped"
    while ended == "stopped":
        calls = iter([None, "enough"])
        ended = train(plan, broken, Group(), partial(next, calls, "enough"))
    assert len(list((tmp_path / "broken" / "attempts").iterdir())) > 3
    assert [table.to_pylist() for table in records(whole)] == [table.to_pylist() for table in records(broken)]
    assert not moved(weights(whole), weights(broken))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"finetune": {"frozen": 4}}, "finetune: 4 blocks are more than the 3 below the head"),
        ({"finetune": {"lr_factor": 0}}, "finetune.lr_factor: 0 is too small"),
        ({"finetune": {"freeze": 1}}, "finetune.freeze: unknown field; did you mean unfreeze?"),
    ],
)
def test_a_wrong_finetune_gets_one_sentence(
    overrides: dict[str, Any], sentence: str, pretrained: dict[str, Any]
) -> None:
    def prepare() -> None:
        plan = plan_of(**pretrained, **overrides)
        plan.freezing(plan.build_model())

    with pytest.raises(JobError) as caught:
        prepare()
    assert str(caught.value).startswith(sentence)


def test_finetune_without_weights_gets_one_sentence() -> None:
    with pytest.raises(JobError, match=r"finetune needs pretrained weights, and model\.weights has none"):
        plan_of(finetune={"lr_factor": 0.1})
