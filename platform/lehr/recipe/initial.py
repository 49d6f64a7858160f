"""Step 1, the initial loss: before any training, does the network say what chance says, and can it learn at all?

The loss of a sound start is that of a guess, ln C for C classes (Karpathy, "A recipe for training neural networks",
2019). The same pass looks at what reaches the network, what comes out, and which layers a gradient reaches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lehr.data.dataset import UNREADABLE, Batch
from lehr.recipe.results import Result, Verdict, conclude, entropy, sample
from lehr.runs import RunFolder
from lehr.training.group import Group
from lehr.training.setup import Plan
from lehr.training.updates import network
from lehr.trials import TrialCallbacks

ROWS = 256  # images that are looked at, or the job's batch if that is smaller: it fits into memory
PROBES = 3  # updates of a copy, where weights begin at exactly zero: what is behind them then gets a gradient

HIGH = 3.0  # nats above a guess: worth a word, but networks with norms recover from it; ResNet-110 starts 4.6 above
SPREAD = 25.0  # of the logits: about 1 is usual, 10 the most of any sound network (MnasNet), and 57 a head times 100
FAR = 5.0  # an input's mean; normalised it is 0, and within 0 and 1 where pixels are only divided by 255
WIDE, FLAT = 10.0, 0.01  # an input's standard deviation; normalised it is 1
HALF = 0.2  # how far from a half the mean of fresh sigmoids lies at most
DEAD = 0.9  # share of a layer's inputs that are 0 for every image: about half is normal behind ReLUs
VANISHED = 1e-10  # gradient of a layer over that of all: layers scaled by 1e-6 on purpose stay far above

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


class Initial(Result):
    """What the network does before it is trained.

    Attributes:
        rows: images looked at. counts: training images of each class.
        loss: mean cross entropy, without smoothing or weights. accuracy: 0 to 1.
        pretrained: whether the weights come from another run.
        trainable: parameters that take a gradient. unregistered: lists of layers that torch does not see.
        first, last: the first and last layer with weights. normalises: whether the first one is a norm.
        input_mean, input_std: of what the first layer gets.
        output_min, output_max, output_mean, output_std: of the logits.
        output_sums: largest distance of a row's sum from 1.
        varies: whether different images give different logits. same_from: the first layer to which all look the same.
        dead: layers, and the share of their inputs that are 0 for every image.
        failed: why it could not even be measured.
        not_finite: the first layer whose output is NaN or infinite.
        layers: layers with weights that take a gradient. unreached: those that get none, or next to none.
    """

    rows: int = 0
    counts: tuple[int, ...] = ()
    failed: str = ""
    loss: float = math.nan
    accuracy: float = math.nan
    pretrained: bool = False
    trainable: int = 0
    unregistered: tuple[str, ...] = ()
    first: str = ""
    last: str = ""
    normalises: bool = False
    input_mean: float = 0.0
    input_std: float = 1.0
    output_min: float = 0.0
    output_max: float = 0.0
    output_mean: float = 0.0
    output_std: float = 0.0
    output_sums: float = math.inf
    varies: bool = True
    same_from: str = ""
    dead: tuple[tuple[str, float], ...] = ()
    not_finite: str = ""
    layers: int = 0
    unreached: tuple[str, ...] = ()

    @property
    def chance(self) -> float:
        """The loss of a network that gives every class the same share."""
        return math.log(len(self.counts))

    @property
    def guess(self) -> float:
        """The loss of one that gives every class the share it has of the training images."""
        return entropy(self.counts)


# ── the decision ────────────────────────────────────────────────────────────────────────────────────────────────────


def judge(r: Initial) -> Verdict:
    """Whether the network can be trained; if not, the most basic reason first."""
    if found := faults(r):
        return Verdict(False, f"{found[0]}.", "The recipe ends here: no learning rate can make up for this.")
    start = f"The loss before training is {r.loss:.3g}; a guess has ln {len(r.counts)} = {r.chance:.3g}"
    if abs(r.guess - r.chance) > 0.01:
        start += f", or {r.guess:.3g} where it knows how frequent the classes are"
    if r.loss < r.guess - _noise(r):
        start += ". It is lower because the weights come from another run"
    found_words = (
        f"{start}. Different images give different outputs, the first layer gets values with mean "
        f"{r.input_mean:.2f} and spread {r.input_std:.2f}, and a gradient reaches all {r.layers} layers"
    )
    if r.loss > r.chance + HIGH:
        found_words += (
            f". Note: the loss starts high, since the outputs are spread by {r.output_std:.2g} where about 1 would do; "
            f"a smaller start of the last layer, {r.last}, would spare the first steps"
        )
    if missing := [str(label) for label, count in enumerate(r.counts) if not count]:
        found_words += f". Note: no training image is of class number {', '.join(missing)}"
    return Verdict(True, f"{found_words}.", "The network is fit to be trained.")


def faults(r: Initial) -> list[str]:
    """Everything that is wrong with a start, the cause before what follows from it; empty for a sound one."""
    if r.failed:
        return [r.failed]
    found = []
    if not r.trainable:
        found.append(
            "No parameter takes a gradient, so the optimizer has nothing to train: every parameter of the model has "
            "requires_grad=False, or none is registered with torch"
        )
    if r.unregistered:
        names = ", ".join(r.unregistered)
        found.append(
            f"The layers in {names} are held in a plain list, which torch does not look into: they are not trained, "
            "moved or saved; hold them in an nn.ModuleList"
        )
    if not r.trainable:
        return found
    if not r.normalises and (abs(r.input_mean) > FAR or r.input_std > WIDE or (r.varies and r.input_std < FLAT)):
        found.append(
            f"The inputs are not normalised: the first layer, {r.first}, gets values with mean {r.input_mean:.3g} and "
            f"spread {r.input_std:.3g}, where it should be about 0 and 1. The images come normalised from the data, so "
            "the model scales them itself; take that out"
        )
    if r.not_finite:
        found.append(
            f"The outputs are NaN or infinite before any training, first in {r.not_finite}: its weights begin far too "
            "large, or it divides by zero"
        )
    if not math.isfinite(r.loss):
        return found or ["The loss is not a number before any training: the outputs are too large to take a loss of"]
    dead = [(name, share) for name, share in r.dead if share >= DEAD]
    if dead:
        name, share = dead[0]
        how = "all" if share >= 1 else f"{share:.0%}"
        found.append(
            f"Dead units: {how} of what reaches {name} is zero for every image, as behind ReLUs whose inputs are never "
            "positive; look at the biases and the initialization of the layer before it"
        )
    if not r.varies:
        where = f"; from {r.same_from} on nothing is left of the image" if r.same_from else ""
        found.append(f"The outputs are the same for every image{where}, so there is nothing to learn from")
    if r.output_min >= 0 and r.output_sums < 1e-3:
        found.append(
            "The outputs of every image are positive and add up to 1: the model ends in a softmax, and the loss "
            "applies its own, so it is applied twice; let the model return logits"
        )
    elif r.varies and r.output_min > 0 and r.output_max < 1 and abs(r.output_mean - 0.5) < HALF:
        found.append(
            "All outputs lie between 0 and 1, as behind a sigmoid; the loss takes logits of any size, so let the model "
            "return what comes before it"
        )
    if r.unreached:
        few = ", ".join(r.unreached[:3]) + (", …" if len(r.unreached) > 3 else "")
        found.append(
            f"No gradient reaches {few} ({len(r.unreached)} of {r.layers} layers): something between there and the "
            "loss cuts it off, such as detach(), no_grad() or an argmax, or the forward pass does not use it"
        )
    if r.loss > r.chance + HIGH and r.output_std > SPREAD:
        found.append(
            f"The loss starts at {r.loss:.3g} where a guess has ln {len(r.counts)} = {r.chance:.3g}: the outputs are "
            f"spread by {r.output_std:.3g} where about 1 would do, so the weights of the last layer, {r.last}, or of "
            f"those before it begin about {max(2.0, r.output_std):.0f} times too large"
        )
    if r.loss < r.guess - _noise(r) and not r.pretrained:
        found.append(
            f"The loss starts at {r.loss:.3g}, below the {r.guess:.3g} of a guess, before anything was learned: the "
            "inputs give the labels away, or the weights were trained before"
        )
    return found


def _noise(r: Initial) -> float:
    """How far chance alone takes the mean loss of so many images from its expectation: four standard errors of 1."""
    return max(4 * max(r.output_std, 0.1) / math.sqrt(r.rows), 0.05 * r.guess)


# ── the measurement ─────────────────────────────────────────────────────────────────────────────────────────────────


def initial_work(plan: Plan, run: RunFolder, group: Group, hooks: TrialCallbacks) -> None:
    """Measures a start on some training images; leaves `Initial` in the run folder."""
    result = measure(plan, group)
    verdict = judge(result)
    facts = {"loss": f"{result.loss:.3g}", "a guess has": f"{result.chance:.3g}"}
    conclude(run, group, result, verdict.found, facts)


def measure(plan: Plan, group: Group) -> Initial:
    """Looks at the network with its starting weights. Raises JobError where it does not fit the data."""
    model = network(plan, group)
    batch, rows = sample(plan, min(ROWS, max(2 * group.size, plan.job.train.batch_size)), group, "initial loss")
    counts = torch.bincount(plan.splits.train.labels, minlength=plan.task.outputs).tolist()
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    about: dict[str, Any] = {
        "rows": rows,
        "counts": counts,
        "pretrained": bool(plan.job.model.weights),
        "trainable": trainable,
        "unregistered": unregistered(model),
    }
    if not trainable:
        return Initial(**about)
    start = look(model, plan, batch, rows, group)
    now = start
    if start["unreached"] or not start["varies"]:
        # Some sound networks begin with a head or a branch of exactly zero: what is behind it learns a step later.
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        for _ in range(PROBES):
            optimizer.step()
            now = look(model, plan, batch, rows, group)
    kept = {name: start[name] for name in ("loss", "accuracy", "output_std", "not_finite", "dead")}
    return Initial(**about, **now | kept)


def look(model: nn.Module, plan: Plan, batch: Batch, rows: int, group: Group) -> dict[str, Any]:
    """One forward and backward pass; gradients are left on the parameters."""
    model.train()
    model.zero_grad(set_to_none=True)
    readable = batch.targets != UNREADABLE
    with watched(model) as seen:
        outputs = model(plan.inputs(batch.inputs)).to(plan.dtype)
    sums = plan.task.sums(outputs.detach(), batch.targets.where(readable, 0))
    known = outputs.detach()[readable].double()
    loss = plan.task.loss(outputs, batch.targets) / rows
    if loss.requires_grad:
        loss.backward()
    groups = layers_of(model)
    squares = [
        sum((p.grad.double().square().sum() for p in own if p.grad is not None), _zero(group))
        for own in groups.values()
    ]
    totals = torch.stack([*(sums[name].double() for name in ("loss", "correct")), *squares])
    lost, correct, *gradients = group.sum(totals).tolist()
    whole = math.sqrt(sum(gradients))
    return {
        "loss": lost / rows,
        "accuracy": correct / rows,
        "output_min": float(known.min()),
        "output_max": float(known.max()),
        "output_mean": float(known.mean()),
        "output_std": float((known - known.mean(1, keepdim=True)).std()),
        "output_sums": float((known.sum(1) - 1).abs().max()),
        "varies": bool((known.max(0).values - known.min(0).values).max() > 1e-6 * max(1.0, float(known.abs().max()))),
        "layers": len(groups),
        "unreached": [name for name, g in zip(groups, gradients, strict=True) if not math.sqrt(g) > VANISHED * whole],
        **seen,
    }


@contextmanager
def watched(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Fills a dictionary with what reaches the layers of a model during its next forward pass."""
    seen: dict[str, Any] = {"first": "", "last": "", "not_finite": "", "same_from": "", "dead": []}
    names = {module: f"{name or 'the model'} ({type(module).__name__})" for name, module in model.named_modules()}

    def before(module: nn.Module, args: tuple[Any, ...]) -> None:
        x = args[0].detach() if args and isinstance(args[0], Tensor) and args[0].is_floating_point() else None
        if x is None or x.dim() < 2:
            return
        if not seen["first"]:
            seen["first"], seen["normalises"] = names[module], isinstance(module, NORMS)
            seen["input_mean"], seen["input_std"] = float(x.double().mean()), float(x.double().std())
        elif isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            units = x.movedim(1 if isinstance(module, (nn.Conv1d, nn.Conv2d)) else -1, 0).flatten(1)
            if share := float((units == 0).all(1).double().mean()):
                seen["dead"].append((names[module], share))
        seen["last"] = names[module]
        if not seen["same_from"] and len(x) > 1 and bool((x == x[:1]).all()):
            seen["same_from"] = names[module]

    def after(module: nn.Module, args: Any, output: Any) -> None:
        if not seen["not_finite"] and isinstance(output, Tensor) and not bool(output.detach().isfinite().all()):
            seen["not_finite"] = names[module]

    leaves = [module for module in names if not list(module.children()) and list(module.parameters(False))]
    handles = [
        hook for leaf in leaves for hook in (leaf.register_forward_pre_hook(before), leaf.register_forward_hook(after))
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def layers_of(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The layers with weights of their own that take a gradient, by name."""
    found = {}
    for name, module in model.named_modules():
        if own := [p for p in module.parameters(recurse=False) if p.requires_grad]:
            found[f"{name or 'the model'} ({type(module).__name__})"] = own
    return found


def unregistered(model: nn.Module) -> list[str]:
    """Attributes that hold layers in a plain list, tuple or dictionary, where torch does not find them."""
    known = set(map(id, model.modules()))
    found = []
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
            if attribute.startswith("_") or not items:
                continue
            if any(isinstance(item, nn.Module) and id(item) not in known for item in items):
                found.append(".".join(filter(None, (name, attribute))))
    return found


def _zero(group: Group) -> Tensor:
    return torch.zeros((), dtype=torch.float64, device=group.device)
