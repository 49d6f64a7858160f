"""A wrong job gets one sentence: file, line, field, what was there, what is allowed, the nearest correct spelling."""

from __future__ import annotations

from pathlib import Path

import pytest

from lehr.errors import JobError
from lehr.job import KINDS, Averaging, TrainJob, TrainSection, from_dict, load, parse_overrides
from lehr.job.sources import SOURCES as SOURCE_FORMS
from lehr.schedules import SCHEDULES

ALL_KINDS = ", ".join(KINDS)

ROOT = ", ".join([*TrainJob.model_fields, "extends"])
SCHEDULE_NAMES = ", ".join([*SCHEDULES, "my_package.module:name"])
DURATIONS = "allowed: epochs (5ep), steps (500step) or a share of the run (10%)"
WORKERS = "is not a number of workers; allowed: auto, a whole number from 1, or [min, max] with 1 <= min <= max"
NAMES = "is not a name; allowed: at most 100 letters, digits, dots, underscores and dashes, not starting with a dot"
SHARES = "is not a share or a path; allowed: above 0 and below 1 (0.2 or 20%), or a path"
WEIGHTS = "is not a set of class weights; allowed: none, balanced, or a list with a number from 0 for each class"
KNOWN_SOURCES = ", ".join(SOURCE_FORMS)
SOURCES = f"is not a data source; allowed: {KNOWN_SOURCES}"
TRAIN = ", ".join(TrainSection.model_fields)

