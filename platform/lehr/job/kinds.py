"""The kinds of job. A new kind is one class derived from `Job`, in a module of its own, and one line in `KINDS`."""

from __future__ import annotations

from lehr.job.base import Job
from lehr.job.ensemble import EnsembleJob
from lehr.job.folds import FoldsJob
from lehr.job.predict import PredictJob
from lehr.job.recipe import RecipeJob
from lehr.job.search import SearchJob
from lehr.job.training import TrainJob
from lehr.job.transfer import TransferJob

KINDS: dict[str, type[Job]] = {
    "train": TrainJob,
    "folds": FoldsJob,
    "search": SearchJob,
    "recipe": RecipeJob,
    "ensemble": EnsembleJob,
    "transfer": TransferJob,
    "predict": PredictJob,
}
