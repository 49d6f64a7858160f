"""Trains a case and its twin, and says what the first finding is worth."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from lehr import trust
from lehr.curves.diagnosis import diagnose
from lehr.curves.record import Curves
from lehr.data.load import OpenedSources, splits
from lehr.errors import TrainingError
from lehr.job import TrainJob, from_dict, to_dict
from lehr.runs import Environment, Folder, RunFolder
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan
from tests.benchmarks.practice.cases import Case, draft
from tests.benchmarks.practice.data_sets import to_parquet
from tests.benchmarks.practice.faults import FAULTS, UNFINISHED, Draft
from tests.benchmarks.practice.judge import Verdict

CASE = "case.json"
"""In the folder of a case: the case."""


def run_draft(made: Draft, folder: Path) -> RunFolder:
    """Trains a draft in this process, with its rows as Parquet files."""
    folder.mkdir(parents=True)
    for name, rows in (("train", made.train), ("validation", made.validation)):
        to_parquet(rows, folder / f"{name}.parquet")
    files = {"path": str(folder / "train.parquet"), "validation": str(folder / "validation.parquet"), "test": "none"}
    tree = made.job | {"storage": str(folder), "data": {"source": "parquet", **files, **made.job["data"]}}
    job = from_dict(tree)
    assert isinstance(job, TrainJob)
    trust.give(to_dict(job))
    run = RunFolder.create(Folder.at(folder / "run"), to_dict(job), Environment.collect(seed=job.seed))
    opened = OpenedSources(job)
    try:
        train(Plan.make(job, splits(job, opened.decode())), run, Group())
    except TrainingError as error:
        run.write_progress(replace(run.progress(), status="failed", message=str(error)))
    return run


def train_draft(made: Draft, folder: Path) -> None:
    """Trains a draft into a folder that does not hold it already."""
    done = Folder.at(folder / "run")
    if not (done.exists("job.yaml") and RunFolder.open(done).outcome()):
        shutil.rmtree(folder, ignore_errors=True)
        run_draft(made, folder)


def train_case(case: Case, place: Path) -> Path:
    """Trains a case and, where its fault may cost nothing, its twin into the folder `place`, which it returns.

    What the folder holds already is not trained again.
    """
    torch.set_num_threads(1)
    drawn, other, fault = draft(case)
    train_draft(drawn, place / "case")
    if not fault.always:
        train_draft(other, place / "twin")
    (place / CASE).write_text(json.dumps(asdict(case)))
    return place


def judge(place: Path) -> Verdict:
    """What is said of the case that was trained into `place`, and what that is worth."""
    case = Case(**json.loads((place / CASE).read_text()))
    fault = FAULTS.get(case.fault, UNFINISHED)
    curves = Curves.read(RunFolder.open(Folder.at(place / "case" / "run")))
    reached = _best(curves)
    twin = reached if fault.always else _best(Curves.read(RunFolder.open(Folder.at(place / "twin" / "run"))))
    ends = [curves.epoch_column(f"{split}_accuracy")[-1:] for split in ("clean_train", "validation")]
    return Verdict(
        label=case.label,
        fault=fault,
        first=diagnose(curves).first,
        accuracy=reached,
        twin=twin,
        gap=float(np.nan_to_num(ends[0] - ends[1]).sum()),
        rows=curves.validation_rows or 1,
        linear=curves.survey.linear or 0.0,
    )


def _best(curves: Curves) -> float:
    """The best validation accuracy of a run."""
    return float(np.nanmax(curves.epoch_column("validation_accuracy"), initial=0.0))