# what jobs/train.yaml says, and the sentence after `jobs/train.yaml`
FILES = [
    # values of the wrong type
    ("kind: train\n\noptimizer:\n  lr: fast\n", ':4: optimizer.lr: "fast" is not a number; allowed: a number above 0'),
    ("optimizer:\n  lr: '0.1'", ':2: optimizer.lr: "0.1" is not a number; allowed: a number above 0'),
    ("optimizer: {lr: true}", ":1: optimizer.lr: true is not a number; allowed: a number above 0"),
    ("optimizer: {lr: .nan}", ":1: optimizer.lr: .nan is not a finite number; allowed: a number above 0"),
    ("optimizer: {lr: 1e999}", ":1: optimizer.lr: .inf is not a finite number; allowed: a number above 0"),
    ("optimizer: {momentum: -.inf}", ":1: optimizer.momentum: -.inf is not a finite number"),
    ("train: {epochs: 1.5}", ":1: train.epochs: 1.5 is not a whole number; allowed: a whole number from 1"),
    ("seed: yes", ':1: seed: "yes" is not a whole number; allowed: a whole number from 0 to 2147483647'),
    ("seed: true", ":1: seed: true is not a whole number; allowed: a whole number from 0 to 2147483647"),
    ("notes: 5", ":1: notes: 5 is not text; put it in quotes"),
    ("model: 5", ":1: model: 5 is not text; put it in quotes"),
    ("model: [a]", ':1: model: ["a"] is not a mapping; allowed: text or a mapping of name, weights, preprocessing'),
    ("train: 5", f":1: train: 5 is not a mapping; allowed: a mapping of {TRAIN}"),
    ("data: {augment: shift}", ':1: data.augment: "shift" is not a list; did you mean ["shift"]?'),
    ("data:\n  augment:\n  - shift\n  - 5", ":4: data.augment.1: 5 is not text; put it in quotes"),
    ("data: {augment: [{pixels: 2}]}", ":1: data.augment.0.name: is missing; allowed: text"),
    # numbers out of range
    ("seed: -1", ":1: seed: -1 is too small; allowed: a whole number from 0 to 2147483647"),
    ("seed: 99999999999999999999", ":1: seed: 99999999999999999999 is larger than any field takes"),
    ("train: {max_gradient_norm: 0}", ":1: train.max_gradient_norm: 0 is too small; allowed: a number above 0"),
    (
        "loss: {label_smoothing: 1}",
        ":1: loss.label_smoothing: 1 is too large; allowed: a number from 0 and below 1",
    ),
    (
        "train: {averaging: {decay: 1}}",
        ":1: train.averaging.decay: 1 is too large; allowed: a number above 0 and below 1",
    ),
    # unknown fields
    ("seed: 1\noptimzer: {lr: 1}", f":2: optimzer: unknown field; did you mean optimizer? allowed: {ROOT}"),
    ("lr: 0.1", f":1: lr: unknown field; did you mean optimizer.lr? allowed: {ROOT}"),
    ("epoch: 5", f":1: epoch: unknown field; did you mean train.epochs? allowed: {ROOT}"),
    ("zzz:", f":1: zzz: unknown field; allowed: {ROOT}"),
    (
        "train: {early_stopping: {patients: 3}}",
        ":1: train.early_stopping.patients: unknown field; did you mean patience? "
        "allowed: patience, min_change, metric",
    ),
    (
        "schedule: {name: cosine, end_factr: 1}",
        ":1: schedule.end_factr: unknown field; did you mean end_factor? allowed: warmup, cooldown, name, end_factor",
    ),
    # choices
    ("kind: trian", f':1: kind: "trian" is not a kind; did you mean train? allowed: {ALL_KINDS}'),
    ("kind: [1]", f":1: kind: [1] is not a kind; allowed: {ALL_KINDS}"),
    ("schedule: cosin", f':1: schedule: "cosin" is not a schedule; did you mean cosine? allowed: {SCHEDULE_NAMES}'),
    (
        "schedule:\n  warmup: 1ep\n  name: cosin",
        f':3: schedule.name: "cosin" is not a schedule; did you mean cosine? allowed: {SCHEDULE_NAMES}',
    ),
    ("schedule: 5", f":1: schedule: 5 is not a schedule; allowed: {SCHEDULE_NAMES}"),
    (
        "train: {precision: float32}",
        ':1: train.precision: "float32" is not a precision; allowed: fp32, fp64, bf16, fp16',
    ),
    (
        "data: {cache: streaming}",
        ':1: data.cache: "streaming" is not a cache; did you mean stream? allowed: auto, memory, device, stream',
    ),
    ("train: {compile: 1}", ":1: train.compile: 1 is not a choice; allowed: true, false, reduce-overhead"),
    ("train: {compile: fast}", ':1: train.compile: "fast" is not a choice; allowed: true, false, reduce-overhead'),
    (
        "train: {compile: reduce-overhead, gradient_accumulation: 2}",
        ":1: train: compile: reduce-overhead overwrites the gradients of a batch's earlier parts; "
        "allowed with gradient_accumulation: 1, or compile: true",
    ),
    # durations
    ("schedule: {warmup: 5}", f":1: schedule.warmup: 5 has no unit; {DURATIONS}"),
    ("schedule: {warmup: 5ex}", f':1: schedule.warmup: "5ex" is not a duration; {DURATIONS}'),
    ("schedule: {warmup: 120%}", ':1: schedule.warmup: "120%" is more than the whole run; allowed: 0% to 100%'),
    ("schedule: {warmup: [1]}", f":1: schedule.warmup: not a duration; {DURATIONS}"),
    (
        "train: {checkpoint: {every: 0ep}}",
        ":1: train.checkpoint.every: 0 is too short; allowed: a duration above 0, such as 1ep, 500step or 10%",
    ),
    # fields with rules of their own
    ("data: {source: images}", ":1: data.path: is missing; the source images needs the path of its data"),
    ("data: {source: parquet, path: }", ":1: data.path: is missing; the source parquet needs the path of its data"),
    (
        "data:\n  source: digits\n  path: x",
        ":3: data.path: the source digits comes with lehr and takes no path; did you mean source: images?",
    ),
    ("data: {source: 'a b'}", f':1: data.source: "a b" {SOURCES}'),
    (
        "data: {source: image}",
        ':1: data.source: "image" is not a data source; did you mean images? allowed: ' + KNOWN_SOURCES,
    ),
    ("data: {validation: 1.2}", f":1: data.validation: 1.2 {SHARES}"),
    ("data: {validation: 120%}", f':1: data.validation: "120%" {SHARES}'),
    ("data: {validation: true}", f":1: data.validation: true {SHARES}"),
    (
        "data: {image_size: [32]}",
        ":1: data.image_size: [32] is not an image size; allowed: pixels (32) or [height, width] ([32, 48])",
    ),
    ("loss: {class_weights: [1, -1]}", f":1: loss.class_weights: [1, -1] {WEIGHTS}"),
    ("workers: many", f':1: workers: "many" {WORKERS}'),
    ("workers: 0", f":1: workers: 0 {WORKERS}"),
    ("workers: true", f":1: workers: true {WORKERS}"),
    ("workers: {count: [4, 2]}", f":1: workers.count: [4, 2] {WORKERS}"),
    ("train: {early_stopping: {metric: ''}}", ':1: train.early_stopping.metric: "" is empty; allowed: text'),
    ("name: .hidden", f':1: name: ".hidden" {NAMES}'),
    ("name: a/b", f':1: name: "a/b" {NAMES}'),
    ("name: " + "a" * 101, f':1: name: "{"a" * 56}... {NAMES}'),
    # several at once: the first in the order of the file
    (
        "train: {epochs: 0}\nseed: -1\nlr: 1",
        ":1: train.epochs: 0 is too small; allowed: a whole number from 1 (and 2 more mistakes)",
    ),
    (
        "seed: -1\nnotes: 1",
        ":1: seed: -1 is too small; allowed: a whole number from 0 to 2147483647 (and 1 more mistake)",
    ),
    # not a job at all
    ("", ": an empty job; the least it needs is one line: kind: train"),
    ("# nothing yet\n", ": an empty job; the least it needs is one line: kind: train"),
    ("- kind: train", ':1: [{kind: "train"}] is not a job; allowed: lines of field: value, such as kind: train'),
    ("hello", ':1: "hello" is not a job; allowed: lines of field: value, such as kind: train'),
    # not the YAML we read
    ("seed: 1\nnotes: x\nseed: 2", ":3: seed: said twice, first on line 1"),
    ("train:\n\tepochs: 1", ":2: not valid YAML: a tab where YAML wants spaces"),
    ("notes: a: b", ':1: not valid YAML: a second ": " on one line; start a new line, or put the text in quotes'),
    ("data: {augment: [shift}", ":1: not valid YAML: a list [ … ] is not closed"),
    ("data: {source: digits", ":1: not valid YAML: a mapping { … } is not closed"),
    ("seed: 1\nnotes: 'x", ":2: not valid YAML: a quote is not closed"),
    ("train:\n  epochs: 1\n seed: 2", ":3: not valid YAML: the indentation does not fit the lines above"),
    ("seed 1\nnotes: x", ':2: not valid YAML: a second ": " on one line; start a new line, or put the text in quotes'),
    ("notes: @x", ':1: not valid YAML: a value cannot start with "@"; put it in quotes'),
    ("seed: *x", ":1: not valid YAML: the alias *x has no anchor &x; text that starts with * needs quotes"),
    ("seed: 1\n---\nseed: 2", ":2: not valid YAML: more than one document; a job is one"),
    ("notes: !!python/name:os.system", ":1: notes: the tag !!python/name:os.system is not allowed; write plain YAML"),
    ("seed: !secret 1", ":1: seed: the tag !secret is not allowed; write plain YAML"),
    ("? [a, b]\n: 1", ":1: a key must be plain text"),
    ('notes: "\\0"', ":1: notes: holds a character that is not text"),
    ("notes: &a [*a]", ":1: notes: nested more than 32 levels deep"),
    ("model: " + "[" * 5000, ":1: not valid YAML: nested more than 32 levels deep"),
]


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs").mkdir()
    return tmp_path / "jobs"


