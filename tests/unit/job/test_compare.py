"""Jobs as dictionaries: read back the same, told apart, hashed by what defines the run, described for editors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from lehr.job import (
    KINDS,
    TrainJob,
    describe_changes,
    difference,
    from_dict,
    job_hash,
    json_schema,
    load,
    to_dict,
)
from lehr.schedules import SCHEDULES

pytestmark = pytest.mark.filterwarnings("error")

FULL: dict[str, Any] = {
    "kind": "train",
    "name": "everything",
    "seed": 7,
    "storage": "s3://bucket/runs",
    "notes": "a\nb: c",
    "data": {
        "source": "images",
        "path": "pictures",
        "validation": "25%",
        "test": "held-out",
        "augment": ["shift", {"name": "flip", "p": 0.5}],
        "limit": 100,
        "image_size": [32, 48],
        "cache": "stream",
    },
    "model": {"name": "my_nets:Net", "weights": "run:other", "depth": 3, "widths": [1, 2]},
    "loss": {"label_smoothing": 0.1, "class_weights": [1, 2.5]},
    "optimizer": {"name": "adamw", "lr": 1e-3, "betas": [0.9, 0.95]},
    "schedule": {"name": "cosine", "warmup": "1234567step", "cooldown": "2.5%", "end_factor": 0.1},
    "train": {
        "early_stopping": {"patience": 3, "metric": "validation_loss"},
        "averaging": {"decay": 0.99},
        "checkpoint": {"every": "0.5ep", "keep": 1},
        "precision": "bf16",
        "max_gradient_norm": 1,
    },
    "workers": {"count": [2, 8], "gpus": 1},
}


@pytest.mark.parametrize(
    "said", [{}, FULL, {"workers": "auto"}, {"workers": 3}, {"loss": {"class_weights": "balanced"}}]
)
def test_a_job_written_down_is_read_back_equal(
    said: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = from_dict(said)
    written = json.loads(json.dumps(to_dict(job)))
    monkeypatch.chdir(tmp_path)  # its paths are absolute: where it is read back does not matter
    assert from_dict(written) == job
    assert to_dict(from_dict(written)) == written
    assert job_hash(from_dict(written)) == job_hash(job)


def test_a_difference_is_reported_by_dotted_path() -> None:
    old, new = (
        to_dict(from_dict({})),
        to_dict(from_dict({"optimizer": {"lr": 0.05, "momentum": 0.9}, "schedule": "cosine"})),
    )
    assert difference(old, new) == {
        "optimizer.lr": (0.1, 0.05),
        "optimizer.momentum": (None, 0.9),
        "schedule.name": ("constant", "cosine"),
        "schedule.end_factor": (None, 0.0),
    }
    assert describe_changes(difference(old, new)) == (
        "optimizer.lr: 0.1 -> 0.05; optimizer.momentum: none -> 0.9; "
        "schedule.name: constant -> cosine; schedule.end_factor: none -> 0.0"
    )
    assert difference(new, old) == {path: (b, a) for path, (a, b) in difference(old, new).items()}
    assert difference(old, old) == {}
    assert describe_changes(difference(old, old)) == ""


def test_a_difference_of_lists_and_sections_is_reported_as_a_whole() -> None:
    old = {"augment": [{"name": "shift"}], "stop": None, "notes": "a\nb"}
    new = {"augment": [], "stop": {"patience": 5}, "notes": ""}
    assert describe_changes(difference(old, new)) == (
        'augment: [{name: "shift"}] -> []; stop: none -> {patience: 5}; notes: "a\\nb" -> ""'
    )


SAME = [
    {"name": "x"},
    {"notes": "x"},
    {"notify": "https://example.org"},
    {"tracking": ["tensorboard"]},
    {"storage": "x"},
    {"workers": 2},
    {"optimizer": {"lr": 0.1}},
    {"optimizer": "sgd"},
]
OTHER = [{"seed": 1}, {"optimizer": {"lr": 0.2}}, {"optimizer": {"momentum": 0.9}}, {"schedule": "cosine"}]


@pytest.mark.parametrize("said", SAME)
def test_the_hash_leaves_out_where_and_under_which_name_a_job_runs(said: dict[str, Any]) -> None:
    assert job_hash(from_dict(said)) == job_hash(from_dict({}))


@pytest.mark.parametrize("said", OTHER)
def test_jobs_that_compute_something_else_have_another_hash(said: dict[str, Any]) -> None:
    assert job_hash(from_dict(said)) != job_hash(from_dict({}))


def test_the_hash_stays_the_same_between_processes() -> None:
    code = "from lehr.job import from_dict, job_hash; print(job_hash(from_dict({'seed': 3})))"
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert elsewhere.stdout.strip() == job_hash(from_dict({"seed": 3}))


VALID = [{"kind": "train"}, FULL, {"schedule": "cosine", "workers": 2, "model": "mlp", "extends": "base.yaml"}]
INVALID = [
    {"optimzer": {}},
    {"schedule": "cosin"},
    {"optimizer": {"lr": "fast"}},
    {"optimizer": {"lr": 0}},
    {"seed": 1.5},
    {"schedule": {"name": "cosine", "warmup": "5ex"}},
    {"kind": "trian"},
    {"workers": "many"},
]


def test_the_schema_accepts_what_loads_and_refuses_what_does_not() -> None:
    schema = json_schema()
    validator = jsonschema.validators.validator_for(schema)
    validator.check_schema(schema)
    check = validator(schema)
    assert [said for said in VALID if not check.is_valid(said)] == []
    assert [said for said in INVALID if check.is_valid(said)] == []


def test_the_schema_describes_every_field_and_shows_defaults_as_a_file_would() -> None:
    definitions = json_schema()["$defs"]
    bare = [
        f"{name}.{field}"
        for name, definition in definitions.items()
        for field, content in definition.get("properties", {}).items()
        if "description" not in content and not (field == "name" and "const" in content)
    ]
    assert bare == []
    train = definitions["TrainJob"]["properties"]
    assert train["schedule"]["default"] == {"name": "constant", "warmup": "0step", "cooldown": "0step"}
    assert definitions["CheckpointSection"]["properties"]["every"]["default"] == "1ep"
    assert definitions["Constant"]["properties"]["warmup"]["default"] == "0step"
    assert train["storage"]["default"] == "./runs"
    assert set(SCHEDULES) <= set(json.dumps(train["schedule"]).replace('"', " ").split())


def test_a_new_kind_of_job_is_one_class_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typing import Literal

    class ProphesyJob(TrainJob):
        kind: Literal["prophesy"] = "prophesy"  # type: ignore[assignment]

    before = len(json_schema()["oneOf"])
    monkeypatch.setitem(KINDS, "prophesy", ProphesyJob)
    (tmp_path / "job.yaml").write_text("kind: prophesy\nseed: 3")
    job = load(tmp_path / "job.yaml")
    assert type(job) is ProphesyJob
    assert (job.kind, job.seed) == ("prophesy", 3)
    assert len(json_schema()["oneOf"]) == before + 1


def test_importing_the_job_package_starts_neither_torch_nor_ray() -> None:
    code = "import sys, lehr.job; print([name for name in ('torch', 'ray', 'numpy', 'pyarrow') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
