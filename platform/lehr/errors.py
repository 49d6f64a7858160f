"""The errors that a person sees: each is one sentence that says what is wrong, where, and what is allowed.

`lehr.cli` turns a `LehrError` into one red line and its exit code. Anything else is an internal error, or an error in
the user's own code; its full trace goes to the log.
"""

from __future__ import annotations

from lehr.credentials import mask


class LehrError(Exception):
    """A known failure, as one sentence. `exit_code` is what the command line returns for it.

    Addresses in the sentence are shown without their credentials.
    """

    exit_code = 1

    def __str__(self) -> str:
        return mask(super().__str__())


class JobError(LehrError):
    """A wrong job file or override.

    `str(error)` is one sentence: `jobs/train.yaml:7: optimizer.lr: "fast" is not a number; allowed: a number above 0`.

    Attributes:
        where: the file and line (`jobs/train.yaml:7`) or `command line`; empty when neither is known.
        field: the dotted path of the field (`optimizer.lr`); empty for the whole file.
        what: what was there, what is allowed and, if there is one, the nearest correct spelling.
    """

    exit_code = 2

    def __init__(self, what: str, *, field: str = "", where: str = "") -> None:
        self.where, self.field, self.what = where, field, what
        super().__init__(": ".join(part for part in (where, field, what) if part))


class RunError(LehrError):
    """A run folder that cannot be used as requested: missing, damaged, of a newer format, or changed."""


class RunHeld(RunError):
    """Another live process writes to this run folder."""


class RunLost(RunError):
    """This process wrote the run and may not do so any more: it writes nothing more, and ends."""


class Superseded(RunLost):
    """A newer attempt writes the run, or another driver has its lease."""


class RunDeleted(RunLost):
    """The run folder was deleted: nothing may create it again."""


class StorageError(LehrError):
    """The storage refused an operation, or failed after bounded retries."""


class ClusterError(LehrError):
    """A cluster cannot be reached, or refuses a request."""


class TrainingError(LehrError):
    """Training ended without a usable result; the sentence says at which step and why."""