def sentence(path: object, overrides: object = ()) -> str:
    with pytest.raises(JobError) as caught:
        load(path, overrides)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("text", "expected"), FILES)
def test_a_wrong_file_gets_one_sentence_that_points_to_the_line(jobs: Path, text: str, expected: str) -> None:
    (jobs / "train.yaml").write_text(text)
    assert sentence("jobs/train.yaml") == "jobs/train.yaml" + expected


BASE = "optimizer: {lr: 0.3, momentum: 0.9}\ndata: {augment: [shift]}\n"

OVERRIDES = [
    ("optimizer.lr=fast", 'optimizer.lr: "fast" is not a number; allowed: a number above 0'),
    ("optimzer.lr=1", f"optimzer: unknown field; did you mean optimizer? allowed: {ROOT}"),
    (
        "train.averaging={kind: ema, decai: 1}",
        f"train.averaging.decai: unknown field; did you mean decay? allowed: {', '.join(Averaging.model_fields)}",
    ),
    ("lr=1", f"lr: unknown field; did you mean optimizer.lr? allowed: {ROOT}"),
    ("train=4", f"train: 4 is not a mapping; allowed: a mapping of {TRAIN}"),
    ("schedule=cosin", f'schedule: "cosin" is not a schedule; did you mean cosine? allowed: {SCHEDULE_NAMES}'),
    ("kind=trian", f'kind: "trian" is not a kind; did you mean train? allowed: {ALL_KINDS}'),
    ("data.augment.1.pixels=2", "data.augment.1: there is no such entry; the list has 1, counted from 0"),
    ("data.augment.0.name=", "data.augment.0.name: is missing; allowed: text"),
    ("data.augment=[1", "data.augment: not valid YAML: a list [ … ] is not closed"),
    ("notes={a: 1, a: 2}", "notes: said twice"),
    ("optimizer.lr", '"optimizer.lr" is not an override; allowed: field=value, such as optimizer.lr=0.05'),
    ("=3", '"=3" is not an override; allowed: field=value, such as optimizer.lr=0.05'),
    ("optimizer..lr=3", '"optimizer..lr" is not a field; allowed: names joined by dots, such as optimizer.lr'),
    ("extends=other.yaml", "extends: only a job file can extend another"),
    ("data.source=images", "data.path: is missing; the source images needs the path of its data"),
]


