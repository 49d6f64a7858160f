"""A job is its file merged over what the file extends, with the overrides over both."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from lehr.job import Job, TrainJob, difference, from_dict, load, parse_overrides, to_dict
from lehr.job.sections import Augment
from lehr.schedules import Cosine

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEHR_STORAGE", raising=False)
    (tmp_path / "jobs").mkdir()
    return tmp_path


def write(name: str, text: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)
    return name


def changes(job: Job) -> dict[str, Any]:
    """What differs from a job with all defaults."""
    return {path: new for path, (_, new) in difference(to_dict(from_dict({})), to_dict(job)).items()}


BASE = "optimizer: {lr: 0.3, momentum: 0.9}\n"


def test_the_example_of_the_design_loads_as_written() -> None:
    job = load(
        write(
            "jobs/train.yaml",
            """
kind: train
name: digits-cosine
data:      {source: digits, validation: 0.2, augment: [shift]}
model:     {name: small_cnn}
loss:      {name: cross_entropy, label_smoothing: 0.0, class_weights: none}
optimizer: {name: sgd, lr: 0.1, momentum: 0.9, weight_decay: 1e-4}
schedule:  {name: cosine, warmup: 1ep}
train:     {epochs: 20, batch_size: 128, early_stopping: {patience: 5}, averaging: {decay: 0.999}}
workers:   auto
storage:   ./runs
""",
        )
    )
    assert isinstance(job, TrainJob)
    assert isinstance(job.schedule, Cosine)
    assert job.optimizer.options == {"momentum": 0.9}
    assert job.optimizer.weight_decay == 1e-4
    assert job.data.augment == [Augment(name="shift")]
    assert job.train.early_stopping is not None
    assert job.train.early_stopping.patience == 5
    assert (job.run_name, job.named_explicitly) == ("digits-cosine", True)


def test_the_smallest_job_has_a_default_for_every_field() -> None:
    job = load(write("jobs/train.yaml", "kind: train"))
    assert job == TrainJob() == from_dict({})
    assert isinstance(job, TrainJob)
    assert str(job.train.checkpoint.every) == "1ep"
    assert (job.data.source, job.model.name, job.optimizer.name, job.workers.count) == (
        "digits",
        "small_cnn",
        "sgd",
        "auto",
    )


SCALARS = [  # YAML 1.2: no surprises from older YAML
    ("1e-4", 1e-4),
    ("1.", 1.0),
    ("-.5", -0.5),
    ("+3", 3),
    ("007", 7),
    ("0o17", 15),
    ("0xff", 255),
    ("true", True),
    ("False", False),
    ("null", None),
    ("~", None),
    ("", None),
    ("no", "no"),
    ("on", "on"),
    ("y", "y"),
    ("12:30:45", "12:30:45"),
    ("2024-01-02", "2024-01-02"),
    ("1_000", "1_000"),
    ("<<", "<<"),
    ("'5'", "5"),
    ("run:x", "run:x"),
    ("{a: [1, no]}", {"a": [1, "no"]}),
]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_yaml_means_what_it_shows(text: str, value: object) -> None:
    parsed = parse_overrides([f"model.x={text}"])["model.x"]
    assert parsed == value
    assert type(parsed) is type(value)


SHORT_FORMS = [
    ("optimizer: adam", {"optimizer.name": "adam", "optimizer.lr": 0.001}),
    ("schedule: cosine", {"schedule.name": "cosine", "schedule.end_factor": 0.0}),
    ("schedule: {warmup: 1ep}", {"schedule.warmup": "1ep"}),
    ("workers: 4", {"workers.count": 4}),
    ("workers: auto", {}),
    ("workers: {count: [2, 8], gpus: 0.5}", {"workers.count": [2, 8], "workers.gpus": 0.5}),
    (
        "data: {augment: [shift, {name: flip, p: 0.5}]}",
        {"data.augment": [{"name": "shift"}, {"name": "flip", "p": 0.5}]},
    ),
    ("data: {validation: 20%}", {"data.validation": 0.2}),
    ("data: {validation: '0.3'}", {"data.validation": 0.3}),
    ("data: {image_size: 32}", {"data.image_size": 32}),
    ("data: {image_size: [32, 48]}", {"data.image_size": [32, 48]}),
    ("loss: {class_weights: [1, 2.5]}", {"loss.class_weights": [1.0, 2.5]}),
    ("optimizer:\n  lr:\nschedule:\ntrain: {max_gradient_norm: null, epochs: null}", {}),  # null means the default
    ("model: {name: mlp, depth: 3, dropout: null}", {"model.name": "mlp", "model.depth": 3}),
    ("optimizer: &o {lr: 0.2}\nloss: *o", {"optimizer.lr": 0.2, "loss.lr": 0.2}),
]


@pytest.mark.parametrize(("text", "expected"), SHORT_FORMS)
def test_short_forms_mean_their_long_ones(text: str, expected: dict[str, Any]) -> None:
    assert changes(load(write("jobs/train.yaml", text))) == expected


ADAM = {"optimizer.name": "adam", "optimizer.lr": 0.001}
KEPT = {"optimizer.lr": 0.3, "optimizer.momentum": 0.9}
OVERRIDES = [
    (BASE, ["optimizer.lr=0.05"], {"optimizer.lr": 0.05, "optimizer.momentum": 0.9}),
    (BASE, ["optimizer=adam"], ADAM),  # another name: nothing of the old section stays
    (BASE, ["optimizer.name=adam"], ADAM),
    (BASE, ["optimizer={name: adam, lr: 0.01}"], ADAM | {"optimizer.lr": 0.01}),
    (BASE, ["optimizer=sgd"], KEPT),  # the same name, said or not: it stays
    (BASE, ["optimizer={weight_decay: 0.1}"], KEPT | {"optimizer.weight_decay": 0.1}),
    (BASE, ["optimizer.name=adam", "optimizer.lr=1e-3"], ADAM | {"optimizer.lr": 1e-3}),
    (BASE, ["optimizer.lr=1e-3", "optimizer.name=adam"], ADAM | {"optimizer.lr": 1e-3}),  # in any order
    (BASE, ["optimizer.lr=1", "optimizer.lr=2"], {"optimizer.lr": 2.0, "optimizer.momentum": 0.9}),
    (BASE, ["optimizer.lr=null", "optimizer.momentum="], {}),
    (BASE, ["optimizer.nesterov=null"], KEPT),
    (BASE, ["optimizer="], {}),
    ("optimizer: adam", ["optimizer.lr=0.01"], ADAM | {"optimizer.lr": 0.01}),
    ("kind: train", ["optimizer.lr=0.01"], {"optimizer.lr": 0.01}),
    (
        "kind: train",
        ["schedule.warmup=1ep", "schedule=cosine"],
        {"schedule.name": "cosine", "schedule.warmup": "1ep", "schedule.end_factor": 0.0},
    ),
    ("schedule: {name: cosine, end_factor: 0.1}", ["schedule=constant"], {}),
    (
        "schedule: {name: cosine, end_factor: 0.1}",
        ["schedule.warmup=5%"],
        {"schedule.name": "cosine", "schedule.end_factor": 0.1, "schedule.warmup": "5%"},
    ),
    ("workers: 2", ["workers.gpus=1"], {"workers.count": 2, "workers.gpus": 1.0}),
    ("workers: {count: 2, gpus: 1}", ["workers=4"], {"workers.count": 4, "workers.gpus": 1.0}),
    ("data: {augment: [shift]}", ["data.augment=[]"], {}),
    ("data: {augment: [shift]}", ["data.augment.0.pixels=2"], {"data.augment": [{"name": "shift", "pixels": 2}]}),
    (
        "data: {augment: [{name: shift, pixels: 2}, cut]}",
        ["data.augment.0=flip"],
        {"data.augment": [{"name": "flip"}, {"name": "cut"}]},
    ),
    ("train: {early_stopping: {patience: 3}}", ["train.early_stopping=null"], {}),
    (
        "kind: train",
        ["train.early_stopping.patience=3"],
        {"train.early_stopping": {"patience": 3, "min_change": 0.0, "metric": None}},
    ),
    ("notes: a", ["notes=b=c"], {"notes": "b=c"}),
]


NESTED = [  # sections within sections follow the same rule: another kind replaces, the same kind stays
    ("train: {averaging: ema}", ["train.averaging.decay=0.9"], {"kind": "ema", "decay": 0.9}),
    ("train: {averaging: {decay: 0.9}}", ["train.averaging=ema"], {"kind": "ema", "decay": 0.9}),
    ("train: {averaging: {decay: 0.9}}", ["train.averaging=swa"], {"kind": "swa"}),
    (
        "train: {averaging: {kind: swa, start: 50%}}",
        ["train.averaging.decay=0.5", "train.averaging.kind=ema"],
        {"kind": "ema", "decay": 0.5},
    ),
    ("kind: train", ["train.averaging.start=60%", "train.averaging=swa"], {"kind": "swa", "start": "60%"}),
]


@pytest.mark.parametrize(("text", "overrides", "expected"), NESTED)
def test_an_override_reaches_into_sections_within_sections(
    text: str, overrides: list[str], expected: dict[str, Any]
) -> None:
    averaging = to_dict(load(write("jobs/train.yaml", text), overrides))["train"]["averaging"]
    assert {key: value for key, value in averaging.items() if value is not None} == expected


@pytest.mark.parametrize(("text", "overrides", "expected"), OVERRIDES)
def test_an_override_changes_what_it_names(text: str, overrides: list[str], expected: dict[str, Any]) -> None:
    path = write("jobs/train.yaml", text)
    assert changes(load(path, overrides)) == expected
    assert changes(load(path, parse_overrides(overrides))) == expected


def test_overrides_may_be_python_values() -> None:
    job = load(write("jobs/train.yaml", BASE), {"schedule": Cosine(end_factor=0.1), "optimizer": {"lr": 0.2}})
    assert changes(job) == {
        "schedule.name": "cosine",
        "schedule.end_factor": 0.1,
        "optimizer.lr": 0.2,
        "optimizer.momentum": 0.9,
    }
    assert load("jobs/train.yaml", "seed=3").seed == 3


def test_a_file_extends_another_by_the_rule_of_overrides() -> None:
    write(
        "base/deep.yaml",
        "name: deep\nseed: 7\noptimizer: {lr: 0.3, momentum: 0.9}\nschedule: {name: cosine, end_factor: 0.1}",
    )
    write("base/base.yaml", "extends: deep.yaml\nname: base\noptimizer: {lr: 0.2}\ntrain: {epochs: 5}")
    job = load(write("jobs/train.yaml", "extends: ../base/base.yaml\nschedule: constant\ntrain: {epochs:}"))
    assert changes(job) == {"seed": 7, "optimizer.lr": 0.2, "optimizer.momentum": 0.9}
    assert (job.run_name, job.named_explicitly) == ("train", False)  # a base's name is its own


def test_paths_are_relative_to_the_file_that_sets_them(here: Path) -> None:
    write("base/base.yaml", "storage: runs\ndata: {source: images, path: ../pictures, test: held-out}")
    write("jobs/train.yaml", "extends: ../base/base.yaml\ndata: {validation: valid}")
    job = load("jobs/train.yaml")
    assert isinstance(job, TrainJob)
    assert job.storage == f"{here}/base/runs"
    assert job.data.path == f"{here}/pictures"
    assert job.data.test == f"{here}/base/held-out"
    assert job.data.validation == f"{here}/jobs/valid"
    job = load("jobs/train.yaml", ["data.path=mine", "storage=../there"])
    assert isinstance(job, TrainJob)
    assert (job.data.path, job.storage) == (f"{here}/mine", f"{here.parent}/there")
    assert (job.folder, job.source) == (here / "jobs", "jobs/train.yaml")
    assert load(here / "jobs" / "train.yaml").source == "jobs/train.yaml"


@pytest.mark.parametrize("text", ["s3://bucket/a/../b", "gs://b", "file:///x", "/abs/path", "run:best"])
def test_uris_absolute_paths_and_runs_stay_as_they_are(text: str) -> None:
    job = from_dict({"data": {"source": "images", "path": text}})
    assert isinstance(job, TrainJob)
    assert job.data.path == text


def test_the_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert from_dict({"storage": "~/runs"}).storage == "/home/someone/runs"


def test_storage_defaults_to_the_current_folder_or_the_environment(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("jobs/train.yaml", "kind: train")
    assert load(path).storage == TrainJob().storage == f"{here}/runs"
    monkeypatch.setenv("LEHR_STORAGE", "s3://bucket/runs")
    assert load(path).storage == "s3://bucket/runs"
    assert load(path, ["storage=x"]).storage == f"{here}/x"


LONG = "data.augment=[shift, {name: flip, p: 0.25}, {name: cutout, pixels: 8}, {name: erase, share: 0.125}]"
NAMES = [
    ("train", "", [], "train", False),
    ("train", "", ["optimizer.lr=0.05"], "train-lr-0.05", False),
    ("train", "", ["schedule=cosine", "optimizer.lr=5e-2"], "train-lr-0.05-schedule-cosine", False),
    ("train", "", ["optimizer.lr=0.05", "schedule=cosine"], "train-lr-0.05-schedule-cosine", False),
    ("train", "", ["data.augment=[shift, {name: flip}]"], "train-augment-shift-name-flip", False),
    ("train", "", ["data.augment.0=flip"], "train-0-flip", False),
    ("train", "", ["model.fill=-1"], "train-fill--1", False),
    ("train", "", ["model.fill=1"], "train-fill-1", False),
    ("train", "", ["seed="], "train-seed-default", False),
    ("train", "", ["model.weights=run:a b/c"], "train-weights-run-a-b-c", False),
    ("train", "", ["storage=x", "workers=2", "workers.gpus=1", "notes=hm"], "train", False),
    ("my job (1)", "", [], "my-job-1", False),
    (".hidden", "", [], "hidden", False),
    ("été", "", [], "t", False),
    ("日本", "", ["seed=1"], "seed-1", False),
    ("日本", "", [], "job", False),
    ("train", "name: digits", ["optimizer.lr=0.05"], "digits", True),
    ("train", "name: digits", ["name=other"], "other", True),
    ("train", "name: digits", ["name=", "seed=1"], "train-seed-1", False),
]


@pytest.mark.parametrize(("stem", "text", "overrides", "name", "explicit"), NAMES)
def test_the_run_is_named_by_the_file_and_its_overrides(
    stem: str, text: str, overrides: list[str], name: str, explicit: bool
) -> None:
    job = load(write(f"jobs/{stem}.yaml", f"kind: train\ndata: {{augment: [shift]}}\n{text}"), overrides)
    assert (job.run_name, job.named_explicitly) == (name, explicit)


def test_long_names_end_in_a_hash_that_tells_them_apart() -> None:
    path = write("jobs/train.yaml", "kind: train")
    one, two = load(path, [LONG]).run_name, load(path, [LONG.replace("0.125", "0.126")]).run_name
    assert one != two
    assert len(one) == len(two) == len("train-") + 60 + len("-12345678")
    assert len(load(write("jobs/" + "x" * 200 + ".yaml", "kind: train"), [LONG]).run_name) <= 100


def test_a_job_from_python_is_named_by_its_content() -> None:
    assert from_dict({"seed": 1}).run_name == from_dict({}, {"seed": 1}).run_name
    assert from_dict({"seed": 1}).run_name != from_dict({"seed": 2}).run_name
    assert from_dict({"seed": 1, "storage": "x"}).run_name == from_dict({"seed": 1}).run_name
    assert from_dict({"name": "mine"}).run_name == "mine"


def test_a_job_travels_between_processes_with_its_locations(here: Path) -> None:
    job = load(write("jobs/train.yaml", "\nmodel: mlp"))
    copy = pickle.loads(pickle.dumps(job))
    assert copy == job
    assert copy.folder == here / "jobs"
    assert copy.error("model.name", "x").where == job.model_copy(update={"seed": 1}).error("model.name", "x").where
    assert copy.error("model.name", "x").where == "jobs/train.yaml:2"
