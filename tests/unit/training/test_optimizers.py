"""Optimizers take the steps of their papers and originals, and all keep the rule about norms and biases."""

from __future__ import annotations

import io
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.training.conftest import job_of, plan_of
from torch import Tensor, nn, optim

from lehr.errors import JobError
from lehr.job import to_dict
from lehr.models.vision import torchvision
from lehr.own_code import OwnCodeError
from lehr.training.group import Group
from lehr.training.optimizers import OPTIMIZERS, build_optimizer, check_optimizer, groups_of, usual_rate
from lehr.training.optimizers.lamb import LAMB
from lehr.training.optimizers.lars import LARS
from lehr.training.optimizers.muon import hidden_matrices
from lehr.training.prepare import prepare_model
from lehr.training.train_step import TrainStep
from lehr.trust import give
from lehr.usual import USUAL, usual_of

MINE = """
import torch
from torch import optim

class Good(optim.SGD):
    def __init__(self, params, lr, weight_decay=0.0, beta: float = 0.5):
        super().__init__(params, lr=lr, weight_decay=weight_decay, momentum=beta)

class NoDecay(optim.SGD):
    def __init__(self, params, lr):
        super().__init__(params, lr=lr)

class Keeps(optim.SGD):  # keeps its rate and decay for itself
    def __init__(self, params, lr, weight_decay=0.0):
        self.lr, self.decay = lr, weight_decay
        super().__init__(params, lr=lr)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad, alpha=self.lr)

class Decays(Keeps):
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad + self.decay * p, alpha=group["lr"])

class Ready(Good):
    def __init__(self, params, lr=0.03, weight_decay=0.0):
        super().__init__(params, lr=lr, weight_decay=weight_decay)

class NoRate(optim.SGD):
    def __init__(self, params):
        super().__init__(params)

class Closure(optim.SGD):
    def step(self, closure):
        closure()

class Fails(Good):
    def step(self, closure=None):
        raise RuntimeError("not today")

class Unsaved(Good):
    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["odd"] = object()

def function(params, lr):
    return optim.SGD(params, lr=lr)
"""


@pytest.fixture
def _mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("mine", None)


