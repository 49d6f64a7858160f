"""`kind: transfer`: compute features once, decide what to try, run the trials, choose by validation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

import torch

from lehr.data.door import LocalHost, open_data
from lehr.data.load import splits
from lehr.driver import Interrupted, Kind, Running
from lehr.errors import LehrError
from lehr.formatting import format_folder, format_metric
from lehr.job import TrainJob, refuse_unused
from lehr.job.transfer import STRATEGIES, TransferJob
from lehr.machine import cores
from lehr.runs import Overview, RunFolder, read_model
from lehr.training.setup import Plan, check_job, complete_base
from lehr.transfer.decision import TransferDecision
from lehr.transfer.features import Features, compute_locally, rows_of_split, sample_positions, split_names
from lehr.transfer.head_trainable import HeadTrainable
from lehr.transfer.neighbours import neighbours_picture
from lehr.transfer.report import write_report
from lehr.transfer.similarity import MAX_ROWS, Similarity, measure_similarity
from lehr.transfer.strategies import Advice, advise, choose
from lehr.transfer.strategy_jobs import check_backbone, reduced_sizes, strategy_job
from lehr.transfer.study import TransferStudy
from lehr.trials import Trial, run_trials

if TYPE_CHECKING:
    from lehr.ray_cluster.connection import Resources

Compute = Callable[..., Iterator[Features]]


def check(job: TransferJob) -> None:
    """Checks what needs no data: the backbone, its weights, and every job to be trained. Raises JobError."""
    refuse_unused(job)
    check_backbone(job)
    complete_base(job, job.base)
    for strategy in STRATEGIES:
        check_job(strategy_job(job, strategy))


def report(run: RunFolder) -> None:
    """Writes the run's page again. Raises RunError if the run has not started its trials."""
    write_report(run)


def run(running: Running) -> None:
    """Features, similarity, trials, the choice, and the report."""
    job = cast(TransferJob, running.job)
    features_job = strategy_job(job, "features")
    with ray_of(running, features_job) as resources:
        plan, compute = plan_of(running, features_job, resources)
        decision = prepare(running, job, plan, compute)
        study = TransferStudy(decision.candidates, trials(running, job, plan, decision))
        del plan, compute  # the trials share images of their own; these would only take memory
        run_trials(running, study, len(study.trials))
    conclude(running, study, decision)


@contextmanager
def ray_of(running: Running, job: TrainJob) -> Iterator[Resources | None]:
    """The cluster for both features and trials; None if everything runs in this process."""
    if running.debug:
        yield None
        return
    from lehr.ray_cluster.connection import connect  # imports Ray, which --debug does without

    running.screen.status("starting Ray")
    with connect(1, job.workers.cpus) as resources:
        yield resources


def plan_of(running: Running, job: TrainJob, resources: Resources | None) -> tuple[Plan, Compute]:
    """The plan of the features job, and how features are computed: in this process, or by Ray Data on the cluster."""
    if resources is None:
        torch.set_num_threads(cores())
        plan = Plan.make(job, splits(job, open_data(job, LocalHost(), running)))
        return plan, partial(compute_locally, plan)
    from lehr.data.ray_data import RayHost, share
    from lehr.transfer.ray_features import compute_on_ray

    data = open_data(job, RayHost(decode_at_once=max(2, int(resources.cpus))), running)
    plan = Plan.make(job, splits(job, data))
    return plan, partial(compute_on_ray, plan, share(data), resources, running.screen.status)


def prepare(running: Running, job: TransferJob, plan: Plan, compute: Compute) -> TransferDecision:
    """Computes the features, measures the similarity, and decides what to try. Saved in `transfer.json`."""
    run, auto = running.run, job.strategy == "auto"
    if decision := TransferDecision.read(run.folder):  # an earlier attempt got this far
        return decision
    wanted = auto or "features" in job.strategy
    seconds = compute_features(running, job, plan, compute) if wanted else 0.0
    train = plan.splits.train
    decision = TransferDecision(
        train_rows=len(train),
        validation_rows=len(plan.splits.validation),
        classes=tuple(train.classes),
        seconds_per_image=seconds,
        candidates=() if job.strategy == "auto" else tuple(job.strategy),
    )
    if wanted:
        running.screen.status("measuring how similar the images are to those of the pretraining")
        found = measure(plan, compute, Features.read(run.folder, "train"))
        advice = advise(len(train), len(train.classes), found)
        decision = replace(decision, similarity=found, advice=advice)
        if auto:
            decision = replace(decision, candidates=advice.candidates)
            say_advice(running, advice)
        if image := neighbours_picture(plan, *(Features.read(run.folder, split) for split in ("train", "validation"))):
            run.folder.write("neighbours.png", image)
    decision.write(run.folder)
    return decision


