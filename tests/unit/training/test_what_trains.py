"""Every optimizer, model family and precision trains: the loss falls, the model is written and read back."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.training.conftest import job_of, losses, plan_of, synthetic
from torch import nn

from lehr import models
from lehr.data.dataset import DataSubset
from lehr.errors import JobError
from lehr.result import Run
from lehr.runs import RunFolder
from lehr.training.group import Group
from lehr.training.loop import Diverged
from lehr.training.optimizers import OPTIMIZERS, REFUSED, build_optimizer, check_optimizer
from lehr.training.prepare import prepare_model
from lehr.training.setup import Plan, check_job

FLAT = """
from torch import nn

class Net(nn.Module):
    def __init__(self, channels, outputs):
        super().__init__()
        self.flat = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, outputs))
        self.flat(__import__("torch").zeros(2, channels, 12, 12))

    def forward(self, images):
        return self.flat(images)
"""
TrainTiny = Callable[..., RunFolder]

RATES = {"sgd": 0.1, "adadelta": 1.0, "adagrad": 0.02, "adafactor": 0.03, "rprop": 0.003, "asgd": 0.1, "lars": 0.1}


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_trains(name: str, train_tiny: TrainTiny) -> None:
    decay: dict[str, float] = {} if name == "rprop" else {"optimizer__weight_decay": 1e-4}
    if name == "lars":  # for a run of 16 steps
        decay["optimizer__trust_coefficient"] = 0.05
    run = train_tiny(
        optimizer={"name": name}, optimizer__lr=RATES.get(name, 0.01), train__epochs=4, model__norm="batch", **decay
    )
    found = losses(run)
    assert np.mean(found[-4:]) < 0.8 * np.mean(found[:4])


def test_optimizers_are_those_of_torch_in_any_spelling() -> None:
    known = {name.lower() for name in vars(torch.optim) if isinstance(getattr(torch.optim, name), type)}
    assert set(OPTIMIZERS) | set(REFUSED) == known - {"optimizer"} | {"lamb", "lars"}
    model = nn.Linear(2, 2)
    assert isinstance(build_optimizer(job_of(optimizer="AdamW"), model), torch.optim.AdamW)
    assert isinstance(build_optimizer(job_of(optimizer="RMSprop"), model), torch.optim.RMSprop)


@pytest.mark.parametrize(
    ("optimizer", "sentence"),
    [
        ({"name": "adm"}, 'optimizer.name: "adm" is not an optimizer; did you mean adam?'),
        ({"name": "LBFGS"}, "optimizer.name: LBFGS evaluates the loss several times per step"),
        ({"name": "SparseAdam"}, "optimizer.name: SparseAdam takes sparse gradients only"),
        ({"name": "adam", "momentum": 0.9}, "optimizer.momentum: unknown option; allowed: betas, eps"),
        ({"name": "sgd", "lrr": 0.1}, "optimizer.lrr: unknown option; did you mean lr? allowed: momentum, dampening"),
        ({"name": "adam", "amsgrad": 1}, "optimizer.amsgrad: 1 is not true or false"),
        ({"name": "rprop", "weight_decay": 0.1}, "optimizer.weight_decay: rprop has no weight decay; allowed: 0"),
        ({"name": "sgd", "scale_lr": {"warmup": "12step"}}, "optimizer.scale_lr.warmup: 12step is 12 steps, longer"),
    ],
)  # fmt: skip
def test_a_wrong_optimizer_gets_one_sentence(optimizer: dict[str, Any], sentence: str) -> None:
    with pytest.raises(JobError) as caught:
        plan_of(optimizer=optimizer)
    assert str(caught.value).startswith(sentence)


def test_a_value_that_torch_refuses_gets_one_sentence() -> None:
    job = job_of(optimizer={"name": "adam", "betas": [1.5, 0.9]})
    check_optimizer(job)
    with pytest.raises(JobError, match="optimizer: torch refuses it: Invalid beta parameter"):
        build_optimizer(job, nn.Linear(2, 2))


def test_norms_and_biases_do_not_decay_unless_asked_to() -> None:
    """A step with no gradient moves what decays, and only that."""

    def moved(**options: Any) -> set[str]:
        job = job_of(optimizer={"name": "sgd", "lr": 0.1, "weight_decay": 0.1, **options})
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.LayerNorm([8, 2, 2]))
        for parameter in model.parameters():
            nn.init.ones_(parameter)
            parameter.grad = torch.zeros_like(parameter)
        build_optimizer(job, model).step()
        return {name for name, value in model.named_parameters() if not torch.all(value == 1)}

    assert moved() == {"0.weight"}
    assert len(moved(decay_norms=True)) == 8
    assert moved(decay_norms=True, weight_decay=0.0) == set()


def test_the_linear_rule_scales_the_recorded_rate(train_tiny: TrainTiny) -> None:
    """Batches of 8 at a rate for batches of 2: four times the rate, after four steps of warmup."""
    run = train_tiny(optimizer={"name": "sgd", "lr": 0.01, "scale_lr": {"base_batch": 2, "warmup": "1ep"}})
    rates = run.steps()["learning_rate"].to_pylist()
    assert rates == pytest.approx([0.01, 0.0175, 0.025, 0.0325, 0.04, 0.04, 0.04, 0.04])


@pytest.mark.parametrize("precision", ["fp32", "fp64", "bf16", "fp16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_every_precision_and_layout_trains(precision: str, channels_last: bool, train_tiny: TrainTiny) -> None:
    run = train_tiny(
        train__precision=precision, train__channels_last=channels_last, train__epochs=5, model__norm="batch"
    )
    found = losses(run)
    assert all(math.isfinite(loss) for loss in found)
    assert np.mean(found[-4:]) < 0.6 * np.mean(found[:4])
    kind = torch.float64 if precision == "fp64" else torch.float32
    assert {value.dtype for value in Run(run).best_model().parameters()} == {kind}


def third_layer(plan: Plan) -> nn.Conv2d:
    layer = prepare_model(plan, Group()).get_submodule("features.3")
    assert isinstance(layer, nn.Conv2d)
    return layer


def test_a_layout_is_refused_where_nothing_is_laid_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flat.py").write_text(FLAT)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("flat", None)
    prepare_model(plan_of(model="flat:Net"), Group())
    what = "train.channels_last: has no effect on flat:Net, which has no convolution; write train.channels_last=auto"
    with pytest.raises(JobError, match=what):
        prepare_model(plan_of(model="flat:Net", train__channels_last=True), Group())


def test_channels_last_lays_out_the_weights_and_the_images() -> None:
    plan = plan_of(train__channels_last=True)
    assert third_layer(plan).weight.is_contiguous(memory_format=torch.channels_last)
    assert plan.inputs(torch.zeros(2, 3, 12, 12, dtype=torch.uint8)).is_contiguous(memory_format=torch.channels_last)
    usual = third_layer(plan_of(train__channels_last=False)).weight
    assert not usual.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("chosen", "shown"), [(True, "true"), ("reduce-overhead", "reduce-overhead")])
def test_compilation_without_a_compiler_is_one_sentence(
    chosen: bool | str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(JobError, match=rf"train\.compile: {shown} needs g\+\+ on every worker, and this one has none"):
        prepare_model(plan_of(train__compile=chosen), Group())


def test_workers_ask_for_unreadable_images_only_if_they_decode_lazily(
    train_tiny: TrainTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gather(self: Group, value: Any) -> list[Any]:
        asked.append(value)
        return [value]

    asked: list[Any] = []
    monkeypatch.setattr(Group, "gather", gather)
    train_tiny(train__epochs=2)
    assert asked == []
    monkeypatch.setattr(DataSubset, "decodes_lazily", True)
    train_tiny(train__epochs=2)
    assert asked == [{}, {}]


@pytest.mark.slow
def test_compilation_changes_no_name_and_no_number(train_tiny: TrainTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch's own frontend but without code generation, which would take a minute."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    monkeypatch.setenv("CXX", "not used")
    plain, compiled = train_tiny(model__norm="batch"), train_tiny(model__norm="batch", train__compile=True)
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-6)
    assert Run(compiled).best_model().state_dict().keys() == Run(plain).best_model().state_dict().keys()


@pytest.mark.parametrize("parts", [2, 4, 5])
def test_gradient_accumulation_equals_the_whole_batch(parts: int, train_tiny: TrainTiny) -> None:
    """In batches of 12 of 32 rows the last one has 8, which neither 5 parts nor some of its steps divide."""
    whole = train_tiny(train__batch_size=12, train__precision="fp64", train__clip=1.0)
    split = train_tiny(train__batch_size=12, train__precision="fp64", train__clip=1.0, train__accumulate=parts)
    assert losses(split) == pytest.approx(losses(whole), rel=1e-12)
    norms = [run.steps()["gradient_norm"].to_pylist() for run in (split, whole)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-10)
    for name, value in Run(whole).best_model().state_dict().items():
        torch.testing.assert_close(Run(split).best_model().state_dict()[name], value, rtol=1e-10, atol=1e-12)


def test_a_loss_that_explodes_but_stays_finite_stops_the_run_at_once(train_tiny: TrainTiny) -> None:
    message = r"the loss became [\d.]+e\+\d+ at step [12] \(epoch 1\) with learning rate 100; try a lower optimizer.lr"
    with pytest.raises(Diverged, match=message):
        train_tiny(optimizer__lr=100.0, model__norm="none", train__precision="fp64", train__epochs=50)


def test_balanced_sampling_trains_on_every_class_equally(train_tiny: TrainTiny) -> None:
    plan = plan_of(data__sampling="balanced")
    labels = plan.splits.train.labels[plan.sampler.order(0)]
    assert torch.bincount(labels).tolist() in ([11, 11, 10], [11, 10, 11], [10, 11, 11])
    assert losses(train_tiny(data__sampling="balanced")) != losses(train_tiny())


# ── models ──────────────────────────────────────────────────────────────────────────────────────────────────────────

FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("small_cnn", {"width": 8}),
    ("cifar_resnet", {"depth": 8, "width": 4}),
    ("resnet20", {"width": 4}),
    ("resnet9", {"width": 4}),
    ("wide_resnet", {"depth": 10, "width": 1, "dropout": 0.1}),
    ("shufflenet_v2_x0_5", {}),
    ("squeezenet1_1", {}),
    ("nets:Net", {"width": 6}),
]


@pytest.fixture
def _nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's own module."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code/nets.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, channels: int, outputs: int, width: int = 4) -> None:\n"
        "        super().__init__(nn.Conv2d(channels, width, 3), nn.BatchNorm2d(width), nn.ReLU(),\n"
        "                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, outputs))\n"
        "class Wrong(nn.Flatten):\n"
        "    pass\n"
        "def plain(outputs: int) -> nn.Module:\n"
        "    return nn.Sequential(nn.Flatten(), nn.LazyLinear(outputs))\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "code")


@pytest.mark.usefixtures("_nets")
@pytest.mark.parametrize(("name", "options"), FAMILIES)
def test_every_model_family_trains(name: str, options: dict[str, Any], train_tiny: TrainTiny) -> None:
    size = 32 if "net" in name else 12
    run = train_tiny(synthetic(24, channels=1, size=size), model={"name": name, **options}, train__epochs=1)
    assert all(math.isfinite(loss) for loss in losses(run))
    assert Run(run).predict(np.zeros((2, size, size, 1), np.uint8)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet9", 6.57),
        ("resnet20", 0.27),
        ("resnet56", 0.85),
        ("resnet110", 1.73),
        ("wrn_16_4", 2.75),
        ("wrn_28_10", 36.5),
    ],
)
def test_networks_have_as_many_weights_as_in_their_papers(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = models.build(name, 3, 10, {}, seed=0)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize(
    "name", ["resnet18", "vgg11_bn", "densenet121", "mobilenet_v3_small", "googlenet", "regnet_x_400mf"]
)
def test_classifiers_of_torchvision_accept_the_data(name: str) -> None:
    models.check(name, (1, 64, 64), 7, {})


def test_a_first_convolution_is_adapted_to_the_channels() -> None:
    with torch.device("meta"):
        two = models.build("resnet18", 2, 10, {}, seed=0)
    first = two.get_submodule("conv1")
    assert isinstance(first, nn.Conv2d)
    assert first.weight.shape == (64, 2, 7, 7)
    assert first.bias is None
    assert (first.stride, first.padding) == ((2, 2), (3, 3))


def test_weights_are_drawn_from_the_seed_and_nothing_else() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (models.build("resnet20", 3, 10, {}, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.get_parameter("head.weight"), other.get_parameter("head.weight"))


@pytest.mark.usefixtures("_nets")
@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("resnet21", 'model.name: "resnet21" is not a model; did you mean resnet'),
        ("resnet_18", 'model.name: "resnet_18" is not a model; did you mean resnet18?'),
        ("nets:Nett", 'model.name: "nets:Nett" is not a model: nets has no Nett; it has Net, Wrong, plain'),
        ("nest:Net", 'model.name: "nest:Net" is not a model: there is no module nest, neither beside the job file nor'),
        ("timm/resnet18", "model.name: timm/resnet18 needs the library timm; install it"),
        ({"name": "nets:Net", "widht": 3}, "model.widht: unknown option; did you mean width? allowed: width"),
        ({"name": "nets:Net", "width": "3"}, 'model.width: "3" is not a whole number'),
        ({"name": "nets:Net", "outputs": 3}, "model.outputs: unknown option; allowed: width"),
        ({"name": "resnet20", "depth": 21}, "model: depth: 21 layers are not a residual network; allowed: 8, 14"),
        ({"name": "wide_resnet", "dropout": 1.0}, "model: dropout: 1.0 is not a share"),
        ({"name": "resnet18", "widht": 3}, "model: torchvision cannot build it: ResNet.__init__() got an unexpected"),
        (
            {"name": "resnet18", "weights": "imagenet"},
            'model.weights: "imagenet" is not a valid weights reference; allowed: run:NAME',
        ),
        ({"name": "resnet18", "weights": "run:nobody"}, "model.weights: "),
        ("alexnet", "model: alexnet does not take images of 12 × 12 pixels with 3 channels: Given input size"),
    ],
)  # fmt: skip
def test_a_wrong_model_gets_one_sentence(model: Any, sentence: str) -> None:
    if model == "timm/resnet18" and __import__("importlib").util.find_spec("timm"):
        pytest.skip("timm is installed")
    with pytest.raises(JobError) as caught:
        plan_of(model=model)
    assert str(caught.value).startswith(sentence)


@pytest.mark.usefixtures("_nets")
def test_a_network_of_the_users_own_must_return_logits() -> None:
    with pytest.raises(JobError, match=r"model: nets:Wrong returns \[2, 432\] for 2 images; allowed: \[2, 3\]"):
        plan_of(model="nets:Wrong").build_model()
    assert plan_of(model="nets:plain").build_model()(torch.zeros(1, 3, 12, 12)).shape == (1, 3)


# ── weights of an earlier run ───────────────────────────────────────────────────────────────────────────────────────


def test_a_run_starts_from_the_weights_of_another(train_tiny: TrainTiny) -> None:
    first = train_tiny(model__norm="batch")
    job: dict[str, Any] = {
        "model__norm": "batch",
        "model__weights": f"run:{first.name}",
        "storage": str(first.folder.local_path.parent),
    }
    trained = Run(first).best_model().state_dict()
    again = plan_of(**job).build_model().state_dict()
    assert all(torch.equal(again[name], value) for name, value in trained.items())


def test_the_head_is_kept_only_for_the_same_classes(train_tiny: TrainTiny) -> None:
    first = train_tiny()
    trained = Run(first).best_model().state_dict()
    plan = plan_of(synthetic(classes=4), model__weights=f"run:{first.folder.local_path}")
    fresh, found = plan_of(synthetic(classes=4)).build_model().state_dict(), plan.build_model().state_dict()
    for name, value in found.items():
        assert torch.equal(value, fresh[name] if name.startswith("head") else trained[name]), name


def test_weights_of_another_network_are_refused(train_tiny: TrainTiny) -> None:
    first = train_tiny()
    reference = f"run:{first.folder.local_path}"
    with pytest.raises(JobError, match=r"model.weights: run:.* does not hold the weights of "):
        plan_of(model={"name": "resnet20", "weights": reference}).build_model()
    with pytest.raises(JobError, match=r"features.0.weight is \[16, 3, 3, 3\] in the network and \[8, 3, 3, 3\] in"):
        plan_of(model={"name": "small_cnn", "width": 16, "weights": reference}).build_model()


def test_an_unfinished_run_has_no_weights_to_start_from(tmp_path: Path) -> None:
    from lehr.job import to_dict
    from lehr.runs import Folder

    RunFolder.create(Folder.at(tmp_path / "runs/early"), to_dict(job_of()))
    with pytest.raises(JobError, match=r"model.weights: .*holds no finished model"):
        check_job(job_of(model__weights="run:early", storage=str(tmp_path / "runs")))


def test_a_run_says_that_few_images_want_the_head_first() -> None:
    said = "it is usually better to train the head first"
    plan = plan_of()
    few = replace(plan, job=job_of(model__weights="run:other"))
    assert any(said in note for note in few.notes)
    assert not any(said in note for note in plan.notes)
    assert not any(said in note for note in replace(few, job=job_of(model__weights="run:other", finetune={})).notes)
