"""Every field of every kind of job is obeyed: a value of it changes what is trained or written, or it is refused.

The tables below hold every path of the JSON Schema. A field that somebody adds must be added here, with a value and a
way to see its effect, or `test_every_field_is_in_the_table` fails; one that nothing reads then fails on its own row.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pydantic import Field as SchemaField
from tests.unit.job.every_field import (
    Field,
    cached,
    compiled,
    effect,
    made,
    network,
    paths_of,
    placed,
    plan_of,
    rates,
    rows,
    trained,
)
from tests.unit.job.seen_of_kinds import cooked, gathered, predicted, searched, shared_out, trainings_of, transferred

from lehr import trust
from lehr.driver.notify import address_of
from lehr.driver.run_folder import choose_run_folder
from lehr.driver.running import Running
from lehr.driver.signals import stop_signals
from lehr.driver.time_limit import time_limited
from lehr.errors import LehrError
from lehr.job import KINDS, FoldsJob, TrainJob, fold_job, from_dict, load, to_dict
from lehr.predict import EnsembleDescription, EnsembleMember
from lehr.runs import Folder, RunFolder
from lehr.tracking import TRACKERS
from lehr.training.group import Group
from lehr.training.loop import train

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

TINY: dict[str, Any] = {
    "data": {"source": "digits", "limit": 40, "classes": ["0", "1", "2", "3"]},
    "model": {"name": "small_cnn", "width": 8},
    "train": {"epochs": 2, "batch_size": 16},
}


def schedule(name: str, given: dict[str, Any] | None = None, **values: Any) -> list[Field]:
    """The fields of a schedule, each with a value."""
    values = {"warmup": "3step", "cooldown": "2step", **values}
    return [
        Field(f"schedule<{name}>.{field}", value, {"schedule": {"name": name, **(given or {})}}, rates)
        for field, value in values.items()
    ]


def section(name: str, given: dict[str, Any], see: Any = None, **values: Any) -> list[Field]:
    """The fields of a section, each with a value."""
    return [Field(f"{name}.{field}", value, given, see) for field, value in values.items()]


def told_at(job: Any) -> str | None:
    """Where the end of a job that the user gives is told; what is sent there: tests/unit/driver/test_notify.py."""
    trust.give(to_dict(job))
    return address_of(job)


def cut_short(job: Any) -> str:
    """Why the job is asked to stop; how it does: tests/unit/driver/test_time_limit.py."""
    nothing: Any = SimpleNamespace(request_stop=str, say=str)
    running = Running(job, nothing, nothing, Path("log.txt"), True, 0.0, nothing, "again", training=True)
    with stop_signals(running), time_limited(running):
        time.sleep(0.2)
    return running.out_of_time


STUCK = {"optimizer.lr": 1e-30, "train.epochs": 5}  # no epoch is better than the first
FALLING = {
    "optimizer.lr": 1e-3, "train.epochs": 5, "train.early_stopping": {"patience": 1, "metric": "train_loss"}
}  # fmt: skip
AVERAGED = {"train.averaging": "ema", "train.metric": "averaged_validation_loss"}
SWA = {"train.averaging": {"kind": "swa", "start": "1step", "every": "1step"}, "train.epochs": 3}
NORM = {"model": {"name": "small_cnn", "width": 8, "norm": "batch"}}
PRETRAINED = {**NORM, "model.weights": "run:first"}

TABLE = {"data.source": "table", "data.path": "{table}", "data.classes": None}

OWN = "tests.unit.job.own_code"


def preparations(section: str) -> list[Field]:
    """The fields that say how images are prepared."""
    at, scale = f"{section}.preprocessing", {"mean": 0.5, "std": 0.5}
    return [
        Field(at, scale),
        Field(f"{at}.mean", 0.25, {at: {"std": 0.5}}, usual=0.5),
        Field(f"{at}.std", 0.25, {at: {"mean": 0.5}}, usual=0.5),
        Field(f"{at}.range", [0, 2], {at: scale}),
        Field(f"{at}.resize", 12, {at: {"crop": 8}}),
        Field(f"{at}.crop", 10),
        Field(f"{at}.interpolation", "nearest", {at: {"crop": 10}}),
    ]


TRAINING: list[Field] = [
    Field("seed", 1),
    Field("task", "multilabel"),
    Field("task.name", "multilabel", {"task": {}}),
    Field(
        "data.columns",
        {"label": "second"},
        {"data.source": "table", "data.path": "{table}", "data.classes": None},
        rows,
        usual={"label": "first"},
    ),
    Field(
        "data.columns.label",
        "second",
        {"data.source": "table", "data.path": "{table}", "data.classes": None},
        rows,
        usual="first",
    ),
    Field(
        "data.columns.image",
        "other",
        {"data.source": "table", "data.path": "{table}", "data.classes": None, "data.columns.label": "first"},
        rows,
        usual="file",
    ),
    Field("data.source", "images", {"data.path": "{photos}", "data.classes": None}, rows, usual="parquet"),
    Field("data.path", "{photos}", {"data.source": "images", "data.classes": None}, rows, usual="{others}"),
    Field("data.validation", 0.5),
    Field("data.test", "{others}", {"data.source": "images", "data.path": "{photos}", "data.classes": None}),
    Field("data.augment", ["shift"]),
    Field("data.augment[].name", "erasing", {"data.augment": [{"name": "shift"}]}, rows),
    Field("data.limit", 30),
    Field("data.classes", ["0", "1"]),
    Field("data.per_class", 3),
    Field("data.split_seed", 3),
    Field("data.split", "third", {**TABLE, "data.labels": "first"}, rows),
    Field("data.group", "fourth", {**TABLE, "data.labels": "first", "data.validation": 0.5}, rows),
    Field("data.stratify", "none"),
    Field("data.fold", "1/2"),
    Field("data.image_size", 10),
    Field("data.channels", 3),
    Field("data.pixel_range", [0, 100], see=rows),
    Field(
        "data.decode",
        "scaled",
        {"data.source": "images", "data.path": "{large}", "data.classes": None, "data.image_size": 8},
        rows,
    ),
    Field("data.skip_unreadable", 0.5, {"data.source": "images", "data.path": "{broken}", "data.classes": None}, rows),
    Field("data.cache", "stream", see=cached),
    Field(
        "data.shards",
        1,
        {"data.cache": "stream", "data.source": "parquet", "data.path": "{parts}", "data.classes": None},
        rows,
    ),
    Field("data.sampling", "balanced"),
    Field("model", "resnet20", see=network),
    Field("model.name", "resnet20", {"model": {}}, network),
    Field("model.weights", "run:first", NORM),
    *preparations("model"),
    Field("loss.name", "focal"),
    Field("loss.label_smoothing", 0.2),
    Field("loss.class_weights", [1, 2, 3, 4]),
    Field("finetune", {"frozen": 1}, PRETRAINED),
    *section(
        "finetune",
        {**PRETRAINED, "finetune": {"head_first": "1step"}},
        head_first="3step",
        lr_factor=0.5,
        frozen=1,
        layer_decay=0.5,
        unfreeze="2step",
        batch_norm="train",
    ),
    Field("optimizer", "adam"),
    Field("optimizer.name", "adam"),
    Field("optimizer.lr", 0.2),
    Field("optimizer.weight_decay", 0.1),
    Field("optimizer.decay_norms", True, {"optimizer.weight_decay": 0.1}),
    Field("optimizer.scale_lr", {"base_batch": 4, "warmup": "2step"}),
    Field("optimizer.scale_lr.base_batch", 8, {"optimizer.scale_lr": {"warmup": "2step"}}),
    Field("optimizer.scale_lr.warmup", "1step", {"optimizer.scale_lr": {"base_batch": 8, "warmup": "2step"}}),
    Field("metrics", ["f1"]),
    Field("metrics[].name", "f1", {"metrics": [{"name": "balanced_accuracy"}]}),
    Field("metrics[].label", "mine", {"metrics": [{"name": "f1"}]}),
    Field(
        "metrics[].better", "lower", {"metrics": [{"name": "f1"}], "train.metric": "validation_f1", "train.epochs": 5}
    ),
    Field("callbacks", [f"{OWN}:Stops"]),
    Field("callbacks[].name", f"{OWN}:Stops", {"callbacks": [{"name": f"{OWN}:Watches"}]}),
    Field("schedule.warmup", "3step", {"schedule": {"name": f"{OWN}:half"}}, rates),
    Field("schedule.cooldown", "2step", {"schedule": {"name": f"{OWN}:half"}}, rates),
    Field("schedule", "linear"),
    Field("schedule.name", "linear"),
    *schedule("constant"),
    *schedule("step", every="2step", milestones=["1step"], gamma=0.5),
    *schedule("cosine", end_factor=0.5),
    *schedule("linear", end_factor=0.5),
    *schedule("inverse_sqrt", timescale="2step"),
    *schedule("polynomial", power=1.0, end_factor=0.5),
    *schedule("exponential", gamma=0.5, every="2step"),
    *schedule("cyclic", {"cycles": 2}, cycles=1, growth=2.0, end_factor=0.5),
    Field(
        "schedule<cyclic>.length",
        "2step",
        {"schedule": {"name": "cyclic", "end_factor": 0.1}, "train.epochs": 4},
        rates,
    ),
    *schedule("one_cycle", rise="50%", start_factor=0.5, end_factor=0.5, shape="linear"),
    *schedule("wsd", {"decay": "50%"}, decay="40%", shape="cosine", end_factor=0.5),
    Field("train.epochs", 3),
    Field("train.batch_size", 8),
    Field("train.early_stopping", {"patience": 1}, STUCK),
    Field("train.early_stopping.patience", 2, {**STUCK, "train.early_stopping": {"patience": 1}}),
    Field("train.early_stopping.min_change", 0.9, FALLING),
    Field("train.early_stopping.metric", "validation_accuracy", FALLING),
    Field("train.averaging", "ema"),
    Field("train.averaging.kind", "swa", {"train.averaging": {}}),
    Field("train.averaging.decay", 0.1, AVERAGED),
    *section("train.averaging", SWA, start="6step", every="2step"),
    Field("train.averaging.statistics_rows", 10, {**NORM, **SWA}),
    Field("train.metric", "validation_loss"),
    Field("train.precision", "fp64"),
    Field("train.checkpoint", {"every": "1step"}),
    Field("train.checkpoint.every", "1step"),
    Field("train.checkpoint.keep", 5, {"train.checkpoint": {"every": "1step"}}),
    Field("train.checkpoint.snapshots", True, {"train.epochs": 6, "schedule": {"name": "cyclic", "cycles": 6}}),
    Field("train.max_gradient_norm", 0.01),
    Field("train.gradient_accumulation", 2, NORM),
    Field("train.channels_last", False, see=network),
    Field("train.compile", True, see=compiled),
    Field("train.sync_batch_norm", False, NORM, network),
    Field("train.evaluated_training_rows", 5),
    Field(
        "train.stop_on",
        ["not_learning"],
        {"optimizer.lr": 1e-12, "train.epochs": 6, "data.classes": None, "train.batch_size": 4},
    ),
    Field("workers.count", 2, see=placed),
    Field("workers.gpus", 0.5, see=placed),
    Field("workers.cpus", 3.0, see=placed),
]

OF_EVERY_RUN = [
    Field("name", "other", see=lambda job: choose_run_folder(job, fresh=False)[0].uri),
    Field("storage", "elsewhere", see=lambda job: choose_run_folder(job, fresh=False)[0].uri),
    Field("notify", "https://example.org", see=told_at),
    Field("time_limit", "0.1s", see=cut_short),
    Field("tracking", ["tensorboard"], see=lambda job: [TRACKERS[name].package for name in job.tracking]),
]

SECTIONS = ["data", "model", "loss", "finetune", "optimizer", "schedule", "train", "workers"]
EXCEPTIONS: dict[str, str] = {
    "kind": "says which table of this page holds",
    "notes": "is free text, kept with the run in job.yaml",
    "extends": "names the file that the others come from; test_a_job_is_what_it_extends sees it",
    "data": "is a section of nothing but fields", "loss": "likewise", "train": "likewise", "workers": "likewise",
    "workers.retries": "needs processes that are lost: tests/faults/test_workers_lost.py",
}  # fmt: skip


GRID = {"space": {"optimizer": {"lr": {"uniform": [1, 9], "points": 2}}}, "method": "grid"}
SMALL = {**TINY, "train": {"epochs": 6, "batch_size": 16}}
OTHERS: dict[str, tuple[dict[str, Any], Any, list[Field]]] = {
    "search": (
        {"base": SMALL, "space": {"optimizer.weight_decay": [n / 10 for n in range(8)]}, "budget": 8},
        searched,
        [
            Field("seed", 1),
            Field("base", {"train": {"epochs": 2}}),
            Field("space", {"optimizer.lr": [0.1, 0.2]}),
            Field("space.*.grid", [0.1, 0.2]),
            Field("space.*.choice", [0.1, 0.2]),
            Field("space.*.uniform", [0.1, 0.2]),
            Field("space.*.log_uniform", [0.1, 0.2]),
            Field("space.*.int", [1, 2]),
            Field("space.*.step", 2, {"space": {"optimizer": {"lr": {"int": [1, 9]}}}}),
            Field("space.*.points", 3, GRID),
            Field("space.*.when", {"optimizer.name": "adam"}, {"space": {"optimizer": {"lr": {"uniform": [1, 9]}}}}),
            Field("method", "quasi_random"),
            Field("stopping", "none"),
            Field("stopping.name", "median"),
            Field("stopping.first", 1),
            Field("stopping.factor", 2),
            Field("stopping.least", 2, {"stopping": {"name": "median", "first": 1}}),
            Field("budget", 3),
            Field("budget.trials", 3),
            Field("budget.epochs", 9),
            Field("budget.minutes", 1e-9, {"budget": {"trials": 3}}),
        ],
    ),
    "recipe": (
        {"base": SMALL},
        cooked,
        [
            Field("seed", 1),
            Field("base", {"train": {"batch_size": 8}}),
            Field("budget", "10ep", {"recipe.start_at": "coarse"}),
            Field("budget.epochs", 10, {"recipe.start_at": "coarse"}),
            Field("budget.minutes", 3),
            Field("recipe", {"start_at": "coarse"}),
            Field("recipe.learning_rates", [0.5], {"recipe.start_at": "coarse"}),
            Field("recipe.weight_decays", [0.5], {"recipe.start_at": "coarse"}),
            Field("recipe.range_test", True, {"recipe.start_at": "learning_rate"}),
            Field("recipe.start_at", "overfit"),
            Field("recipe.stop_after", "initial_loss"),
        ],
    ),
    "ensemble": (
        {"base": SMALL},
        gathered,
        [
            Field("seed", 1),
            Field("method", "independent"),
            Field("base", {"train": {"batch_size": 8}}),
            Field("cycles", 3),
            Field("restart_rate", 0.5),
            Field("members", 2, {"method": "independent"}),
            Field("averages", ["ema"], {"method": "average"}),
            *(
                Field(f"averages[].{name}", value, {"method": "average", "averages": [{"kind": kind}]})
                for name, value, kind in (
                    ("kind", "swa", "ema"),
                    ("decay", 0.9, "ema"),
                    ("start", "3ep", "swa"),
                    ("every", "2ep", "swa"),
                    ("statistics_rows", 9, "swa"),
                )
            ),
            Field("combine", "best"),
            Field("combine.by", "logits"),
            Field("combine.select", "best"),
            Field("combine.last", 2, {"combine": {"select": "last"}}),
            Field("compare", False),
        ],
    ),
    "transfer": (
        {
            "base": {"data": {"source": "digits", "classes": ["8", "9"], "limit": 40}, "train": SMALL["train"]},
            "backbone": "run:first",
            "features": {"steps": 5},
        },
        transferred,
        [
            Field("seed", 1),
            Field("backbone", "run:second"),
            Field("backbone.name", "run:second"),
            Field(
                "backbone.weights",
                "{weights}",
                {"backbone": {"name": "small_cnn", "width": 8, "norm": "batch"}},
                usual="{others}.safetensors",
            ),
            Field("strategy", "scratch"),
            Field("base", {"train": {"batch_size": 8}}),
            Field("features", {"steps": 3}),
            Field("features.views", 2, {"base.data.augment": ["shift"]}),
            Field("features.hidden", 3),
            Field("features.rates", [0.5]),
            Field("features.weight_decays", [0.5]),
            Field("features.steps", 3),
            Field("features.batch_size", 8),
            Field("finetune", {"frozen": 1}),
            *section(
                "finetune",
                {},
                head_first="3step",
                lr_factor=0.5,
                frozen=1,
                layer_decay=0.5,
                unfreeze="2step",
                batch_norm="train",
            ),
            *preparations("backbone"),
            Field("compare_scratch", True),
            Field("images_per_class", [3]),
        ],
    ),
    "predict": (
        {"run": "run:first", "data": {"source": "digits"}},
        predicted,
        [
            Field("run", "run:second"),
            Field("data.source", "images", {"data.path": "{others}"}, usual="parquet"),
            Field("data.path", "{others}", {"data.source": "images"}, usual="{photos}"),
            Field("data.skip_unreadable", 0.5, {"data.source": "images", "data.path": "{broken}"}),
            Field(
                "data.columns",
                {"label": "second"},
                {"data.source": "table", "data.path": "{table}"},
                usual={"label": "first"},
            ),
            Field("data.columns.label", "second", {"data.source": "table", "data.path": "{table}"}, usual="first"),
            Field(
                "data.columns.image",
                "other",
                {"data.source": "table", "data.path": "{table}", "data.columns.label": "first"},
                usual="file",
            ),
            Field("split", "test", {"data": {"source": "images", "path": "{splits}"}}),
            Field("out", "{others}-out"),
            Field("members", True, {"run": "run:both"}),
            Field("batch_size", 9),
            Field("workers.count", 1, see=shared_out),
            Field("workers.gpus", 2.0, see=shared_out),
            Field("workers.cpus", 4.0, see=shared_out),
        ],
    ),
}
REFUSED: dict[str, list[tuple[str, Any, dict[str, Any]]]] = {
    "train": [
        ("optimizer.decay_norms", True, {}),
        ("finetune", {"frozen": 1}, {}),
        ("train.early_stopping", {"metric": "nonsense"}, {}),
        ("train.checkpoint.snapshots", True, {}),
        ("train.gradient_accumulation", 17, {}),
        ("train.averaging.decay", 0.5, {"train.averaging": "swa"}),
        ("train.averaging.start", "1ep", {"train.averaging": "ema"}),
        ("data.path", "{photos}", {}),
        ("train.compile", "reduce-overhead", {"train.gradient_accumulation": 2}),
        ("model.preprocessing.range", [0, 2], {}),
        ("model.preprocessing.resize", 12, {}),
        ("model.preprocessing.interpolation", "nearest", {}),
        ("model.preprocessing.crop", 10, {"data.image_size": 9}),
        ("model.preprocessing", {"mean": 127, "std": 128}, {}),
        ("data.validation", 0.3, {"data.fold": "1/5"}),
        ("data.split", "first", {}),
        ("data.group", "first", {}),
        ("data.fold", "6/5", {}),
        ("data.shards", 4, {"data.cache": "memory"}),
        ("data.decode", "scaled", {}),
    ],
    "folds": [("data.fold", "1/5", {}), ("data.validation", 0.3, {}), ("folds", 1, {})],
    "search": [
        ("stopping.least", 3, {}),
        ("stopping.factor", 2, {"stopping": "none"}),
        ("stopping.factor", 2, {"stopping": "median"}),
        ("stopping.first", 4, {"stopping": "none"}),
        ("space.optimizer.lr", {"uniform": [0.1, 1], "points": 3}, {}),
        ("space.optimizer.lr", {"uniform": [0.1, 1], "step": 1}, {}),
        ("space.workers", [1, 2], {}),
        ("space.notes", ["a", "b"], {}),
        ("budget.trials", 2, {"method": "grid"}),
    ],
    "recipe": [
        ("seed", 3, {"base.seed": 4}),
        ("base.optimizer.scale_lr", {"base_batch": 8}, {}),
        ("recipe.range_test", True, {"recipe.start_at": "coarse"}),
        ("recipe.range_test", True, {"recipe.learning_rates": [0.1]}),
        ("recipe.stop_after", "overfit", {"recipe.start_at": "learning_rate"}),
        ("recipe.stop_after", "learning_rate", {"recipe.learning_rates": [0.1]}),
        ("budget", "1h", {"recipe.start_at": "coarse"}),
    ],
    "ensemble": [
        ("cycles", 3, {"method": "average"}),
        ("restart_rate", 0.3, {"method": "independent"}),
        ("members", 3, {}),
        ("averages", ["ema"], {}),
        ("combine.last", 2, {"combine.select": "best"}),
        ("base.train.early_stopping", {"patience": 2}, {}),
        ("base.train.stop_on", ["diverged"], {}),
        ("base.train.averaging", "ema", {"method": "average"}),
        ("base.schedule", "step", {}),
        ("base.schedule.end_factor", 0.1, {"base.schedule": "cosine"}),
        ("seed", 3, {"base.seed": 4}),
    ],
    "transfer": [
        ("features.steps", 9, {"strategy": ["finetune"], "features": None}),
        ("finetune.frozen", 1, {"strategy": ["features"]}),
        ("compare_scratch", True, {"strategy": ["features", "scratch"]}),
        ("backbone.preprocessing.crop", 10, {"base.data.image_size": 9}),
        ("base.model", "resnet20", {}),
        ("base.finetune", {"frozen": 1}, {}),
        ("backbone.weights", "pretrained", {}),
        ("seed", 3, {"base.seed": 4}),
    ],
    "predict": [
        ("seed", 1, {}),
        *(
            (f"data.{name}", value, {})
            for name, value in {
                "validation": 0.5, "test": "none", "augment": ["flip"], "limit": 3, "classes": ["0", "1"],
                "per_class": 2, "split_seed": 1, "image_size": 9, "channels": 3, "pixel_range": [0, 9],
                "decode": "scaled", "cache": "stream", "sampling": "balanced", "split": "other", "group": "person",
                "stratify": "labels", "fold": "1/5", "shards": 4,
            }.items()
        ),
        ("workers.count", [1, 2], {}),
        ("workers.retries", 1, {}),
    ],
}  # fmt: skip
"""For each kind, settings that others rule out: (field, value, other fields)."""

EXCEPTIONS_OF_KINDS = {
    "search": {},
    "recipe": {},
    "ensemble": {},
    "transfer": {},
    "predict": {"data": "is a section of nothing but fields", "workers": "likewise"},
}


COMMON = (
    "kind",
    "name",
    "storage",
    "notes",
    "notify",
    "time_limit",
    "tracking",
    "extends",
)  # the same code in every kind


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two sets of photographs, one of which has an unreadable one, and a run to start from."""
    folder = tmp_path_factory.mktemp("fields")
    random = np.random.default_rng(0)
    for name in ("photos", "others", "broken"):
        for label in ("cat", "dog"):
            (folder / name / label).mkdir(parents=True)
            for number in range(6):
                pixels = random.integers(0, 255, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / name / label / f"{number}.png")
    (folder / "broken" / "cat" / "0.png").write_bytes(b"no image")
    for label in ("cat", "dog"):
        (folder / "large" / label).mkdir(parents=True)
        for number in range(6):
            pixels = random.integers(0, 255, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "large" / label / f"{number}.jpg", quality=95)
    lines = [
        f"photos/{label}/{number}.png,{label},{number % 2},others/{label}/{number}.png,"
        f"{('train', 'test', 'valid')[number % 3]},g{number}"
        for label in ("cat", "dog")
        for number in range(6)
    ]
    (folder / "table.csv").write_text("\n".join(["file,first,second,other,third,fourth", *lines]))
    images = [path.read_bytes() for path in sorted(folder.glob("photos/*/*.png"))]
    parts = pa.table({"image": pa.array(images, pa.binary()), "label": [row // 6 for row in range(12)]})
    named = parts.replace_schema_metadata({"classes": "cat,dog"})
    pq.write_table(named, folder / "parts.parquet", row_group_size=1)
    torch.set_num_threads(1)
    first = {"kind": "train", **TINY, **NORM, "storage": str(folder)}
    for number, name in enumerate(("first", "second")):
        plan = plan_of(made(first, {"name": name, "seed": number, "data.split_seed": 0}))
        train(plan, RunFolder.create(Folder.at(folder / name), to_dict(plan.job)), Group())
        shutil.copytree(folder / name, folder / "both" / "members" / name)
    shutil.copy(folder / "first" / "job.yaml", folder / "both")
    halves = (EnsembleMember("members/first", 0.5), EnsembleMember("members/second", 0.5))
    EnsembleDescription("probabilities", halves, "equal").write(Folder.at(folder / "both"))
    shutil.copytree(folder / "photos", folder / "splits" / "train")
    shutil.copytree(folder / "others", folder / "splits" / "test")
    for name, run in (("weights", "first"), ("others", "second")):
        (weights,) = (folder / run / "model").glob("*.safetensors")
        shutil.copy(weights, folder / f"{name}.safetensors")
    return folder


def placed_in(value: Any, place: Path) -> Any:
    """The value with the folders of `place` in it."""
    if isinstance(value, str):
        names = {name: place / name for name in ("photos", "others", "broken", "large", "splits")}
        return value.format(
            **names, table=place / "table.csv", weights=place / "weights.safetensors", parts=place / "parts.parquet"
        )
    if isinstance(value, dict):
        return {key: placed_in(each, place) for key, each in value.items()}
    return value


def looked_at(kind: str, base: dict[str, Any], field: Field, place: Path, see: Any = trained) -> str:
    field = Field(*(placed_in(part, place) if number in (1, 2, 4) else part for number, part in enumerate(field)))
    return effect(kind, {**base, "storage": str(place)}, field, field.see or see)


@pytest.mark.parametrize("field", [*TRAINING, *OF_EVERY_RUN], ids=lambda field: field.path)
def test_a_field_of_a_training_is_obeyed(field: Field, place: Path) -> None:
    assert looked_at("train", TINY, field, place) == ""


@pytest.mark.parametrize(
    ("kind", "field"), [(kind, field) for kind, (_, _, fields) in OTHERS.items() for field in fields],
    ids=lambda value: value.path if isinstance(value, Field) else value,
)  # fmt: skip
def test_a_field_of_another_kind_is_obeyed(kind: str, field: Field, place: Path) -> None:
    base, see, _ = OTHERS[kind]
    assert looked_at(kind, base, field, place, see) == ""


NOT_PASSED_ON = {
    "recipe": {"optimizer.weight_decay": "is searched, from recipe.weight_decays", "optimizer.lr": "is searched"},
    "transfer": {"model": "is refused: it is backbone", "finetune": "is refused: it is beside base"},
}


@pytest.mark.parametrize("kind", ["search", "recipe", "ensemble", "transfer"])
def test_the_fields_of_base_reach_the_trainings(kind: str, place: Path) -> None:
    base = {**OTHERS[kind][0], "kind": kind, "storage": str(place)}
    ignored = []
    for field in TRAINING:
        if field.path.split(".")[0] in NOT_PASSED_ON.get(kind, {}) or field.path in NOT_PASSED_ON.get(kind, {}):
            continue
        path = ".".join(part.partition("<")[0] for part in field.path.replace("[]", ".0").split("."))
        without = {**field.given, **({path: field.usual} if field.usual is not None else {})}
        if kind == "transfer" and set(without) & {"model", "model.weights", "finetune"}:
            without = {key: value for key, value in without.items() if key.split(".")[0] not in ("model", "finetune")}
        jobs = [
            trainings_of(from_dict(base, {f"base.{key}": placed_in(value, place) for key, value in changes.items()}))
            for changes in (without, {**without, path: field.value})
        ]
        if jobs[0] == jobs[1]:
            ignored.append(field.path)
    refused = {field.removeprefix("base.") for field, _, _ in REFUSED[kind]}
    assert sorted(path for path in ignored if not any(path.startswith(each) for each in refused)) == []


@pytest.mark.parametrize(
    ("kind", "field", "value", "given"), [(kind, *each) for kind, all_of_it in REFUSED.items() for each in all_of_it]
)
def test_a_setting_that_would_have_no_effect_is_refused(
    kind: str, field: str, value: Any, given: dict[str, Any], place: Path
) -> None:
    base = TINY if kind in ("train", "folds") else OTHERS[kind][0]
    common = {"kind": kind, **base, "storage": str(place)}
    see = plan_of if kind == "train" else lambda job: job
    see(made(common, placed_in(given, place)))
    with pytest.raises(LehrError) as refused:
        see(made(common, placed_in({**given, field: value}, place)))
    assert field.split(".")[-1].split("[")[0] in str(refused.value)
    assert refused.value.exit_code == 2


def test_every_field_is_in_the_table() -> None:
    there = {field.path for field in (*TRAINING, *OF_EVERY_RUN)} | set(EXCEPTIONS)
    assert sorted(set(paths_of("train")) - there) == []
    assert sorted(there - set(paths_of("train"))) == []
    for kind, (_, _, fields) in OTHERS.items():
        refused = {field for field, _, given in REFUSED[kind] if not given}
        there = {field.path for field in fields} | refused | set(EXCEPTIONS_OF_KINDS[kind]) | set(COMMON)
        known = {path for path in paths_of(kind) if not path.startswith("base.")} - {"data.augment[].name"}
        assert sorted(known - there) == [], kind


def test_the_fields_of_folds_are_those_of_a_training_and_reach_each_fold(place: Path) -> None:
    assert set(paths_of("folds")) - set(paths_of("train")) == {"folds"}
    said = placed_in({"data.test": "none", "train.epochs": 3, "workers.count": 2, "callbacks": [f"{OWN}:Stops"]}, place)
    job = made({"kind": "train", **TINY, "storage": str(place)}, {**said, "folds": 3})
    assert isinstance(job, FoldsJob)
    one = made({"kind": "train", **TINY, "storage": str(place)}, {**said, "data.fold": "2/3"})
    assert fold_job(job, 2) == one


class Planted(TrainJob):
    """A training with a field that somebody added and nobody reads."""

    kind: Literal["train"] = "train"
    sparkle: int = SchemaField(default=0, description="How much the weights sparkle.")


def test_a_field_that_nobody_reads_is_found(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.setitem(KINDS, "train", Planted)
    with pytest.raises(AssertionError, match="sparkle"):
        test_every_field_is_in_the_table()
    assert looked_at("train", TINY, Field("sparkle", 3), place) == "sparkle: 3 changes nothing"


def test_two_trainings_of_one_job_leave_the_same(place: Path) -> None:
    job = made({"kind": "train", **TINY, "storage": str(place)}, {})
    before = trained(job)
    assert trained(job) == before


def test_a_job_is_what_it_extends(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("kind: train\ntrain: {epochs: 3}\n")
    (tmp_path / "job.yaml").write_text("kind: train\nextends: base.yaml\n")
    job = load(tmp_path / "job.yaml")
    assert isinstance(job, TrainJob)
    assert job.train.epochs == 3