def net() -> nn.Sequential:
    """Two convolutions, a norm and two linear layers; the last is the head."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.Identity()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(24, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def follow(optimizer: optim.Optimizer | list[optim.Optimizer], model: nn.Module, steps: int = 6) -> list[Tensor]:
    """The parameters after some steps on fixed batches."""
    several = optimizer if isinstance(optimizer, list) else [optimizer]
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        batch = torch.randn(16, 2, 4, 4, generator=generator, dtype=torch.float64)
        targets = torch.randint(0, 3, (16,), generator=generator)
        model.zero_grad()
        nn.functional.cross_entropy(model(batch), targets).backward()
        for each in several:
            each.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_lamb_takes_the_steps_of_its_paper() -> None:
    weight = torch.tensor([3.0, -4.0], dtype=torch.float64)
    found, gradients = (
        nn.Parameter(weight.clone()),
        [torch.tensor([0.5, 1.0]).double(), torch.tensor([-1.0, 0.2]).double()],
    )
    lamb = LAMB([found], lr=0.1, weight_decay=0.01, eps=1e-6)
    m, v = torch.zeros(2).double(), torch.zeros(2).double()
    for t, g in enumerate(gradients, 1):
        found.grad = g.clone()
        lamb.step()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        r = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-6) + 0.01 * weight
        weight = weight - 0.1 * weight.norm() / r.norm() * r
        torch.testing.assert_close(found.detach(), weight, rtol=1e-12, atol=0)


def test_lars_takes_the_steps_of_its_paper() -> None:
    weight = torch.tensor([3.0, -4.0], dtype=torch.float64)
    found, v = nn.Parameter(weight.clone()), torch.zeros(2).double()
    lars = LARS([found], lr=2.0, weight_decay=0.01, momentum=0.9, trust_coefficient=0.02)
    for g, rate in ((torch.tensor([0.5, 1.0]).double(), 2.0), (torch.tensor([-1.0, 0.2]).double(), 0.5)):
        found.grad, lars.param_groups[0]["lr"] = g.clone(), rate  # the rate of a step stays in the momentum
        lars.step()
        v = 0.9 * v + rate * 0.02 * weight.norm() / (g.norm() + 0.01 * weight.norm()) * (g + 0.01 * weight)
        weight = weight - v
        torch.testing.assert_close(found.detach(), weight, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["lamb", "lars"])
def test_zero_norms_have_the_ratio_one_and_no_nan(name: str) -> None:
    still, moved = nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(3))
    still.grad, moved.grad = torch.zeros(3), torch.ones(3)
    OPTIMIZERS[name]([still, moved], lr=0.1).step()  # type: ignore[call-arg]
    assert still.equal(torch.ones(3))
    assert torch.isfinite(moved).all()
    assert (moved < 0).all()


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("lamb", {"lr": 0.01}, {"lr": 0.01, "max_grad_norm": None, "always_adapt": True}),
        ("lars", {"lr": 1.0}, {"lr": 1.0, "momentum": 0.9, "always_adapt": True}),
    ],
)
def test_large_batch_optimizers_equal_those_of_timm(name: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    torchvision()
    timm = pytest.importorskip("timm.optim")
    one, other = net(), net()
    found = follow(OPTIMIZERS[name](one.parameters(), weight_decay=0.05, **ours), one)  # type: ignore[call-arg]
    wanted = follow(timm.get_optimizer_class(name)(other.parameters(), weight_decay=0.05, **theirs), other)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_muon_is_torch_s_muon_and_adamw_side_by_side(layout: torch.memory_format) -> None:
    model, by_hand = net().to(memory_format=layout), net()  # type: ignore[call-overload]
    job = job_of(optimizer={"name": "muon", "lr": 0.03, "weight_decay": 0.1, "adamw_lr": 0.003})
    optimizer = build_optimizer(job, model, outputs=3)
    for group in optimizer.param_groups:
        group["lr"] = 0.03 * group["share"]  # as the training loop sets it
    stem, kernel, middle, head = (by_hand.get_parameter(f"{i}.weight") for i in (0, 2, 6, 8))
    flat = nn.Parameter(kernel.detach().flatten(1))
    spared = [by_hand.get_parameter(name) for name in ("1.weight", *(f"{i}.bias" for i in (0, 1, 2, 6, 8)))]
    muon = optim.Muon([flat, middle], lr=0.03, weight_decay=0.1)
    adamw = optim.AdamW(
        [{"params": [stem, head], "weight_decay": 0.1}, {"params": spared, "weight_decay": 0.0}], lr=0.003
    )

    class Flattened(optim.Optimizer):
        def __init__(self) -> None:
            super().__init__([flat], {})

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            assert isinstance(kernel.grad, Tensor)
            flat.grad = kernel.grad.flatten(1)
            muon.step()
            kernel.data.copy_(flat.detach().view(kernel.shape))

    wanted = follow([Flattened(), adamw], by_hand)
    for a, b in zip(follow(optimizer, model), wanted, strict=True):
        if layout == torch.contiguous_format:
            assert a.equal(b)
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["lamb", "lars", "muon"])
def test_a_state_of_plain_tensors_continues_to_the_last_bit(name: str) -> None:
    def made() -> tuple[nn.Module, optim.Optimizer]:
        model = net()
        return model, build_optimizer(job_of(optimizer={"name": name, "weight_decay": 0.01}), model, outputs=3)

    model, optimizer = made()
    follow(optimizer, model, steps=3)
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
    saved = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    other, resumed = made()
    other.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["optimizer"])
    for a, b in zip(follow(optimizer, model), follow(resumed, other), strict=True):
        assert a.equal(b)


def test_muon_trains_hidden_matrices_and_adamw_the_rest() -> None:
    class Vision(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.words = nn.Parameter(torch.zeros(1, 1, 8)), nn.Embedding(5, 8)
            self.patches, self.attention = nn.Conv2d(1, 8, 2), nn.MultiheadAttention(8, 2)
            self.norm, self.mlp, self.head = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 3)
            self.tied = nn.Linear(8, 5)
            self.tied.weight = self.words.weight

    model = Vision()
    names = {name for name, p in model.named_parameters() if id(p) in hidden_matrices(model, model.head)}
    assert names == {"attention.in_proj_weight", "attention.out_proj.weight", "mlp.weight"}
    groups = groups_of(build_optimizer(job_of(optimizer="muon"), model, outputs=3), model)
    assert [(group.by, group.share) for group in groups] == [("Muon", 1.0), ("AdamW", 0.05)]
    assert sum(group.count for group in groups) == sum(p.numel() for p in model.parameters())
    with pytest.raises(JobError, match="muon refuses it: the network has no linear layer or convolution between"):
        build_optimizer(job_of(optimizer="muon"), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)), outputs=3)


def test_the_rate_of_adamw_beside_muon_follows_the_schedule_too() -> None:
    plan = plan_of(optimizer={"name": "muon", "lr": 0.02, "adamw_lr": 0.004}, schedule="linear")
    step = TrainStep(plan, prepare_model(plan, Group()), Group())
    step(plan.splits.train.gather(torch.arange(8)), 8, plan.length.total_steps // 2)
    rates = {group["trained_by"]: group["lr"] for group in step.optimizer.param_groups}
    assert rates == pytest.approx({"Muon": 0.01, "AdamW": 0.002})


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"rprop"}))
def test_a_step_without_gradient_moves_no_norm_and_no_bias(name: str) -> None:
    """Whatever decays weights spares them; all but Adafactor, which scales its step by the weights, also decay."""
    model = net().float()
    for parameter in model.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    build_optimizer(job_of(optimizer={"name": name, "weight_decay": 0.1}), model, outputs=3).step()
    moved = {key for key, value in model.named_parameters() if not torch.all(value == 1)}
    assert moved == {"0.weight", "2.weight", "6.weight", "8.weight"}


@pytest.mark.usefixtures("_mine")
def test_an_optimizer_of_one_s_own_trains_and_keeps_the_rule() -> None:
    plan = plan_of(optimizer={"name": "mine:Good", "lr": 0.1, "weight_decay": 0.1, "beta": 0.9})
    optimizer = build_optimizer(plan.job, net(), outputs=3)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert {group["momentum"] for group in optimizer.param_groups} == {0.9}


@pytest.mark.usefixtures("_mine")
@pytest.mark.parametrize(
    ("optimizer", "sentence"),
    [
        ({"name": "mine:Nothing"}, 'optimizer.name: "mine:Nothing" is not an optimizer: mine has no Nothing; it has'),
        ({"name": "nobody:X"}, 'optimizer.name: "nobody:X" is not an optimizer: there is no module nobody'),
        ({"name": "mine:function"}, 'optimizer.name: "mine:function" is not an optimizer; allowed: a class that'),
        ({"name": "mine:NoRate"}, 'optimizer.name: "mine:NoRate" takes no lr; allowed: a class that is called with'),
        ({"name": "mine:Closure"}, 'optimizer.name: "mine:Closure" evaluates the loss several times per step'),
        ({"name": "mine:Good", "betta": 1}, "optimizer.betta: unknown option; did you mean beta? allowed: beta, name"),
        ({"name": "mine:Good", "lr": 0.1, "beta": "a"}, 'optimizer.beta: "a" is not a number'),
        (
            {"name": "mine:Good"},
            "optimizer.lr: is missing: mine:Good has no usual learning rate, and its constructor no default; write "
            "optimizer.lr=0.001",
        ),
        ({"name": "mine:NoDecay", "weight_decay": 0.1}, "optimizer.weight_decay: mine:NoDecay has no weight decay"),
        ({"name": "mine:Keeps", "lr": 0.1}, "optimizer.name: mine:Keeps does not read lr of its param_groups, so"),
        (
            {"name": "mine:Decays", "lr": 0.1, "weight_decay": 0.1},
            "optimizer.weight_decay: mine:Decays does not read weight_decay of its param_groups, so norms and biases",
        ),
        ({"name": "muon", "momentun": 1}, "optimizer.momentun: unknown option; did you mean momentum?"),
        ({"name": "lamb", "betas": [2, 0.9]}, "optimizer: lamb refuses it: betas"),
        ({"name": "lars", "trust_coefficient": 0.0}, "optimizer: lars refuses it: trust_coefficient 0.0 is not"),
        ({"name": "timm/nothing"}, "optimizer.name: timm/nothing needs the library timm; install it with: pip install"),
    ],
)  # fmt: skip
def test_what_cannot_train_gets_one_sentence(
    optimizer: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    job = job_of(optimizer=optimizer)
    give(to_dict(job))

    def checked_and_built() -> None:
        check_optimizer(job)
        build_optimizer(job, net(), outputs=3)

    with pytest.raises(JobError) as caught:
        checked_and_built()
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_with_nothing_but_its_name_gets_the_rate_of_the_table(name: str) -> None:
    job = job_of(optimizer=name.upper())
    usual = USUAL[name]
    assert (job.optimizer.rate, usual_of(name)) == (usual.rate, usual)
    assert to_dict(job)["optimizer"]["lr"] == usual.rate  # recorded: the table may change, a run does not
    assert usual_rate(job.optimizer) == usual.rate
    pretrained = job_of(optimizer={"name": name, "lr": None}, model__weights="run:other")
    assert pretrained.optimizer.rate == usual.finetuning_with(pretrained.optimizer.options) <= usual.rate
    given = job_of(optimizer={"name": name, "lr": 0.5}, model__weights="run:other")
    assert given.optimizer.rate == 0.5


@pytest.mark.parametrize(("momentum", "rate"), [(None, 0.1), (0, 0.1), (0.5, 0.05), (0.9, 0.01), (0.99, 0.001)])
def test_pretrained_weights_move_as_far_whatever_the_momentum(momentum: float | None, rate: float) -> None:
    """The published rate for fine-tuning, 0.01, is one with a momentum of 0.9."""
    options = {} if momentum is None else {"momentum": momentum}
    job = job_of(optimizer={"name": "sgd", "lr": None, "momentum": 0.0, **options}, model__weights="run:other")
    assert job.optimizer.rate == pytest.approx(rate)
    in_stages = job_of(optimizer={"name": "sgd", "lr": None, **options}, model__weights="run:other", finetune={})
    assert in_stages.optimizer.rate == 0.01
    clipped = job_of(
        optimizer={"name": "sgd", "lr": None, "momentum": 0.0, **options},
        model__weights="run:other",
        finetune={},
        train__max_gradient_norm=1.0,
    )
    assert clipped.optimizer.rate == pytest.approx(rate), "clipped gradients cannot destroy the body as it begins"


def test_all_of_timm_have_a_usual_rate_but_those_that_cannot_train_here() -> None:
    torchvision()
    timm = pytest.importorskip("timm.optim")
    odd = [name for name in timm.list_optimizers() if not usual_of(f"timm/{name}")]
    assert not [name for name in odd if not name.startswith(("bnb", "fused", "adahessian"))]
    check_optimizer(job_of(optimizer="timm/sgd"))
    build_optimizer(job_of(optimizer="timm/sgd"), net(), outputs=3)  # Nesterov's momentum comes with it
    if not torch.cuda.is_available():
        with pytest.raises(JobError, match="timm/bnbadam cannot train here: CUDA required"):
            check_optimizer(job_of(optimizer="timm/bnbadam"))


@pytest.mark.usefixtures("_mine")
def test_an_optimizer_of_one_s_own_has_the_rate_of_its_constructor() -> None:
    job = job_of(optimizer="mine:Ready")
    give(to_dict(job))
    check_optimizer(job)
    assert to_dict(job)["optimizer"]["lr"] == 0.03
    said = "optimizer.lr is 0.03, the default of mine:Ready itself, since the job gives none"
    assert plan_of(optimizer="mine:Ready").notes == [said]
    assert not plan_of(optimizer={"name": "mine:Ready", "lr": 0.03}).notes
    assert not plan_of(optimizer="adam").notes


@pytest.mark.usefixtures("_mine")
def test_what_fails_or_cannot_be_saved_says_so(train_tiny: Any) -> None:
    with pytest.raises(OwnCodeError, match=r"mine:Fails failed: RuntimeError: not today at .*mine.py:\d+"):
        train_tiny(optimizer={"name": "mine:Fails", "lr": 0.1})
    with pytest.raises(Exception, match="the optimizer's state"):
        train_tiny(optimizer={"name": "mine:Unsaved", "lr": 0.1})


def test_an_optimizer_of_timm_trains_to_a_lower_loss(train_tiny: Any) -> None:
    torchvision()
    pytest.importorskip("timm")
    losses = train_tiny(optimizer={"name": "timm/lion"}, train__epochs=4).steps()["loss"].to_pylist()
    assert sum(losses[-4:]) < sum(losses[:4])
    with pytest.raises(JobError, match="timm/adahessian needs second derivatives"):
        check_optimizer(job_of(optimizer="timm/adahessian"))
    with pytest.raises(JobError, match='"timm/lionn" is not an optimizer; did you mean timm/lion'):
        check_optimizer(job_of(optimizer="timm/lionn"))
    assert math.isclose(job_of(optimizer={"name": "timm/lion", "lr": None}).optimizer.rate, 3e-4)
