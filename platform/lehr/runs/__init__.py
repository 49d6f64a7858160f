"""The run folder: the one contract between jobs. `FORMAT.md`, beside this file, is its specification."""

from lehr.runs.attempts import Attempt, CheckpointInfo, all_attempts, begin_attempt, newest_attempt
from lehr.runs.checkpoints import Checkpoint, DamagedCheckpoint, load, name_of, names, newest_valid, prune, save, step_of
from lehr.runs.columns import COLUMNS, Column
from lehr.runs.lease import Holder, Lease, read_holder
from lehr.runs.progress import ENDED, BestValue, Overview, Progress, RunOutcome, Table, TrainingProgress
from lehr.runs.records import Recorder, read_epochs, read_events, read_steps, without_timing
from lehr.runs.run_folder import FORMAT, RunFolder, collect_environment, find_runs, steps_per_epoch
from lehr.runs.storage import Folder
from lehr.runs.weights import read_model, write_model

__all__ = [
    "COLUMNS",
    "ENDED",
    "BestValue",
    "Overview",
    "Progress",
    "RunOutcome",
    "Table",
    "TrainingProgress",
    "FORMAT",
    "Attempt",
    "Checkpoint",
    "CheckpointInfo",
    "Column",
    "DamagedCheckpoint",
    "Folder",
    "Holder",
    "Lease",
    "Recorder",
    "RunFolder",
    "all_attempts",
    "begin_attempt",
    "collect_environment",
    "find_runs",
    "load",
    "name_of",
    "names",
    "newest_attempt",
    "newest_valid",
    "prune",
    "read_epochs",
    "read_events",
    "read_holder",
    "read_model",
    "read_steps",
    "save",
    "step_of",
    "steps_per_epoch",
    "without_timing",
    "write_model",
]
