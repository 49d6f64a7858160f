"""`kind: predict`: prediction over a data set."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lehr.job.base import Job
from lehr.job.sections import LOCAL_PATH, DataSection, WorkersSection

OF_PREDICTIONS = ("source", "path", "columns", "skip_unreadable")
"""The fields of `data` that a prediction has: it uses every image, prepared as for the training of its run."""


class PredictJob(Job):
    """Predict every row of a data set with a finished run."""

    kind: Literal["predict"] = Field(default="predict", description="What the job does.")
    run: str = Field(
        min_length=1,
        description="A finished run or ensemble: run:NAME in the storage, or the path or URI of its folder.",
    )
    data: DataSection = Field(default=DataSection(), description="The rows; every one of them is predicted.")
    split: Literal["train", "validation", "test"] = Field(
        default="train", description="Which split, where the source has several of its own. Else all its rows."
    )
    out: Annotated[str | None, LOCAL_PATH] = Field(
        default=None, min_length=1, description="Folder or URI to write to. By default predictions in the run folder."
    )
    members: bool = Field(default=False, description="Write the probabilities of each member of an ensemble as well.")
    batch_size: int = Field(default=256, ge=1, description="Images that go through the network at once.")
    workers: WorkersSection = Field(
        default=WorkersSection(), description="The processes that hold the model. auto: one per GPU, else one per core."
    )
