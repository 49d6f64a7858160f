"""What a job file says: typed sections, durations, overrides, and errors of one sentence."""

from lehr.job.base import Job, absolute
from lehr.job.compare import changes_of_run, describe_changes, difference, extends, job_hash, to_dict
from lehr.job.ensemble import EnsembleJob
from lehr.job.finetune import FinetuneSection
from lehr.job.folds import FoldsJob
from lehr.job.inner import told_of_base
from lehr.job.kinds import KINDS
from lehr.job.loading import changes_of, default_name, derive, fold_job, from_dict, load, training_in
from lehr.job.merge import parse_overrides
from lehr.job.options import check_call
from lehr.job.predict import PredictJob
from lehr.job.renamed import as_it_was_meant, first_name, with_new_names
from lehr.job.schema import json_schema
from lehr.job.sections import (
    Augment,
    Averaging,
    CallbackSection,
    CheckpointSection,
    DataSection,
    EarlyStopping,
    LossSection,
    MetricSection,
    ModelSection,
    NamedSection,
    OptimizerSection,
    Section,
    TrainSection,
    WorkersSection,
)
from lehr.job.text import not_a_choice
from lehr.job.training import Training, TrainJob
from lehr.job.transfer import TransferJob
from lehr.job.unused import refuse_unused, unused_in_debug

__all__ = [
    "KINDS",
    "Augment",
    "Averaging",
    "CallbackSection",
    "CheckpointSection",
    "DataSection",
    "EarlyStopping",
    "EnsembleJob",
    "FinetuneSection",
    "FoldsJob",
    "Job",
    "LossSection",
    "MetricSection",
    "ModelSection",
    "NamedSection",
    "OptimizerSection",
    "PredictJob",
    "Section",
    "TrainJob",
    "TrainSection",
    "Training",
    "TransferJob",
    "WorkersSection",
    "absolute",
    "as_it_was_meant",
    "changes_of",
    "changes_of_run",
    "check_call",
    "default_name",
    "derive",
    "describe_changes",
    "difference",
    "extends",
    "first_name",
    "fold_job",
    "from_dict",
    "job_hash",
    "json_schema",
    "load",
    "not_a_choice",
    "parse_overrides",
    "refuse_unused",
    "to_dict",
    "told_of_base",
    "training_in",
    "unused_in_debug",
    "with_new_names",
]
