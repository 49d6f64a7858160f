"""What can be seen of a search, a recipe, an ensemble, a transfer and a prediction that obey their fields. No Ray."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tests.unit.job.every_field import plan_of
from torch import nn

from lehr.ensembles.combine import combine
from lehr.job import EnsembleJob, Job, PredictJob, TransferJob, derive, to_dict
from lehr.job.recipe import RecipeJob
from lehr.job.search import SearchJob
from lehr.kinds import run_job
from lehr.kinds.ensemble import choose_weights
from lehr.kinds.ensemble_members import plan_ensemble
from lehr.kinds.transfer import trials
from lehr.predict.allocation import actors
from lehr.recipe import overrides
from lehr.recipe.initial import InitialCheck
from lehr.recipe.planner import End, Step, next_step
from lehr.recipe.state import RecipeState
from lehr.recipe.step_trials import trials_of
from lehr.recipe.study import deadline_of
from lehr.recipe.trial_results import Hyperparameters
from lehr.runs import Folder, RunFolder
from lehr.search.space import Space
from lehr.search.study import SearchStudy
from lehr.tasks.classification import Classification
from lehr.transfer.decision import TransferDecision
from lehr.transfer.features import Features
from lehr.transfer.head_search import Judge, Measured, search_heads
from lehr.transfer.strategy_jobs import strategy_job
from lehr.trials import Clock, Outcome, Trial

SOUND = InitialCheck(
    rows=256, counts=(30,) * 10, loss=2.4, trainable=99, first="a", last="z", layers=3,
    output_min=-1.0, output_max=1.0, output_std=0.6,
)  # fmt: skip


def children(trials: Iterator[Trial] | Any) -> list[Any]:
    return [(trial.folder, {**to_dict(trial.job), "name": None}) for trial in trials]


def trainings_of(job: Job) -> Any:
    """The train jobs that are made of the base of a job: what each kind changes in it, and nothing else."""
    if isinstance(job, SearchJob):
        return to_dict(Space(job).trial({}, "trial")[0])
    if isinstance(job, RecipeJob):
        setting = Hyperparameters(rate=0.3, decay=0.2)
        of_all = (overrides.search_trial(job.base, setting, 3), overrides.final_training(job.base, setting, 3))
        return [
            to_dict(derive(job.base, changes, parent=job, name="trial")) for changes in of_all
        ], job.base.train.epochs
    if isinstance(job, EnsembleJob):
        return children(plan_ensemble(job).trials)
    assert isinstance(job, TransferJob)
    return to_dict(strategy_job(job, "scratch"))


def searched(job: Job) -> Any:
    """The trials of a search and how many epochs each gets, where better trials come first and all rise."""
    assert isinstance(job, SearchJob)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Folder.at(folder), to_dict(job))
        study = SearchStudy(job, run)
        found: list[Any] = []
        while (trial := study.ask()) and len(found) < 24:
            epochs, reason = 0, None
            while epochs < trial.job.train.epochs and not reason:
                epochs += 1
                score = epochs / 100 + (len(found) * 7 % 11) / 20
                reason = study.epoch(trial, {"epoch": epochs, job.base.train.metric: score})
            study.tell(trial, Outcome("finished", "", run))
            found.append((*children([trial]), epochs, reason))
        return found


class StoppedClock:
    """Tells a deadline as the seconds from the begin of a job, and why."""

    def deadline(self, seconds: float, reason: str) -> tuple[float, str]:
        return seconds, reason


def cooked(job: Job) -> Any:
    """What a recipe does first, what it does after a sound first step, and what trains in full at the end."""
    assert isinstance(job, RecipeJob)
    found: list[Any] = []
    for state in (RecipeState(), RecipeState(initial=SOUND)):
        step = next_step(job, state)
        found.append(step.status if isinstance(step, End) else children(trials_of(job, state, step)))
        found.append(isinstance(step, Step) and deadline_of(job, step, cast(Clock, StoppedClock())))
    changes = overrides.final_training(job.base, Hyperparameters(rate=0.3, decay=0.2), 7)
    return [*found, to_dict(derive(job.base, changes, parent=job, name="last"))]


def gathered(job: Job) -> Any:
    """The trainings of an ensemble, the weights of four made-up members, and how these combine."""
    assert isinstance(job, EnsembleJob)
    plan = plan_ensemble(job)
    random = np.random.default_rng(0)
    logits, labels = random.normal(0, 3, (4, 20, 3)), random.integers(0, 3, 20)
    weights = choose_weights(job, logits, labels)
    members = [run.name for run in plan.finished_runs]
    combined = combine(logits, weights, job.combine.by).tolist()
    return [children(plan.trials), plan.single, members, weights.tolist(), combined]


def transferred(job: Job) -> Any:
    """The trials of a transfer, and the heads that it trains on made-up features."""
    assert isinstance(job, TransferJob)
    plan = plan_of(strategy_job(job, "features"))
    candidates = ("features", "finetune") if job.strategy == "auto" else tuple(job.strategy)
    decision = TransferDecision(40, 20, ("0", "1"), 0.1, candidates)
    made = trials(cast(Any, _Running()), job, plan, decision)
    values = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    features = Features(torch.arange(60), torch.arange(60) % 2, torch.zeros(60, dtype=torch.int64), values)
    measured, by = Measured(Classification(("0", "1"))), Judge("accuracy")
    heads = search_heads(features, features, measured, job.features, by, 0)
    return [children(made), job.features.views, heads.grid, heads.losses, str(heads.heads.module(0))]


class _Running:
    class run:  # noqa: N801
        class folder:  # noqa: N801
            uri = "here"


def predicted(job: Job) -> Any:
    """The files of a prediction, where they are, and how many images went through the network at once."""
    assert isinstance(job, PredictJob)
    at_once: list[int] = []

    def look(module: nn.Module, inputs: Any) -> None:
        if isinstance(module, nn.Conv2d):
            at_once.append(len(inputs[0]))

    hook = nn.modules.module.register_module_forward_pre_hook(look)
    try:
        with tempfile.TemporaryDirectory() as folder:
            run = run_job(job.model_copy(update={"name": Path(folder).name}), debug=True)
            out = Folder.at(job.out) if job.out else run.folder.child("predictions")
            files = {name: hashlib.sha256(out.read(name)).hexdigest() for name in out.files()}
            return files, job.out and out.uri, at_once
    finally:
        hook.remove()


def shared_out(job: Job) -> Any:
    """How many processes predict ten parts on a machine with 8 CPUs and 2 GPUs, and what each gets."""
    assert isinstance(job, PredictJob)
    return actors(job.workers, 8, 2, 10).actors