def compute_features(running: Running, job: TransferJob, plan: Plan, compute: Compute) -> float:
    """Computes and writes the features of each split without any; returns seconds per image."""
    began, images = time.perf_counter(), 0
    if job.features.views > 1 and plan.augment.mixes:
        raise job.error(
            "base.data.augment",
            "features of mixed images have no single label; remove mixup and cutmix, or set features.views to 1",
        )
    for split in split_names(plan):
        if running.run.folder.exists(f"features/{split}.parquet"):
            continue
        rows, views = rows_of_split(plan, split), job.features.views if split == "train" else 1
        running.screen.status(f"computing the features of {len(rows):,} {split} images")
        parts = []
        for part in compute(split, torch.arange(len(rows)), views=views):
            parts.append(part)
            images += len(part)
            running.check_lease()
            if reason := running.run.stop_requested():
                raise Interrupted(f"Stopped ({reason}); resume with: {running.command}")
        Features.concatenate(parts).write(running.run.folder, split)
    seconds = time.perf_counter() - began
    if images:
        running.screen.say(f"features of {images:,} images computed in {seconds:.1f} s")
    return seconds / max(1, images)


def measure(plan: Plan, compute: Compute, features: Features) -> Similarity:
    """The similarity of the training images to those of the pretraining, on a fixed sample of them."""
    positions = sample_positions(plan.splits.train, MAX_ROWS, plan.job.seed)
    (random,) = compute("train", positions, random_weights=True)
    pretrained = features.originals().select(random.ids)
    assert torch.equal(pretrained.ids, random.ids)
    return measure_similarity(pretrained.values, random.values, random.labels, plan.job.seed)


def say_advice(running: Running, advice: Advice) -> None:
    running.screen.say(f"{advice.why[:1].upper()}{advice.why[1:]}. Candidates: {', '.join(advice.candidates)}.")
    if advice.warning:
        running.screen.say(f"Warning: {advice.warning}")


def trials(running: Running, job: TransferJob, plan: Plan, decision: TransferDecision) -> list[Trial]:
    """A trial for each strategy, on all training images and on fewer per class."""
    strategies = list(decision.candidates)
    if job.strategy == "auto" and job.compare_scratch and "scratch" not in strategies:
        strategies.append("scratch")
    head = HeadTrainable(job.features, running.run.folder.uri, decision.seconds_per_image)
    found = []
    for count in [None, *reduced_sizes(job, plan.splits.train.labels)]:
        for strategy in strategies:
            folder = f"trials/{strategy}" + (f"-{count}" if count else "")
            child = strategy_job(job, strategy, per_class=count, name=folder)
            found.append(Trial(folder, child, head) if strategy == "features" else Trial(folder, child))
    return found


def conclude(running: Running, study: TransferStudy, decision: TransferDecision) -> None:
    """Chooses, keeps the chosen model as the run's own, and tells what a person wants to know at the end."""
    run, screen = running.run, running.screen
    accuracy = study.accuracy()
    candidates = tuple(name for name in decision.candidates if name in accuracy)
    if not candidates:
        first = next(iter(study.outcomes.values()), None)
        why = first.message if first else "there was no strategy to try"
        raise LehrError(f"no strategy finished: {why}")
    choice = choose(candidates, accuracy, decision.validation_rows)
    chosen = study.outcomes[f"trials/{choice.strategy}"].run
    weights, description = read_model(chosen.folder)
    run.write_model(weights, description)
    replace(decision, chosen=choice.strategy, why=choice.why).write(run.folder)
    outcome = chosen.outcome()
    assert outcome is not None  # it finished, or it could not be chosen
    message = f"{choice.strategy}: {choice.why}"
    metrics = {name: value for name, value in description.get("metrics", {}).items() if value is not None}
    told = run.progress()
    overview = replace(told.overview or Overview(), done=1.0)
    told = replace(told, status="finished", message=message, best=outcome.best, metrics=metrics, overview=overview)
    told = replace(told, measured_rows=outcome.measured_rows)
    run.write_progress(told)
    write_report(run)
    screen.progress(told)
    screen.close()
    screen.say(f"Chosen: {message}.")
    metric, value = outcome.best.metric, outcome.best.value
    if value is not None:
        screen.say(f"Best {metric.replace('_', ' ')}: {format_metric(value, metric, outcome.measured_rows)}")
    if "test_accuracy" in metrics:
        test = format_metric(metrics["test_accuracy"], "test_accuracy", outcome.measured_rows)
        screen.say(f"Test accuracy of that model: {test}")
    screen.say(f"Model:  {format_folder(run.folder)}/model")
    screen.say(f"Report: {format_folder(run.folder)}/report.html")


KIND = Kind(
    check=check, run=run, report=report, files=("transfer.json", "neighbours.png"), folders=("features", "trials")
)
