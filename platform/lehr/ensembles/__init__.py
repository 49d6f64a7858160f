"""Ensembles: how members are combined, which members are used, and how accurate and well calibrated the result is.

Everything here is arithmetic on the members' outputs on held-out rows: float arrays [members, rows, classes] of logits,
and int arrays [rows] of labels. Nothing in this package trains, reads or writes.
"""

from lehr.ensembles.combine import CombineBy, combine, log_probabilities
from lehr.ensembles.metrics import Difference, combine_cumulatively, disagreement, error, log_loss, paired_difference
from lehr.ensembles.selection import SELECTIONS, best, equal, fitted, greedy, last

__all__ = [
    "SELECTIONS",
    "CombineBy",
    "Difference",
    "best",
    "combine",
    "combine_cumulatively",
    "disagreement",
    "equal",
    "error",
    "fitted",
    "greedy",
    "last",
    "log_loss",
    "log_probabilities",
    "paired_difference",
]
