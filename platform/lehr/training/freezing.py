"""Fine-tuning: which layers train from which step, and at which rate. Pure functions of the job and the step.

The network below its head is a list of blocks, from the bottom (next to the image) to the top. There is no state to
save: a resumed run asks about its step again, and trains exactly the same parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from lehr.durations import Duration, RunLength
from lehr.job import FinetuneSection
from lehr.schedules import TENTH, fit

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
HEAD_FIRST = Duration(20, "%")
_CONTAINERS = (nn.Sequential, nn.ModuleList)


@dataclass
class Block:
    """Layers that are frozen and trained together.

    Attributes:
        names: the layers' names in the network.
        modules: the layers.
        loose: parameters that belong to no layer, such as a class token.
    """

    names: list[str] = field(default_factory=list)
    modules: list[nn.Module] = field(default_factory=list)
    loose: list[nn.Parameter] = field(default_factory=list)

    def parameters(self) -> Iterator[nn.Parameter]:
        yield from self.loose
        for module in self.modules:
            yield from module.parameters()


def blocks(model: nn.Module, head: str) -> list[Block]:
    """The network below its head as blocks, from the bottom to the top, in the order in which its layers are defined.

    Containers, modules that contain the head, and a module with more than half of all parameters (the encoder of a
    transformer) are split into their children; any other module is one block. A norm joins the layer before it, loose
    parameters join the lowest block.
    """
    top = model.get_submodule(head)
    most = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in top.parameters())
    found: list[Block] = []
    loose: list[nn.Parameter] = []

    def visit(module: nn.Module, path: str) -> None:
        loose.extend(module.parameters(recurse=False))
        for name, child in module.named_children():
            inner = f"{path}.{name}" if path else name
            if child is top or not any(True for _ in child.parameters()):
                continue
            splits = isinstance(child, _CONTAINERS) or any(module is top for module in child.modules())
            large = 2 * sum(p.numel() for p in child.parameters()) > most and any(True for _ in child.children())
            if splits or large:
                visit(child, inner)
            elif isinstance(child, _NORMS) and found:
                found[-1].names.append(inner)
                found[-1].modules.append(child)
            else:
                found.append(Block([inner], [child]))

    visit(model, "")
    if loose:
        found = found or [Block()]
        found[0].loose = loose
    return found


def rates(section: FinetuneSection, count: int) -> list[float]:
    """The learning rate of each of `count` blocks, from the bottom, as a share of the head's.

    The topmost has `rate`, each below it `decay` times the one above: discriminative fine-tuning, Howard and Ruder,
    "Universal language model fine-tuning for text classification", 2018.
    """
    return [section.lr_factor * section.layer_decay ** (count - 1 - block) for block in range(count)]


def first_steps(section: FinetuneSection, length: RunLength, count: int) -> list[int | None]:
    """The step from which each of `count` blocks trains, from the bottom; None for those that never do."""
    begin = fit(section.head_first, HEAD_FIRST, length).steps(length)
    every = fit(section.unfreeze, TENTH, length).steps(length)
    return [None if block < section.frozen else begin + (count - 1 - block) * every for block in range(count)]


class Freezing:
    """The blocks of one network, and when each of them trains.

    Attributes:
        blocks: from the bottom to the top.
    """

    def __init__(self, section: FinetuneSection, length: RunLength, model: nn.Module, head: str) -> None:
        """Raises ValueError when more blocks are to be frozen than there are, or the run ends before one trains."""
        self.blocks = blocks(model, head)
        if section.frozen > len(self.blocks):
            raise ValueError(f"{section.frozen} blocks are more than the {len(self.blocks)} below the head")
        if section.head_first.unit == "step" and section.head_first.steps(length) >= length.total_steps:
            what = f"head_first {section.head_first} is not shorter than the run of {length.total_steps} steps"
            raise ValueError(f"{what}; allowed: finetune.head_first=20%, or 100% to train the head alone")
        self._first = first_steps(section, length, len(self.blocks))
        self._rates = rates(section, len(self.blocks))
        fixed = section.batch_norm == "frozen"
        below = (module for block in self.blocks for layer in block.modules for module in layer.modules())
        self._statistics = [module for module in below if fixed and isinstance(module, _NormBase)]
        self._now: list[bool] | None = None

    def rates(self) -> dict[nn.Parameter, float]:
        """The rate of every parameter below the head as a share of the job's; 0 for those that never train."""
        shares = [0.0 if first is None else rate for first, rate in zip(self._first, self._rates, strict=True)]
        of_blocks = zip(reversed(self.blocks), reversed(shares), strict=True)  # a shared parameter has the lowest one's
        return {parameter: share for block, share in of_blocks for parameter in block.parameters()}

    def trained(self, steps: int) -> list[Block]:
        """The blocks below the head that the first `steps` steps of the run train."""
        return [
            block for block, first in zip(self.blocks, self._first, strict=True) if first is not None and first < steps
        ]

    def apply(self, model: nn.Module, step: int) -> bool:
        """Sets each layer's mode for training at `step`; returns whether other parameters now require a gradient.

        Call it before every step: evaluation leaves every layer in training mode.
        """
        now = [first is not None and step >= first for first in self._first]
        model.train()
        for block, trains in zip(self.blocks, now, strict=True):
            for module in block.modules:
                module.train(trains)
        for norm in self._statistics:
            norm.eval()
        if now == self._now:
            return False
        for block, trains in zip(self.blocks, now, strict=True):
            for parameter in block.parameters():
                parameter.requires_grad_(trains)
        self._now = now
        return True
