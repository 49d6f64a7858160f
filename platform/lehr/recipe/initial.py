"""Step 1, the initial loss: before any training, is the loss at chance level, and can the network learn at all?

The initial loss of a sound network is that of a random guess, ln C for C classes (Karpathy, "A recipe for training
neural networks", 2019). The same pass checks what reaches the network, what comes out, and which layers get a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lehr.data.dataset import UNREADABLE, Batch
from lehr.recipe.measurement import entropy, finish, fixed_sample, loss_of_a_guess
from lehr.recipe.results import Result, Verdict
from lehr.runs import RunFolder
from lehr.tasks.losses import LOSSES
from lehr.training.group import Group
from lehr.training.prepare import prepare_model
from lehr.training.setup import Plan
from lehr.trials import TrialCallbacks

ROWS = 256  # images that are looked at, or the job's batch size if that is smaller: a batch fits into memory
PROBES = 3  # updates if some weights start at exactly zero: the layers behind them then get a gradient

HIGH = 3.0  # nats above a guess: worth a note, but networks with norms recover from it; ResNet-110 starts 4.6 above
SPREAD = 25.0  # standard deviation of the logits: usually about 1, at most 10 in sound networks (MnasNet), 57 if the
# head starts 100 times too large
FAR = 5.0  # mean of the inputs: 0 when normalised, between 0 and 1 when pixels are only divided by 255
WIDE, FLAT = 10.0, 0.01  # standard deviation of the inputs: 1 when normalised
HALF = 0.2  # largest distance of the mean of untrained sigmoids from 0.5
DEAD = 0.9  # share of a layer's inputs that are 0 for every image: about half is normal after ReLUs
VANISHED = 1e-10  # gradient of a layer relative to all: layers scaled by 1e-6 on purpose stay far above

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


class InitialCheck(Result):
    """What the network does before any training.

    Attributes:
        rows: images looked at. counts: training images of each class.
        loss: the mean loss, without label smoothing or class weights. accuracy: 0 to 1.
        minimised: the name of the loss. chance_loss: its value for outputs that are all zero. guess_loss: for the best
            guess that looks at no image. Both are NaN for cross entropy.
        pretrained: whether the weights come from another run.
        trainable: number of parameters that require a gradient. unregistered: lists of layers that torch does not see.
        first, last: the first and last layer with weights. normalises: whether the first one is a norm.
        input_mean, input_std: of the first layer's inputs.
        output_min, output_max, output_mean, output_std: of the logits.
        output_sums: largest distance from 1 of the sum of an image's logits.
        varies: whether different images give different logits. same_from: the first layer that gets the same inputs for
            every image.
        dead: (layer, share of its inputs that are 0 for every image).
        failed: why the measurement failed.
        not_finite: the first layer whose output is NaN or infinite.
        layers: number of layers with weights that require a gradient. unreached: those that get none, or almost none.
        frozen: layers none of whose weights require a gradient, by name.
    """

    rows: int = 0
    counts: tuple[int, ...] = ()
    failed: str = ""
    loss: float = math.nan
    accuracy: float = math.nan
    minimised: str = "cross_entropy"
    chance_loss: float = math.nan
    guess_loss: float = math.nan
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
    frozen: tuple[str, ...] = ()

    @property
    def chance(self) -> float:
        """The loss of guessing every class with the same probability."""
        return math.log(len(self.counts)) if self.minimised == "cross_entropy" else self.chance_loss

    @property
    def guess(self) -> float:
        """The loss of guessing every class with its share of the training images."""
        return entropy(self.counts) if self.minimised == "cross_entropy" else self.guess_loss

    @property
    def known(self) -> bool:
        """Whether the loss is one of lehr's own, of which it is known how large it should be, and of what outputs."""
        return self.minimised in LOSSES

    @property
    def chance_in_words(self) -> str:
        about = f"ln {len(self.counts)} = " if self.minimised == "cross_entropy" else ""
        return f"{about}{self.chance:.3g}"


# ── the decision ────────────────────────────────────────────────────────────────────────────────────────────────────


