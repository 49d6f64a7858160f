"""`kind: transfer`: compute features once, decide what to try, run the trials, choose by validation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch

from lehr.data.door import LocalHost, open_data
from lehr.data.load import splits
from lehr.driver import Interrupted, Kind, Running
from lehr.errors import LehrError
from lehr.formatting import count_of, format_folder, format_metric, format_seconds
from lehr.job import TrainJob, refuse_unused
from lehr.job.transfer import STRATEGIES, TransferJob
from lehr.machine import cores
from lehr.runs import Overview, RunFolder, read_model
from lehr.runs.answers import Answers
from lehr.tasks.forms import USUAL, spoken_in_full
from lehr.training.allocation import WorkerResources, too_much
from lehr.training.setup import Plan, check_job, complete_base
from lehr.transfer.decision import TransferDecision
from lehr.transfer.features import Features, compute_locally, rows_of_split, sample_positions, split_names
from lehr.transfer.head_trainable import HeadTrainable, train_way
from lehr.transfer.neighbours import neighbours_picture
from lehr.transfer.report import write_report
from lehr.transfer.results import HEAD_ONLY, called, strategy_trials
from lehr.transfer.similarity import MAX_ROWS, Similarity, measure_similarity
from lehr.transfer.strategies import Advice, advise, choose
from lehr.transfer.strategy_jobs import backbone_recipe, check_backbone, reduced_sizes, strategy_job
from lehr.transfer.study import TransferStudy
from lehr.trials import SharedData, Trial, run_trials

if TYPE_CHECKING:
    from lehr.ray_cluster.connection import Resources

Compute = Callable[..., Iterator[Features]]
SMALL = 2000  # images whose features are computed in the driver's own process, on a machine without a GPU
TELL_SECONDS = 15.0  # between two lines about how far the features are


def check(job: TransferJob) -> None:
    """Checks what needs no data: the backbone, its weights, and every job to be trained. Raises JobError."""
    refuse_unused(job)
    if job.base.task.name != USUAL:
        what = f"is {job.base.task.name}, and a transfer compares its ways by classes"
        instead = "type, in a job of kind train, model.name=… model.weights=pretrained finetune={head_first: 1ep}"
        raise job.error("base.task", f"{what}; to start from a pretrained network, {instead}")
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
        plan, compute, held = plan_of(running, job, features_job, resources)
        decision = prepare(running, job, plan, compute)
        study = TransferStudy(
            decision.candidates,
            trials(running, job, plan, decision),
            rows=len(plan.splits.validation),
            parent=running.run.folder,
        )
        del plan, compute  # they hold images of their own on Ray, where the trials use the shared ones
        ways, epochs = [trial.folder.split("/")[1] for trial in study.trials], features_job.train.epochs
        running.screen.say(
            f"training {count_of(len(ways), 'way')}: {', '.join(ways)}, "
            f"up to {count_of(epochs, 'epoch')} each; the features way trains a head alone"
        )
        run_trials(running, study, len(study.trials), SharedData(features_job, held))
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
        each = WorkerResources(1, job.workers.cpus or 1.0, job.workers.gpus)
        if problem := too_much(each, resources.cpus, resources.gpus, resources.nodes, resources.limits):
            raise running.job.error(f"base.workers.{problem[0]}", problem[1])
        yield resources


def plan_of(
    running: Running, job: TransferJob, features_job: TrainJob, resources: Resources | None
) -> tuple[Plan, Compute, Mapping[str, Any]]:
    """The plan of the features job, how features are computed (in this process, or by Ray Data on the cluster), and the
    opened data as `SharedData` takes them."""
    running.say(backbone_recipe(job, features_job.model.name).sentence("backbone.preprocessing"))
    if resources is None:
        torch.set_num_threads(cores())
        here = open_data(features_job, LocalHost(), running)
        plan = Plan.make(features_job, splits(features_job, here))
        return plan, partial(compute_locally, plan), here
    from lehr.data.ray_data import RayHost, share
    from lehr.transfer.ray_features import compute_on_ray

    data = open_data(features_job, RayHost(decode_at_once=max(2, int(resources.cpus))), running)
    plan, handles = Plan.make(features_job, splits(features_job, data)), share(data)
    if not resources.nodes and not resources.gpus and is_small(plan):
        torch.set_num_threads(cores())
        return plan, partial(compute_locally, plan), handles
    return plan, partial(compute_on_ray, plan, handles, resources, running.screen.status), handles


def is_small(plan: Plan) -> bool:
    """Whether the features take less time in this process than other processes take to start."""
    train = plan.splits.train
    return len(train) + len(plan.splits.validation) <= SMALL and not train.decodes_lazily


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
        test_rows=len(plan.splits.test) if plan.splits.test else 0,
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
        what = f"computing the features of {len(rows):,} {split} images"
        running.screen.say(f"{what} with {plan.job.model.name}, once for all ways{_of_views(views)}")
        parts = []
        told = _teller(running, what, len(rows) * views)
        for part in compute(split, torch.arange(len(rows)), views=views, told=told):
            parts.append(part)
            images += len(part)
            running.check_lease()
            if running.run.stop_requested():
                raise Interrupted(f"{running.stopped}; resume with: {running.command}")
        Features.concatenate(parts).write(running.run.folder, split)
    seconds = time.perf_counter() - began
    if images:
        running.screen.say(f"features of {images:,} images computed in {seconds:.1f} s")
    return seconds / max(1, images)


def _of_views(views: int) -> str:
    return f", {views} views of each" if views > 1 else ""


def _teller(running: Running, what: str, images: int) -> Callable[[int], None]:
    """Shows now and then how far the features are, when it is called with how many of `images` are done."""
    began = said = time.perf_counter()

    def tell(done: int) -> None:
        nonlocal said
        now = time.perf_counter()
        if now - said >= TELL_SECONDS:
            said, left = now, (now - began) * (images - done) / max(1, done)
            running.screen.status(f"{what}: {done / max(1, images):.0%}, {format_seconds(left)} left")

    return tell


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
    if job.compare_scratch and "scratch" not in strategies:
        strategies.append("scratch")
    found = []
    for count in [None, *reduced_sizes(job, plan.splits.train.labels)]:
        for strategy in strategies:
            folder = f"trials/{strategy}" + (f"-{count}" if count else "")
            child = strategy_job(job, strategy, per_class=count, name=folder)
            weight = epoch_weight(plan, count)
            if strategy == "features":  # computed once, and charged once
                seconds = 0.0 if count else decision.seconds_per_image * feature_images(job, plan)
                head = HeadTrainable(job.features, running.run.folder.uri, seconds)
                found.append(Trial(folder, child, head, weight=0.0))
            else:
                found.append(Trial(folder, child, train_way, weight=weight))
    return found


def epoch_weight(plan: Plan, per_class: int | None) -> float:
    """What an epoch on `per_class` images of each class takes beside one on all of them.

    A validation image, which has no backward pass, counts as a third.
    """
    rows, fixed = len(plan.splits.train), len(plan.splits.validation) / 3
    fewer = rows if per_class is None else min(rows, per_class * len(plan.splits.train.classes))
    return (fewer + fixed) / (rows + fixed)


def feature_images(job: TransferJob, plan: Plan) -> int:
    """How many images, views counted, features are computed of."""
    views = {"train": job.features.views}
    return sum(views.get(split, 1) * len(rows_of_split(plan, split)) for split in split_names(plan))


def conclude(running: Running, study: TransferStudy, decision: TransferDecision) -> None:
    """Chooses, keeps the chosen model as the run's own, and tells what a person wants to know at the end."""
    run, screen = running.run, running.screen
    accuracy = study.accuracy()
    candidates = tuple(name for name in decision.candidates if name in accuracy)
    if not candidates:
        first = next(iter(study.outcomes.values()), None)
        why = first.message if first else "there was no strategy to try"
        raise LehrError(f"no strategy finished: {why}")
    rows = decision.validation_rows
    names = {name: called(name, study.outcomes[f"trials/{name}"].run) for name in candidates}
    choice = choose(candidates, accuracy, rows, {name: said for name, said in names.items() if said == HEAD_ONLY})
    chosen = study.outcomes[f"trials/{choice.strategy}"].run
    weights, description = read_model(chosen.folder)
    run.write_model(weights, description)
    if answers := Answers.read(chosen.folder):
        answers.write(run.folder)
    replace(decision, chosen=choice.strategy, why=choice.why, called=names[choice.strategy]).write(run.folder)
    outcome = chosen.outcome()
    assert outcome is not None  # it finished, or it could not be chosen
    head_only = names[choice.strategy] == HEAD_ONLY
    message = f"{HEAD_ONLY if head_only else choice.strategy}: {choice.why}"
    if head_only:
        message += f"; its kept model is of epoch {outcome.best.epoch} of the fine-tuning, before the body was trained"
    metrics = {name: value for name, value in description.get("metrics", {}).items() if value is not None}
    told = run.progress()
    overview = replace(told.overview or Overview(), done=1.0)
    told = replace(told, status="finished", message=message, best=outcome.best, metrics=metrics, overview=overview)
    told = replace(told, measured_rows=outcome.measured_rows)
    run.write_progress(told)
    write_report(run)
    screen.progress(told)
    screen.close()
    for each in strategy_trials(run):
        if each.per_class is None:
            screen.say(each.sentence(rows))
    screen.say(f"Chosen: {message}.")
    metric, value = outcome.best.metric, outcome.best.value
    if value is not None:
        screen.say(f"Best {spoken_in_full(metric)}: {format_metric(value, metric, outcome.measured_rows)}")
    if "test_accuracy" in metrics:
        test = format_metric(metrics["test_accuracy"], "test_accuracy", outcome.measured_rows)
        screen.say(f"Test accuracy of that model: {test}")
    screen.say(f"Model:  {format_folder(run.folder)}/model")
    screen.say(f"Report: {format_folder(run.folder)}/report.html")


KIND = Kind(
    check=check, run=run, report=report, files=("transfer.json", "neighbours.png"), folders=("features", "trials")
)
