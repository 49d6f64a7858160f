"""What each optimizer is usually given: one table, for the defaults of a training, the recipe and what it is advised.

A rate is right for weights that start at random, or (`finetuning`) from pretrained ones, in batches of about a hundred
images. Each line says where its values are from. What the rates cost against the best one of a sweep is measured by
`tests/benchmarks/usual_rates.py`, from scratch, and stands in the guide of the optimizers. Rates for fine-tuning are a
tenth of those, as Kornblith et al., "Do better ImageNet models transfer better?", 2019, found for SGD with a momentum
of 0.9; SGD without momentum moves weights as far at ten times that, which is its rate from scratch. On photographs,
`tests/benchmarks/photographs.py` measures what it is worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any


@dataclass(frozen=True)
class Usual:
    """Values that an optimizer is usually given.

    Attributes:
        rate: the learning rate of a training from scratch.
        finetuning: the learning rate of weights that were trained before; see `of_pretrained`.
        decay: the weight decay that is tried first, where some is wanted. A job has none by itself.
        source: of these values.
        options: without which it cannot be made; a job gets them.
        momentum: that `finetuning` is meant for, where the optimizer takes one.
    """

    rate: float
    finetuning: float
    decay: float
    source: str
    options: Mapping[str, Any] = field(default_factory=dict)
    momentum: float | None = None

    def of_pretrained(self, options: Mapping[str, Any], *, head_first: bool, clipped: bool) -> float:
        """The learning rate of pretrained weights.

        Where the body begins after its head, its first gradients may be a hundred times as large as those before:
        unless they are clipped, the lower rate of the table is the safe one, whatever the momentum.
        """
        return self.finetuning if head_first and not clipped else self.finetuning_with(options)

    def finetuning_with(self, options: Mapping[str, Any]) -> float:
        """The learning rate of pretrained weights with these options of the optimizer.

        A gradient that stays the same moves weights by rate / (1 - momentum) a step in the end. With another momentum
        than that of the source, such as none, the rate is the one that moves them as far.
        """
        given = options.get("momentum", 0.0)
        if self.momentum is None or isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given < 1:
            return self.finetuning
        return float(f"{self.finetuning * (1 - given) / (1 - self.momentum):.3g}")


_MOMENTUM = {"momentum": 0.9}  # timm's SGD is Nesterov's, which torch refuses without

USUAL: dict[str, Usual] = {
    "sgd": Usual(
        0.1,
        0.01,
        5e-4,
        "He et al. 2016; fine-tuning, with momentum: Kornblith et al. 2019; decay: Zagoruyko et al. 2016",
        momentum=0.9,
    ),
    "asgd": Usual(0.1, 0.1, 5e-4, "as SGD without momentum, of which it is the average: Polyak and Juditsky 1992"),
    "adam": Usual(1e-3, 1e-4, 1e-4, "Kingma and Ba 2015"),
    "adamw": Usual(1e-3, 1e-4, 0.05, "Loshchilov and Hutter 2019; decay: Touvron et al. 2021, Liu et al. 2022"),
    "adamax": Usual(2e-3, 2e-4, 1e-4, "Kingma and Ba 2015; torch"),
    "nadam": Usual(2e-3, 2e-4, 1e-4, "Dozat 2016; torch"),
    "radam": Usual(3e-3, 3e-4, 1e-4, "Liu et al. 2020, where 0.003 to 0.1 do alike on CIFAR-10"),
    "rmsprop": Usual(1e-3, 1e-4, 1e-4, "Tieleman and Hinton 2012"),
    "rprop": Usual(1e-3, 1e-4, 0.0, "Riedmiller and Braun 1993"),
    "adagrad": Usual(1e-2, 1e-3, 1e-4, "Duchi et al. 2011; torch"),
    "adadelta": Usual(1.0, 0.1, 1e-4, "Zeiler 2012; torch"),
    "adafactor": Usual(1e-2, 1e-3, 1e-4, "Shazeer and Stern 2018; torch"),
    "muon": Usual(0.02, 2e-3, 0.01, "Jordan et al. 2024"),
    "lamb": Usual(5e-3, 5e-4, 0.01, "You et al. 2020, batches of 512"),
    "lars": Usual(1.0, 0.1, 5e-4, "You et al. 2017"),
}
"""By lower-case name, of the optimizers of torch and lehr."""

TIMM: dict[str, Usual] = {
    "adabelief": Usual(1e-3, 1e-4, 1e-4, "Zhuang et al. 2020; timm"),
    "adafactorbv": Usual(1e-3, 1e-4, 1e-4, "Zhai et al. 2022"),
    "adamp": Usual(1e-3, 1e-4, 0.01, "Heo et al. 2021; timm"),
    "adan": Usual(1e-3, 1e-4, 0.02, "Xie et al. 2022; timm"),
    "adopt": Usual(1e-3, 1e-4, 1e-4, "Taniguchi et al. 2024; timm"),
    "kron": Usual(1e-3, 1e-4, 1e-4, "timm"),
    "laprop": Usual(4e-4, 4e-5, 1e-4, "Ziyin et al. 2020; timm"),
    "lion": Usual(3e-4, 3e-5, 0.3, "Chen et al. 2023: a tenth to a third of Adam's rate, three to ten times its decay"),
    "madgrad": Usual(1e-2, 1e-3, 1e-4, "Defazio and Jelassi 2021; timm"),
    "mars": Usual(3e-3, 3e-4, 0.01, "Yuan et al. 2024; timm"),
    "nadamw": Usual(1e-3, 1e-4, 0.05, "Dozat 2016; Loshchilov and Hutter 2019; timm"),
    "novograd": Usual(1e-3, 1e-4, 1e-3, "Ginsburg et al. 2019; timm"),
    "sgd": Usual(0.1, 0.01, 5e-4, "as torch's SGD, with Nesterov's momentum", _MOMENTUM, momentum=0.9),
    "sgdp": Usual(0.1, 0.01, 5e-4, "Heo et al. 2021", momentum=0.9),
    "momentum": Usual(0.1, 0.01, 5e-4, "as torch's SGD"),
    "nesterov": Usual(0.1, 0.01, 5e-4, "as torch's SGD", _MOMENTUM, momentum=0.9),
    "larc": Usual(1.0, 0.1, 5e-4, "as LARS, never above the rate of SGD"),
    "nlars": Usual(1.0, 0.1, 5e-4, "as LARS, with Nesterov's momentum", _MOMENTUM),
    "nlarc": Usual(1.0, 0.1, 5e-4, "as LARC, with Nesterov's momentum", _MOMENTUM),
}
"""Of timm's, where they are others than those of the same name above. Without the prefix `timm/`."""


def usual_of(name: str) -> Usual | None:
    """What an optimizer is usually given; None for one that is not in the table. The case of letters does not count."""
    name = name.lower()
    if not name.startswith("timm/"):
        return USUAL.get(name)
    known = USUAL | TIMM
    return next((known[each] for each in _families(name.removeprefix("timm/")) if each in known), None)


def _families(name: str) -> list[str]:
    """A name of timm's and those it may be a variant of: cautious (`c…`), Nesterov's (`n…`), decoupled (`…w`), …"""
    before, after = ("", "c", "n", "r", "ada", "nada"), ("", "w", "c", "cw", "cd", "tf", "tfw", "tfc", "legacy")
    return [
        name[len(first) : len(name) - len(last)]
        for first, last in product(before, after)
        if name.startswith(first) and name.endswith(last)
    ]