def judge(r: InitialCheck) -> Verdict:
    """Whether the network can be trained; if not, the most basic cause."""
    if found := faults(r):
        return Verdict(False, f"{found[0]}.", "The recipe stops here: no learning rate can compensate for this.")
    text = f"The loss before training is {r.loss:.3g}; a random guess gives {r.chance_in_words}"
    if abs(r.guess - r.chance) > 0.01:
        text += f", or {r.guess:.3g} if it knows how frequent the classes are"
    if r.known and r.loss < r.guess - _noise(r):
        text += ". It is lower because the weights come from another run"
    text += (
        f". Different images give different outputs, the inputs of the first layer have mean {r.input_mean:.2f} and "
        f"standard deviation {r.input_std:.2f}, and {_trained_layers(r)}"
    )
    if r.known and r.loss > r.chance + HIGH:
        text += (
            f". Note: the loss starts high, because the outputs have a standard deviation of {r.output_std:.2g} where "
            f"about 1 is usual; initialise the last layer, {r.last}, smaller to save the first steps"
        )
    if r.frozen:
        few = ", ".join(r.frozen[:3]) + (", …" if len(r.frozen) > 3 else "")
        text += (
            f". Note: {few} {'stays' if len(r.frozen) == 1 else 'stay'} as initialized: requires_grad is False there"
        )
    if missing := [str(label) for label, count in enumerate(r.counts) if not count]:
        text += f". Note: there is no training image of class {', '.join(missing)}"
    return Verdict(True, f"{text}.", "The network is ready to be trained.")


def faults(r: InitialCheck) -> list[str]:
    """Everything that is wrong with the untrained network, causes before their effects; empty if it is sound."""
    if r.failed:
        return [r.failed]
    found = []
    if not r.trainable:
        found.append(
            "No parameter requires a gradient, so the optimizer has nothing to train: every parameter of the model has "
            "requires_grad=False, or none is registered with torch"
        )
    if r.unregistered:
        names = ", ".join(r.unregistered)
        found.append(
            f"The layers in {names} are kept in a plain list, tuple or dictionary, where torch does not find them: "
            "they are not trained, moved to the device or saved; keep them in an nn.ModuleList or nn.ModuleDict"
        )
    if not r.trainable:
        return found
    if not r.normalises and (abs(r.input_mean) > FAR or r.input_std > WIDE or (r.varies and r.input_std < FLAT)):
        found.append(
            f"The inputs are not normalised: those of the first layer, {r.first}, have mean {r.input_mean:.3g} and "
            f"standard deviation {r.input_std:.3g}, which should be about 0 and 1. The images are normalised before "
            "they reach the model, so the model scales them itself; remove that"
        )
    if r.not_finite:
        found.append(
            f"The outputs are NaN or infinite before any training, first in {r.not_finite}: its initial weights are "
            "far too large, or it divides by zero"
        )
    if not math.isfinite(r.loss):
        return found or ["The loss is NaN or infinite before any training: the outputs are too large for it"]
    dead = [(name, share) for name, share in r.dead if share >= DEAD]
    if dead:
        name, share = dead[0]
        how = "all" if share >= 1 else f"{share:.0%}"
        found.append(
            f"Dead units: {how} of the inputs of {name} are zero for every image, as after ReLUs that are never "
            "active; check the biases and the initialization of the layer before it"
        )
    if not r.varies:
        where = f": from {r.same_from} on, all images look the same" if r.same_from else ""
        found.append(f"The outputs are the same for every image{where}, so there is nothing to learn from")
    if not r.known:
        pass  # it may be meant for probabilities
    elif r.output_min >= 0 and r.output_sums < 1e-3:
        found.append(
            "The outputs for every image are positive and sum to 1: the model ends in a softmax, and the loss has its "
            "own, so softmax is applied twice; let the model return logits"
        )
    elif r.varies and r.output_min > 0 and r.output_max < 1 and abs(r.output_mean - 0.5) < HALF:
        found.append(
            "All outputs lie between 0 and 1, as after a sigmoid; the loss expects logits of any size, so let the "
            "model return its outputs without the sigmoid"
        )
    if r.unreached:
        few = ", ".join(r.unreached[:3]) + (", …" if len(r.unreached) > 3 else "")
        them = "it" if len(r.unreached) == 1 else "them"
        found.append(
            f"No gradient reaches {few} ({len(r.unreached)} of {r.layers} layers): something between there and the "
            f"loss blocks it, such as detach(), no_grad() or an argmax, or the forward pass does not use {them}"
        )
    if r.known and r.loss > r.chance + HIGH and r.output_std > SPREAD:
        found.append(
            f"The loss starts at {r.loss:.3g}, where a random guess gives {r.chance_in_words}: the "
            f"outputs have a standard deviation of {r.output_std:.3g} where about 1 is usual, so the initial weights "
            f"of the last layer, {r.last}, or of the layers before it are about {max(2.0, r.output_std):.0f} times too "
            "large"
        )
    if r.known and r.loss < r.guess - _noise(r) and not r.pretrained:
        found.append(
            f"The loss starts at {r.loss:.3g}, below the {r.guess:.3g} of a guess, before anything was learned: the "
            "inputs reveal the labels, or the weights were trained before"
        )
    return found


