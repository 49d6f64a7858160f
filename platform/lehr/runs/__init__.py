"""The run folder: the one contract between jobs. `FORMAT.md`, beside this file, is its specification."""

from lehr.runs.attempts import (
    Attempt,
    CheckpointInfo,
    all_attempts,
    begin_attempt,
    claim_attempt,
    newest_attempt,
    start_attempt,
)
from lehr.runs.checkpoints import Checkpoint, load, name_of, newest_valid, prune, save, saved, size_of, step_of
from lehr.runs.claim import Claim
from lehr.runs.columns import COLUMNS, Column
from lehr.runs.endings import Failure, LostWorkers, StopRequest
from lehr.runs.entries import OddEntry
from lehr.runs.environment import DataFacts, Environment, GitState, Gpu, UnreadableImages
from lehr.runs.fingerprint import Fingerprint
from lehr.runs.job_file import FORMAT, JobFile
from lehr.runs.lease import Holder, Lease
from lehr.runs.listing import Listing, damage, find_runs, list_runs, trainings_in
from lehr.runs.manifest import DamagedCheckpoint, Manifest
from lehr.runs.model import ModelFile, has_model, read_model, write_model
from lehr.runs.ownership import check_writable, foreign_owner
from lehr.runs.progress import ENDED, BestValue, Overview, Progress, RunOutcome, Table, TrainingProgress
from lehr.runs.records import Recorder, read_epochs, read_events, read_steps, without_timing
from lehr.runs.run_folder import RunFolder, steps_per_epoch
from lehr.runs.storage import Folder
from lehr.runs.summaries import summaries
from lehr.runs.survey import DataSurvey, NetworkSurvey, SplitSurvey, Survey

__all__ = [
    "COLUMNS",
    "ENDED",
    "FORMAT",
    "Attempt",
    "BestValue",
    "Checkpoint",
    "CheckpointInfo",
    "Claim",
    "Column",
    "DamagedCheckpoint",
    "DataFacts",
    "DataSurvey",
    "Environment",
    "Failure",
    "Fingerprint",
    "Folder",
    "GitState",
    "Gpu",
    "Holder",
    "JobFile",
    "Lease",
    "Listing",
    "LostWorkers",
    "Manifest",
    "ModelFile",
    "NetworkSurvey",
    "OddEntry",
    "Overview",
    "Progress",
    "Recorder",
    "RunFolder",
    "RunOutcome",
    "SplitSurvey",
    "StopRequest",
    "Survey",
    "Table",
    "TrainingProgress",
    "UnreadableImages",
    "all_attempts",
    "begin_attempt",
    "check_writable",
    "claim_attempt",
    "damage",
    "find_runs",
    "foreign_owner",
    "has_model",
    "list_runs",
    "load",
    "name_of",
    "newest_attempt",
    "newest_valid",
    "prune",
    "read_epochs",
    "read_events",
    "read_model",
    "read_steps",
    "save",
    "saved",
    "size_of",
    "start_attempt",
    "step_of",
    "steps_per_epoch",
    "summaries",
    "trainings_in",
    "without_timing",
    "write_model",
]
