"""How the weights are updated: optimizers by name, and which parameters each of them gets on which terms.

An optimizer is one of `torch.optim`, one of those here (`lamb.py`, `lars.py`, `muon.py`), timm's, or a class of the
user's own. All get their parameters in groups (`groups.py`), so that the rule about norms and biases holds for each.
"""

from lehr.training.optimizers.build import (
    build_optimizer,
    calls_of,
    check_optimizer,
    complete_rate,
    has_decay,
    rate_note,
    usual_rate,
)
from lehr.training.optimizers.find import OPTIMIZERS, REFUSED
from lehr.training.optimizers.groups import Group, groups_of

__all__ = [
    "OPTIMIZERS",
    "REFUSED",
    "Group",
    "build_optimizer",
    "calls_of",
    "check_optimizer",
    "complete_rate",
    "groups_of",
    "has_decay",
    "rate_note",
    "usual_rate",
]