@pytest.mark.parametrize(("override", "expected"), OVERRIDES)
def test_a_wrong_override_gets_one_sentence_that_says_it_was_an_override(
    jobs: Path, override: str, expected: str
) -> None:
    (jobs / "train.yaml").write_text(BASE)
    said = sentence("jobs/train.yaml", [override])
    known_place = "jobs/train.yaml:2: " if override == "data.source=images" else "command line: "  # data was said there
    assert said == known_place + expected


def test_the_file_comes_before_the_command_line_when_both_are_wrong(jobs: Path) -> None:
    (jobs / "train.yaml").write_text("seed: 1\ntrain: {epochs: 0}")
    said = sentence("jobs/train.yaml", {"seed": -1})
    assert (
        said == "jobs/train.yaml:2: train.epochs: 0 is too small; allowed: a whole number from 1 (and 1 more mistake)"
    )


def test_a_job_file_that_cannot_be_read_says_why(jobs: Path, tmp_path: Path) -> None:
    (jobs / "train.yaml").write_text("kind: train")
    (jobs / "latin.yaml").write_bytes(b"notes: caf\xe9")
    (jobs / "image.yaml").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    (jobs / "control.yaml").write_text("seed: 1\nnotes: \x07")
    (jobs / "huge.yaml").write_text("# " + "x" * 1_000_000)
    assert sentence("jobs/tran.yaml") == "jobs/tran.yaml: no such file; did you mean jobs/train.yaml?"
    assert sentence("jobs/train") == "jobs/train: no such file; did you mean jobs/train.yaml?"
    assert sentence("nowhere/a.yaml") == "nowhere/a.yaml: no such file"
    assert sentence("jobs/train.yaml/a.yaml") == "jobs/train.yaml/a.yaml: no such file"
    assert sentence("jobs") == "jobs: a folder, not a job file"
    assert sentence("jobs/latin.yaml") == "jobs/latin.yaml: not a text file in UTF-8"
    assert sentence("jobs/image.yaml") == "jobs/image.yaml: not a text file in UTF-8"
    assert sentence("jobs/control.yaml") == "jobs/control.yaml:2: holds a character that is not text"
    assert sentence("jobs/huge.yaml") == "jobs/huge.yaml: larger than 1 MB; a job file is a few lines of text"
    assert sentence("../elsewhere.yaml") == f"{tmp_path.parent}/elsewhere.yaml: no such file"


