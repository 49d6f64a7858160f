"""What is different about runs of format 2, in one place; FORMAT.md says what changed.

Its outcome was one file for all attempts. Names of checkpoints and of the model had no number of an attempt, which
`checkpoints.py` and `model.py` accept, and lists of parts named each of them, which `attempts.py` counts.
"""

from __future__ import annotations

from lehr.runs.progress import RunOutcome
from lehr.runs.storage import Folder

_OUTCOME = "outcome.json"


def outcome(folder: Folder) -> RunOutcome | None:
    """How a run of format 2 ended; None if it did not."""
    return RunOutcome.read(folder, _OUTCOME)


def begin(folder: Folder) -> None:
    """Removes what the last attempt of format 2 left about its end."""
    folder.delete(_OUTCOME)