def _trained_layers(r: InitialCheck) -> str:
    """How many layers of how many are trained."""
    if not r.frozen:
        return f"all {r.layers} layers get a gradient"
    return f"{r.layers} of {r.layers + len(r.frozen)} layers are trained and get a gradient"


def _noise(r: InitialCheck) -> float:
    """How far the mean loss may lie from its expectation by chance: about four standard errors."""
    return max(4 * max(r.output_std, 0.1) / math.sqrt(r.rows), 0.05 * r.guess)


# ── the measurement ─────────────────────────────────────────────────────────────────────────────────────────────────


def check_initial_loss(plan: Plan, run: RunFolder, group: Group, callbacks: TrialCallbacks) -> None:
    """Measures the untrained network on some training images; leaves an `InitialCheck` in the run folder."""
    result = measure(plan, group)
    verdict = judge(result)
    facts = {"loss": f"{result.loss:.3g}", "random guess": f"{result.chance:.3g}"}
    finish(run, group, result, verdict.found, facts)


def measure(plan: Plan, group: Group) -> InitialCheck:
    """Measures the network with its initial weights. Raises JobError where it does not fit the data."""
    model = prepare_model(plan, group)
    batch, rows = fixed_sample(plan, min(ROWS, max(2 * group.size, plan.job.train.batch_size)), group, "initial loss")
    counts = plan.splits.train.class_counts().tolist()
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    about: dict[str, Any] = {
        "rows": rows,
        "counts": counts,
        "pretrained": bool(plan.job.model.weights),
        "trainable": trainable,
        "unregistered": unregistered(model),
        "frozen": frozen_layers(model),
        "minimised": plan.job.loss.name,
    }
    if plan.job.loss.name != "cross_entropy":
        about |= {"chance_loss": plan.chance_loss, "guess_loss": loss_of_a_guess(plan, counts)}
    if not trainable:
        return InitialCheck(**about)
    start = probe(model, plan, batch, rows, group)
    now = start
    if start["unreached"] or not start["varies"]:
        # Some sound networks start with a head or a branch of exactly zero: the layers behind it learn one step later.
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        for _ in range(PROBES):
            optimizer.step()
            now = probe(model, plan, batch, rows, group)
    kept = {name: start[name] for name in ("loss", "accuracy", "output_std", "not_finite", "dead")}
    return InitialCheck(**about, **now | kept)


def probe(model: nn.Module, plan: Plan, batch: Batch, rows: int, group: Group) -> dict[str, Any]:
    """What one forward and backward pass shows; the gradients stay on the parameters."""
    model.train()
    model.zero_grad(set_to_none=True)
    readable = batch.targets != UNREADABLE
    with observe_layers(model) as seen:
        outputs = model(plan.inputs(batch.inputs)).to(plan.dtype)
    sums = plan.task.sums(outputs.detach(), batch.targets.where(readable, 0))
    known = outputs.detach()[readable].double()
    loss = plan.task.loss(outputs, batch.targets) / rows
    if loss.requires_grad:
        torch.autograd.backward(loss)
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
def observe_layers(model: nn.Module) -> Iterator[dict[str, Any]]:
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
    """The parameters that require a gradient, by the layer that owns them."""
    found = {}
    for name, module in model.named_modules():
        if own := [p for p in module.parameters(recurse=False) if p.requires_grad]:
            found[f"{name or 'the model'} ({type(module).__name__})"] = own
    return found


def frozen_layers(model: nn.Module) -> list[str]:
    """The layers with weights of which none requires a gradient."""
    return [
        f"{name or 'the model'} ({type(module).__name__})"
        for name, module in model.named_modules()
        if (own := list(module.parameters(recurse=False))) and not any(p.requires_grad for p in own)
    ]


def unregistered(model: nn.Module) -> list[str]:
    """Attributes that keep layers in a plain list, tuple or dictionary, where torch does not find them."""
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