def test_aliases_that_blow_up_are_refused_quickly(jobs: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    (jobs / "train.yaml").write_text("\n".join(lines))
    assert sentence("jobs/train.yaml") == "jobs/train.yaml:1: more than 20000 values, aliases counted each time"


def test_extending_a_missing_file_or_itself_points_to_the_line_that_extends(jobs: Path) -> None:
    (jobs / "base.yaml").write_text("seed: 1\nextends: deep.yaml")
    (jobs / "deep.yaml").write_text("extends: base.yaml")
    (jobs / "empty.yaml").write_text("")
    expected = {
        "bas.yaml": "extends: jobs/bas.yaml: no such file; did you mean jobs/base.yaml?",
        "empty.yaml": "extends: jobs/empty.yaml: an empty job; the least it needs is one line: kind: train",
        "5": "extends: 5 is not a file; allowed: a job file",
        "train.yaml": "extends: a circle: jobs/train.yaml -> jobs/train.yaml",
    }
    for base, what in expected.items():
        (jobs / "train.yaml").write_text(f"seed: 1\nextends: {base}")
        assert sentence("jobs/train.yaml") == f"jobs/train.yaml:2: {what}"
    (jobs / "train.yaml").write_text("extends: base.yaml")
    circle = "jobs/deep.yaml:1: extends: a circle: jobs/base.yaml -> jobs/deep.yaml -> jobs/base.yaml"
    assert sentence("jobs/train.yaml") == circle


def test_a_mistake_in_a_base_points_into_the_base(jobs: Path) -> None:
    (jobs / "base.yaml").write_text("\n\ntrain: {epochs: 0}")
    (jobs / "train.yaml").write_text("extends: base.yaml")
    assert (
        sentence("jobs/train.yaml") == "jobs/base.yaml:3: train.epochs: 0 is too small; allowed: a whole number from 1"
    )


PYTHON = [
    ({"optimizer": {"lr": "fast"}}, 'optimizer.lr: "fast" is not a number; allowed: a number above 0'),
    ({"kind": "trian"}, f'kind: "trian" is not a kind; did you mean train? allowed: {ALL_KINDS}'),
    ({"seed": {1, 2}}, "seed: a Python set is not a value that a job file can hold"),
    ({"notes": "\ud800"}, "notes: holds a character that is not text"),
    ({"schedule": {"name": 5}}, f"schedule.name: 5 is not a schedule; allowed: {SCHEDULE_NAMES}"),
    (["kind"], "[\"kind\"] is not a job; allowed: a mapping such as {'kind': 'train'}"),
]


@pytest.mark.parametrize(("mapping", "expected"), PYTHON)
def test_a_wrong_mapping_gets_the_same_sentence_without_a_file(mapping: object, expected: str) -> None:
    with pytest.raises(JobError) as caught:
        from_dict(mapping)  # type: ignore[arg-type]
    assert str(caught.value) == expected


def test_a_wrong_python_override_names_the_field_alone() -> None:
    with pytest.raises(JobError) as caught:
        from_dict({}, {"optimizer.lr": -1})
    assert str(caught.value) == "optimizer.lr: -1 is too small; allowed: a number above 0"


def test_an_error_has_its_parts_as_attributes(jobs: Path) -> None:
    (jobs / "train.yaml").write_text("kind: train\nseed: -1")
    with pytest.raises(JobError) as caught:
        load("jobs/train.yaml")
    error = caught.value
    assert (error.where, error.field) == ("jobs/train.yaml:2", "seed")
    assert error.what == "-1 is too small; allowed: a whole number from 0 to 2147483647"
    assert error.exit_code == 2


def test_later_stages_can_point_to_the_line_of_a_field(jobs: Path) -> None:
    (jobs / "train.yaml").write_text("seed: 1\nmodel:\n  name: small_cnn\ndata:\n  augment:\n    - shift\n")
    job = load("jobs/train.yaml", ["optimizer.lr=0.05"])
    where = {
        "model.name": "jobs/train.yaml:3",
        "model.depth": "jobs/train.yaml:2",  # not said: its section
        "data.augment.0.pixels": "jobs/train.yaml:6",
        "optimizer.lr": "command line",
        "schedule": "jobs/train.yaml",  # nothing of it was said
        "": "jobs/train.yaml",
    }
    assert {field: job.error(field, "x").where for field in where} == where
    assert str(job.error("model.name", "no such model")) == "jobs/train.yaml:3: model.name: no such model"
    assert str(from_dict({}).error("model.name", "no such model")) == "model.name: no such model"


def test_parsing_overrides_refuses_what_is_not_yaml() -> None:
    with pytest.raises(JobError, match=r"^command line: model: the tag !!x is not allowed"):
        parse_overrides(["model=!!x 5"])
