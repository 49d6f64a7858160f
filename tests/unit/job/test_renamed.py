"""A job with an old spelling of a field is the same job, and its new name is reported once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lehr.driver.run_folder import changes, is_done
from lehr.errors import JobError
from lehr.job import (
    TrainJob,
    derive,
    first_name,
    from_dict,
    job_hash,
    json_schema,
    load,
    to_dict,
    with_new_names,
)
from lehr.job.renamed import RENAMED, with_first_names
from lehr.runs import Folder, RunFolder

OLD_TRAIN = {
    "train": {"clip": 2.0, "accumulate": 4, "clean_subset": 8},
    "schedule": {"name": "one_cycle", "start": 0.2, "final": 0.1},
    "finetune": {"rate": 0.5, "decay": 0.8},
    "model": {"name": "small_cnn", "weights": "run:other"},
}
NEW_TRAIN = {
    "train": {"max_gradient_norm": 2.0, "gradient_accumulation": 4, "evaluated_training_rows": 8},
    "schedule": {"name": "one_cycle", "start_factor": 0.2, "end_factor": 0.1},
    "finetune": {"lr_factor": 0.5, "layer_decay": 0.8},
    "model": {"name": "small_cnn", "weights": "run:other"},
}
CLIP, CLIP_NOW = {"train": {"clip": 2.0}}, {"train": {"max_gradient_norm": 2.0}}
SAME = [
    pytest.param(OLD_TRAIN, NEW_TRAIN, id="train"),
    pytest.param(
        {"kind": "recipe", "recipe": {"sweep": True}}, {"kind": "recipe", "recipe": {"range_test": True}}, id="recipe"
    ),
    pytest.param({"kind": "search", "base": OLD_TRAIN}, {"kind": "search", "base": NEW_TRAIN}, id="base"),
    pytest.param(
        {"kind": "transfer", "backbone": "resnet18", "finetune": {"rate": 0.5}},
        {"kind": "transfer", "backbone": "resnet18", "finetune": {"lr_factor": 0.5}},
        id="transfer",
    ),
    pytest.param(
        {"kind": "search", "space": {"train.clip": [1.0, 2.0], "schedule.final": {"uniform": [0.0, 0.1]}}},
        {
            "kind": "search",
            "space": {"train.max_gradient_norm": [1.0, 2.0], "schedule.end_factor": {"uniform": [0.0, 0.1]}},
        },
        id="space-by-path",
    ),
    pytest.param(
        {"kind": "search", "space": {"train": {"clip": {"grid": [1.0, 2.0], "when": {"schedule.final": 0.1}}}}},
        {
            "kind": "search",
            "space": {"train": {"max_gradient_norm": {"grid": [1.0, 2.0], "when": {"schedule.end_factor": 0.1}}}},
        },
        id="space-nested",
    ),
    pytest.param(
        {"kind": "search", "space": {"schedule": {"choice": ["constant", {"name": "cosine", "final": 0.1}]}}},
        {"kind": "search", "space": {"schedule": {"choice": ["constant", {"name": "cosine", "end_factor": 0.1}]}}},
        id="space-of-sections",
    ),
    pytest.param(
        {"kind": "ensemble", "method": "independent", "members": [CLIP, {"train.clip": 1.0}]},
        {"kind": "ensemble", "method": "independent", "members": [CLIP_NOW, {"train.max_gradient_norm": 1.0}]},
        id="members",
    ),
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEHR_STORAGE", raising=False)
    return tmp_path


def write(name: str, text: str) -> str:
    Path(name).write_text(text)
    return name


@pytest.mark.parametrize(("old", "new"), SAME)
def test_an_old_spelling_is_the_same_job(
    old: dict[str, Any], new: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = from_dict(new)
    assert capsys.readouterr().err == ""
    assert from_dict(old) == expected
    assert load(write("old.yaml", yaml.safe_dump(old))) == expected
    assert with_new_names(old) == new
    assert with_first_names(new) == old


@pytest.mark.parametrize(("old", "new"), SAME)
def test_a_new_name_leaves_the_hash_of_a_job_as_it_was(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert job_hash(from_dict(old)) == job_hash(from_dict(new))


def test_the_hash_is_that_of_the_version_that_had_the_old_names() -> None:
    golden = RunFolder.open(Path(__file__).parents[2] / "golden" / "format-1-train")
    state = golden.folder.read_json("checkpoints/step-0000000010/state.json")
    assert job_hash(from_dict(golden.job)) == state["job_hash"]


def test_a_load_reports_all_old_spellings_once_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    write("base.yaml", "kind: train\nschedule: {name: cosine, final: 0.1}\n")
    load(write("job.yaml", "extends: base.yaml\ntrain:\n  epochs: 3\n  clip: 1\n"), ["train.accumulate=2"])
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "base.yaml:2: schedule.final is now called schedule.end_factor; "
        "job.yaml:4: train.clip is now called train.max_gradient_norm; "
        "command line: train.accumulate is now called train.gradient_accumulation\n"
    )


@pytest.mark.parametrize(
    ("text", "overrides", "says"),
    [
        ("train: {clip: 1}", [], "job.yaml:1: train.clip is now called train.max_gradient_norm\n"),
        ("kind: recipe", ["recipe.sweep=true"], "command line: recipe.sweep is now called recipe.range_test\n"),
        (
            "kind: search",
            ["base.train.clip=1"],
            "command line: train.clip is now called train.max_gradient_norm\n",
        ),
        ("kind: search\nbase: inner.yaml", [], "inner.yaml:2: train.clip is now called train.max_gradient_norm\n"),
        (
            "kind: search",
            ["space.train.clip=[1, 2]"],
            "command line: train.clip is now called train.max_gradient_norm\n",
        ),
        ("kind: train", {"train": {"clip": 1}}, "command line: train.clip is now called train.max_gradient_norm\n"),
        ("train: {max_gradient_norm: 1}", ["schedule=cosine"], ""),
    ],
)
def test_the_location_of_an_old_spelling_is_reported(
    text: str, overrides: list[str] | dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("inner.yaml", "kind: train\ntrain: {clip: 1}\n")
    load(write("job.yaml", text), overrides)
    assert capsys.readouterr().err == says


def test_an_old_spelling_in_python_is_reported_without_a_location(capsys: pytest.CaptureFixture[str]) -> None:
    from_dict({"train": {"clip": 1}}, {"schedule": {"name": "linear", "final": 0.1}})
    assert capsys.readouterr().err == (
        "train.clip is now called train.max_gradient_norm; schedule.final is now called schedule.end_factor\n"
    )


@pytest.mark.parametrize(
    ("text", "overrides", "says"),
    [
        ("train: {clip: 1, max_gradient_norm: 2}", [], "job.yaml:1: train.clip: is the old name of"),
        ("kind: train", ["train.clip=1", "train.max_gradient_norm=2"], "command line: train.clip: is the old name of"),
        ("kind: train", ["train.max_gradient_norm=2", "train.clip=1"], "command line: train.clip: is the old name of"),
        (
            "kind: search\nspace: {train.clip: [1, 2], train.max_gradient_norm: [1, 2]}",
            [],
            "job.yaml:2: space.train.clip: is the old name of train.max_gradient_norm",
        ),
    ],
)
def test_both_spellings_at_once_are_refused(text: str, overrides: list[str], says: str) -> None:
    with pytest.raises(JobError) as caught:
        load(write("job.yaml", text), overrides)
    assert says in str(caught.value)
    assert str(caught.value).endswith("max_gradient_norm alone")


def test_an_override_of_either_spelling_changes_what_the_file_says() -> None:
    for said in ("clip", "max_gradient_norm"):
        for over in ("clip", "max_gradient_norm"):
            job = load(write("job.yaml", f"train: {{{said}: 1}}"), [f"train.{over}=3"])
            assert isinstance(job, TrainJob)
            assert job.train.max_gradient_norm == 3


def test_a_mistake_in_an_old_spelling_points_to_its_line_and_has_the_new_name() -> None:
    with pytest.raises(JobError) as caught:
        load(write("job.yaml", "kind: train\ntrain: {clip: 0}"))
    assert str(caught.value) == "job.yaml:2: train.max_gradient_norm: 0 is too small; allowed: a number above 0"


def test_the_default_name_has_the_override_as_it_was_typed() -> None:
    assert load(write("job.yaml", "kind: train"), ["train.clip=1"]).run_name == "job-clip-1"


def test_the_schema_has_only_new_names() -> None:
    sections = {"train": "TrainSection", "recipe": "RecipeSection", "finetune": "FinetuneSection"}
    definitions = json_schema()["$defs"]
    for section, old, new in RENAMED:
        named = [sections[section]] if section in sections else ["Cosine", "OneCycle"]
        fields = {field for name in named for field in definitions[name]["properties"]}
        assert new in fields
        assert old not in fields


def test_a_run_that_was_made_before_a_field_was_renamed_is_unchanged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = from_dict(NEW_TRAIN)
    old = with_first_names(to_dict(job))
    assert old != to_dict(job)
    folder = Folder.at(tmp_path / "runs" / "old")
    folder.write("job.yaml", yaml.safe_dump({"format": 1, **old}, sort_keys=False).encode())
    run = RunFolder.open(folder)
    folder.write_json("progress.json", {"status": "finished"})  # format 1 had no outcome.json
    assert run.job == to_dict(job)
    assert changes(run, job) == ""
    assert is_done(job, run)
    assert capsys.readouterr().err == ""


def test_changes_that_an_older_search_made_to_its_base_still_apply(capsys: pytest.CaptureFixture[str]) -> None:
    parent = from_dict({"kind": "search"})
    values = with_new_names({"train.clip": 3.0, "schedule": {"name": "cosine", "final": 0.1}})
    assert values == {"train.max_gradient_norm": 3.0, "schedule": {"name": "cosine", "end_factor": 0.1}}
    child = derive(TrainJob(), values, parent=parent, name="trials/0000")
    assert child.train.max_gradient_norm == 3.0
    assert capsys.readouterr().err == ""


def test_what_is_drawn_for_a_field_does_not_depend_on_its_new_name() -> None:
    assert first_name("train.max_gradient_norm") == "train.clip"
    assert first_name("schedule.end_factor") == "schedule.final"
    assert first_name("optimizer.lr") == "optimizer.lr"


@pytest.mark.parametrize(
    "job",
    [
        {"model": {"name": "small_cnn", "clip": 1}},
        {"optimizer": {"name": "sgd", "sweep": 1}},
        {"train": {"averaging": {"kind": "swa", "start": "50%"}}},
        {"loss": {"name": "my_package.losses:mine", "schedule": {"final": 1}}},
    ],
)
def test_a_field_of_the_same_name_elsewhere_keeps_it(job: dict[str, Any]) -> None:
    assert with_new_names(job) == job
