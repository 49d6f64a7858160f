"""What cross-validation needs: a training, and into how many parts its rows are dealt."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from lehr.job.base import Job
from lehr.job.text import show
from lehr.job.training import Training

MOST = 100


def _folds(value: Any) -> int:
    if type(value) is int and 2 <= value <= MOST:
        return value
    raise ValueError(f"{show(value)} is not a number of folds; allowed: a whole number from 2 to {MOST}, such as 5")


Folds = Annotated[int, BeforeValidator(_folds)]


class FoldsJob(Training, Job):
    """Train one network for each fold of the data, validated on the rows that it has not seen: cross-validation.

    A job file says `kind: train` and `folds: 5`.
    """

    kind: Literal["folds"] = Field(default="folds", description="What the job does.")
    folds: Folds = Field(
        default=5,
        description="Parts of the rows. Each is held out once, by a network that is trained on the others: "
        "cross-validation.",
    )
