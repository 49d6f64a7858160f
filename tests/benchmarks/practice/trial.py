"""Trains a case and its twin, and says what the first finding is worth."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
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
from tests.benchmarks.practice.faults import Draft
from tests.benchmarks.practice.judge import Verdict


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


def judge(case: Case, keep: Path | None = None) -> Verdict:
    """Trains a case and its twin, and judges what is said of the case.

    Args:
        keep: a folder that keeps the runs. What it holds already is not trained again, only judged.
    """
    torch.set_num_threads(1)
    drawn, other, fault = draft(case)
    with tempfile.TemporaryDirectory() as temporary:
        place = (keep or Path(temporary)) / f"{case.label.replace(' ', '-').replace(',', '')}-{case.seed}"
        curves = Curves.read(_trained(drawn, place / "case"))
        reached = _best(curves)
        twin = reached if fault.always else _best(Curves.read(_trained(other, place / "twin")))
    ends = [curves.epoch_column(f"{split}_accuracy")[-1:] for split in ("clean_train", "validation")]
    gap = float(np.nan_to_num(ends[0] - ends[1]).sum())
    return Verdict(case.label, fault, diagnose(curves).first, reached, twin, gap, len(drawn.validation))


def _trained(made: Draft, folder: Path) -> RunFolder:
    done = Folder.at(folder / "run")
    if done.exists("job.yaml") and (run := RunFolder.open(done)).outcome():
        return run
    shutil.rmtree(folder, ignore_errors=True)
    return run_draft(made, folder)


def _best(curves: Curves) -> float:
    """The best validation accuracy of a run."""
    return float(np.nanmax(curves.epoch_column("validation_accuracy"), initial=0.0))
