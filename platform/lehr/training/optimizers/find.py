"""The optimizer behind a name: torch's, ours, timm's, or a class of the user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches

from torch import optim

from lehr import trust
from lehr.extras import install
from lehr.job import OptimizerSection, not_a_choice
from lehr.models.vision import torchvision
from lehr.training.optimizers.lamb import LAMB
from lehr.training.optimizers.lars import LARS
from lehr.training.optimizers.muon import Muon

Make = Callable[..., optim.Optimizer]
"""Called with parameter groups, `lr` and options, it returns an optimizer."""

REFUSED = {
    "lbfgs": "evaluates the loss several times per step, which a loop over batches does not",
    "sparseadam": "takes sparse gradients only, and image networks have dense ones",
}
OURS: dict[str, type[optim.Optimizer]] = {"lamb": LAMB, "lars": LARS, "muon": Muon}
OPTIMIZERS: dict[str, type[optim.Optimizer]] = OURS | {
    name.lower(): found
    for name, found in sorted(vars(optim).items())
    if inspect.isclass(found)
    and issubclass(found, optim.Optimizer)
    and found is not optim.Optimizer
    and name.lower() not in {*REFUSED, *OURS}
}
"""By lower-case name; a job may spell them as torch does."""


def find(section: OptimizerSection) -> Make:
    """What makes the optimizer of this name.

    Raises:
        ValueError: there is none, or it cannot train here; the sentence says what is allowed.
        Untrusted: it is code that nobody allowed.
    """
    name = section.name.lower()
    if name in REFUSED:
        raise ValueError(f"{section.name} {REFUSED[name]}; allowed: {', '.join(OPTIMIZERS)}")
    if name.startswith("timm/"):
        return _timm(name.removeprefix("timm/"))
    if ":" in section.name:
        return _own(trust.Call("optimizer", section.name, section.options))
    if name not in OPTIMIZERS:
        raise ValueError(f"{not_a_choice(section.name, 'optimizer', OPTIMIZERS)}, timm/NAME, my_package.module:Name")
    return OPTIMIZERS[name]


def _timm(name: str) -> Make:
    torchvision()  # which timm imports too
    try:
        from timm import optim as timm
    except ImportError:
        raise ValueError(f"timm/{name} needs the library timm; install it with: {install('timm')}") from None
    known = timm.list_optimizers()
    if name not in known:
        alike = get_close_matches(name, known, n=5) or known  # there are about a hundred
        raise ValueError(not_a_choice(f"timm/{name}", "optimizer", [f"timm/{other}" for other in alike]))
    if timm.get_optimizer_info(name).second_order:
        raise ValueError(f"timm/{name} needs second derivatives, which the training loop does not compute")
    try:
        return timm.get_optimizer_class(name, bind_defaults=True)
    except (AssertionError, ImportError) as error:  # timm asserts that there is a GPU, and the library behind it
        raise ValueError(f"timm/{name} cannot train here: {error}; allowed: another optimizer") from None


def _own(call: trust.Call) -> Make:
    """The user's own class."""
    try:
        found = trust.load(call)
    except ValueError as error:
        raise ValueError(f'"{call.path}" is not an optimizer: {error}') from None
    if not (inspect.isclass(found) and issubclass(found, optim.Optimizer)):
        raise ValueError(
            f'"{call.path}" is not an optimizer; allowed: a class that inherits from torch.optim.Optimizer'
        )
    parameters = inspect.signature(found).parameters
    if "lr" not in parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        raise ValueError(f'"{call.path}" takes no lr; allowed: a class that is called with (params, lr=…, **options)')
    closure = [p for name, p in inspect.signature(found.step).parameters.items() if name not in ("self", "args")]
    if any(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in closure):
        raise ValueError(f'"{call.path}" {REFUSED["lbfgs"]}: its step needs a closure; allowed: def step(self)')
    return found
