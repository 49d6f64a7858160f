"""Several trained networks as one: how they are combined, which of them, and how good and how sure they are together.

Everything here is arithmetic on the outputs of members on rows that were held out: float arrays
[members, rows, classes] of logits, and int arrays [rows] of labels. Nobody here trains, reads or writes.
"""

from lehr.ensembles.calibration import Bin, expected_calibration_error, reliability
from lehr.ensembles.combine import By, combine, log_probabilities
from lehr.ensembles.measures import Difference, as_members_are_added, disagreement, error, log_loss, paired_difference
from lehr.ensembles.select import SELECTIONS, best, equal, fitted, greedy, last

__all__ = [
    "SELECTIONS",
    "Bin",
    "By",
    "Difference",
    "as_members_are_added",
    "best",
    "combine",
    "disagreement",
    "equal",
    "error",
    "expected_calibration_error",
    "fitted",
    "greedy",
    "last",
    "log_loss",
    "log_probabilities",
    "paired_difference",
    "reliability",
]
