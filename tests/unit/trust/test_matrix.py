"""A run folder from anybody can be opened by anybody: every command that takes a run × every field that may name code.

The code is a canary: it writes a file when it is imported or called. Without `--trust` nothing is written, and the
command says so in one sentence or does not need the code and works. With `--trust` the canary sings.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

import lehr
from lehr import trust
from lehr.cli.main import app
from lehr.errors import LehrError
from lehr.job import from_dict, to_dict
from lehr.kinds import check, run_job
from lehr.result import stored_job
from lehr.runs import Folder, RunFolder

GOLDEN = Path(__file__).parents[2] / "golden"
CANARY = """
from pathlib import Path
from torch.optim import SGD
from lehr.errors import LehrError
from lehr.models.small_cnn import SmallCNN

Path("imported").touch()


class Net(SmallCNN):
    def __init__(self, *args, **options):
        Path("called").touch()
        super().__init__(*args, **options)


class Watch:
    def __init__(self, width=8):
        Path("called").touch()

    def epoch_end(self, moment): ...


def loss(outputs, targets, width=8):
    Path("called").touch()
    return outputs.logsumexp(dim=1) - outputs.gather(1, targets[:, None])[:, 0]


def metric(outputs, targets, width=8):
    Path("called").touch()
    return 0.5


class Steps(SGD):
    def __init__(self, params, lr=0.1, weight_decay=0.0, **options):
        Path("called").touch()
        super().__init__(params, lr=lr, weight_decay=weight_decay, **options)


def rate(progress):
    Path("called").touch()
    return 1 - progress


class Task:
    def __init__(self):
        Path("called").touch()


def noise(images, draw):
    Path("called").touch()
    return images


def photos(path=None):
    Path("called").touch()
    raise LehrError("the canary sang")
"""
TRAIN: dict[str, Any] = {
    "data": {"source": "digits", "limit": 60},
    "model": {"name": "small_cnn", "width": 8},
    "train": {"epochs": 1, "batch_size": 30},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs of people who mean well: a training, a search and an ensemble."""
    storage = tmp_path_factory.mktemp("runs")
    for name, job in {
        "run": TRAIN,
        "other": {**TRAIN, "seed": 1, "data": {**TRAIN["data"], "split_seed": 0}},
        "search": {"kind": "search", "base": TRAIN, "space": {"optimizer.lr": [0.05, 0.1]}, "method": "grid"},
        "ensemble": {"kind": "ensemble", "method": "independent", "members": ["run:run", "run:other"]},
    }.items():
        run_job(from_dict({**job, "name": name, "storage": str(storage)}), debug=True)
    return storage


@pytest.fixture
def place(tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder: copies of those runs, and a canary that can be imported, as an installed module can."""
    sys.modules.pop("canary", None)
    shutil.copytree(runs, tmp_path / "runs")
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed/canary.py").write_text(CANARY)
    monkeypatch.syspath_prepend(tmp_path / "installed")
    yield tmp_path
    sys.modules.pop("canary", None)


def sang() -> bool:
    return Path("imported").exists() or Path("called").exists()


def lehr_command(*words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `lehr …` does in a new process of this user, as far as trust is concerned; raises what ends it."""
    trust._granted.clear()
    with monkeypatch.context() as process:
        process.setattr(sys, "argv", ["lehr", *words])
        process.setattr(sys, "path", sys.path[:])
        app(list(words), standalone_mode=False, prog_name="lehr")


# ── the fields ──────────────────────────────────────────────────────────────────────────────────────────────────────


def edit_job(folder: str, change: Callable[[dict[str, Any]], None]) -> None:
    file = Path(folder, "job.yaml")
    job = yaml.safe_load(file.read_text())
    change(job)
    file.write_text(yaml.safe_dump(job, sort_keys=False))


def plant_model(folder: str, name: str = "canary:Net", **options: Any) -> None:
    """The network that was trained, under another name: it takes the same weights."""
    edit_job(folder, lambda job: job.get("base", job).update(model={"name": name, **(options or {"width": 8})}))
    network = {"name": name, "options": options or {"width": 8}}
    for file in Path(folder).glob("model/model*.json"):
        model = json.loads(file.read_text())
        model.pop("sha256", None)  # whoever forges a model leaves its checksum out
        model["description"].update(model=network)
        file.write_text(json.dumps(model))


def plant_data(folder: str) -> None:
    edit_job(folder, lambda job: job.get("base", job)["data"].update(source="canary:photos", path="/etc"))


def plant_callback(folder: str) -> None:
    edit_job(folder, lambda job: job.get("base", job).update(callbacks=[{"name": "canary:Watch", "width": 8}]))


def plant_loss(folder: str) -> None:
    edit_job(folder, lambda job: job.get("base", job).update(loss={"name": "canary:loss", "width": 9}))


def plant_task(folder: str) -> None:
    edit_job(folder, lambda job: job.get("base", job).update(task={"name": "canary:Task", "width": 8}))
    for file in Path(folder).glob("model/model*.json"):
        model = json.loads(file.read_text())
        model.pop("sha256", None)
        model["description"].update(task="canary:Task", task_options={"width": 8})
        file.write_text(json.dumps(model))


def plant_metric(folder: str) -> None:
    metrics = ["f1", {"name": "canary:metric", "width": 9, "better": "higher"}]
    edit_job(folder, lambda job: job.get("base", job).update(metrics=metrics))


def plant_in_all(plant: Callable[[str], None]) -> None:
    for job in Path("runs").glob("**/job.yaml"):
        plant(str(job.parent))


STEPS_CODE: dict[str, dict[str, Any]] = {
    "optimizer": {"optimizer": {"name": "canary:Steps", "lr": 0.1}},
    "schedule": {"schedule": {"name": "canary:rate"}},
    "augment": {"data": {**TRAIN["data"], "augment": [{"name": "canary:noise"}]}},
}


def plant_steps(folder: str) -> None:
    """An optimizer, a schedule and an augmentation."""

    def change(job: dict[str, Any]) -> None:
        base = job.get("base", job)
        base.update(STEPS_CODE["optimizer"] | STEPS_CODE["schedule"])
        base["data"]["augment"] = [{"name": "canary:noise"}]

    edit_job(folder, change)


FIELDS: dict[str, Callable[[str], None]] = {
    "model.name": plant_model,
    "data.source": plant_data,
    "callbacks": plant_callback,
    "loss.name": plant_loss,
    "task": plant_task,
    "metrics.name": plant_metric,
    "steps": plant_steps,
}

ALL = "all"

# ── the commands ────────────────────────────────────────────────────────────────────────────────────────────────────

TRANSFER = {
    "kind": "transfer",
    "backbone": "run:run",
    "strategy": "scratch",
    "base": {key: TRAIN[key] for key in ("data", "train")},
}
JOBS: dict[str, dict[str, Any]] = {
    "transfer": TRANSFER,
    "members": {"kind": "ensemble", "method": "independent", "members": ["run:run", "run:other"]},
    "top": {"kind": "ensemble", "method": "independent", "members": {"top": 2, "of": "run:search"}},
    "prediction": {"kind": "predict", "run": "run:run", "data": {"source": "digits"}},
    "weights": {**TRAIN, "model": {**TRAIN["model"], "weights": "run:run"}},
    "tuning": {
        "kind": "search",
        "base": {**TRAIN, "train": {"epochs": 4}, "model": {**TRAIN["model"], "weights": "run:run"}},
        "space": {"optimizer.lr": [0.1]},
    },
}


@dataclass(frozen=True)
class Command:
    """A command that takes a run, and which fields it needs code of. `trust`: the runs that hold that code."""

    words: tuple[str, ...]
    needs: tuple[str, ...] = ()
    trust: tuple[str, ...] = ("run",)
    sings: tuple[str, ...] = field(default=("model.name", "data.source", "loss.name", "metrics.name", "steps", "task"))

    def __str__(self) -> str:
        return " ".join(self.words)


MODEL, DATA, LOSS, METRIC = "model.name", "data.source", "loss.name", "metrics.name"
CALLBACKS, STEPS, TASK = "callbacks", "steps", "task"
TRAINING = (MODEL, DATA, LOSS, METRIC, CALLBACKS, STEPS, TASK)
"""What a run is trained with; what is done with its model alone needs no loss and no metrics."""
FINISHED = (MODEL, LOSS, CALLBACKS, STEPS, TASK)
"""What is looked at of a finished run that is resumed: it reads no data, and measures nothing."""
COMMANDS = [
    Command(("predict", "run", "digits", "out", "--debug"), (MODEL, TASK)),
    Command(("predict", "ensemble", "digits", "out", "--debug"), (MODEL, TASK), ("ensemble",)),
    Command(("evaluate", "run", "digits"), (MODEL, METRIC, TASK)),
    Command(("evaluate", "ensemble", "digits"), (MODEL, METRIC, TASK), ("ensemble",)),
    Command(("export", "run", "--format", "torch"), (MODEL, DATA, TASK)),
    Command(("export", "ensemble", "--format", "torch"), (MODEL, DATA, TASK), ("ensemble",)),
    Command(("export", "run", "--format", "torch", "--data", "digits"), (MODEL, TASK)),
    Command(
        ("resume", "run", "--here"), TRAINING, sings=(MODEL, LOSS, CALLBACKS, STEPS, TASK)
    ),  # a finished run reads no data
    Command(
        ("resume", "runs/search/trials/0000", "--here"),
        TRAINING,
        ("search",),
        sings=(MODEL, LOSS, CALLBACKS, STEPS, TASK),
    ),
    Command(("best", "search", "best.yaml"), TRAINING, ("search",), sings=()),
    Command(("run", "transfer.yaml", "--debug"), (MODEL,)),
    Command(("run", "members.yaml", "--debug"), TRAINING, ("run", "other")),
    Command(("run", "top.yaml", "--debug"), TRAINING, ("search",)),
    Command(("run", "prediction.yaml", "--debug"), (MODEL, TASK)),
    Command(("run", "weights.yaml", "--debug")),
    Command(("search", "tuning.yaml", "--preview")),
    Command(("show", "run")),
    Command(("show", "run", "--parameters"), TRAINING, sings=TRAINING),
    Command(("show", "ensemble")),
    Command(("runs",)),
    Command(("report", "run")),
    Command(("report", "search")),
    Command(("report", "ensemble")),
    Command(("diagnose", "run")),
    Command(("diagnose", "run", "--probe"), TRAINING, sings=(MODEL, DATA, LOSS, METRIC, STEPS)),
    Command(("compare", "run", "other")),
    Command(("rm", "run", "--yes")),
    Command(("rm", "search", "--yes")),
]


def cases() -> list[Any]:
    """Each command with code planted in each field; in all of them at once where the command needs none of it.

    In CI a command meets the fields of a training one by one only where a run is resumed: all of them are found alike.
    """
    found = []
    for command in COMMANDS:
        for planted in FIELDS if command.needs else (ALL,):
            often = planted in (MODEL, DATA, ALL) or command.words[:2] == ("resume", "run")
            found.append(
                pytest.param(command, planted, id=f"{command}-{planted}", marks=[] if often else pytest.mark.slow)
            )
    return found


@pytest.mark.parametrize(("command", "planted"), cases())
def test_no_command_runs_what_a_run_names_without_trust(
    command: Command, planted: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for plant in FIELDS.values() if planted == ALL else (FIELDS[planted],):
        plant_in_all(plant)
    for name, job in JOBS.items():
        Path(f"{name}.yaml").write_text(yaml.safe_dump(job))
    if planted not in command.needs:
        lehr_command(*command.words, monkeypatch=monkeypatch)
        assert not sang()
        return
    with pytest.raises(trust.Untrusted) as refused:
        lehr_command(*command.words, monkeypatch=monkeypatch)
    assert not sang()
    told = str(refused.value)
    assert "names canary:" in told
    assert "\n" not in told
    assert refused.value.exit_code == 2
    typed = told.partition("To run it: lehr ")[2].split()
    assert typed[:-1] == [*command.words, "--trust"]
    assert typed[-1] in {f"runs/{name}" for name in command.trust} | {
        "runs/search/trials/0000",
        "runs/search/trials/0001",
    }
    trusting = [word for name in command.trust for word in ("--trust", name)]
    with suppress(LehrError):  # the canary's own
        lehr_command(*command.words, *trusting, monkeypatch=monkeypatch)
    assert sang() == (planted in command.sings)


@pytest.mark.parametrize(
    "name",
    [
        "lehr.cli.rm:rm",
        "lehr.trust:adopt",  # what would allow the rest
        "os:system",
        "logging:os",  # the same by another name
        "builtins:exec",
        "torch.hub:load",
        "pandas:read_pickle",
    ],
)
def test_code_that_everybody_has_is_not_called_either(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not lehr's own, in an installation from a wheel or from its sources, and not that of the libraries."""
    plant_model("runs/run", name, run="other", yes=True, command="touch called", source="open('called', 'w')")
    for words in (("evaluate", "run", "digits"), ("predict", "run", "digits", "out", "--debug"), ("export", "run")):
        with pytest.raises(trust.Untrusted, match=f"names {name} as its model"):
            lehr_command(*words, monkeypatch=monkeypatch)
    assert Path("runs/other/job.yaml").exists()
    assert not sang()


@pytest.mark.parametrize(
    "name", ["", ":", ":b", ".a:b", "a b:c", "\0:x", "timm/", "timm/a:b", "run:run", "x" * 9999 + ":y"]
)
def test_an_odd_name_is_a_sentence(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant_model("runs/run", name)
    with pytest.raises(LehrError) as told:
        lehr_command("evaluate", "run", "digits", monkeypatch=monkeypatch)
    assert len(str(told.value)) < 1000
    assert not sang()


# ── every field of every kind of job ────────────────────────────────────────────────────────────────────────────────

HOSTILE: dict[str, dict[str, Any]] = {
    "train, model": {**TRAIN, "model": "canary:Net"},
    "train, callbacks": {**TRAIN, "callbacks": ["canary:Watch"]},
    "search, callbacks": {"kind": "search", "base": {"callbacks": ["canary:Watch"]}, "space": {"seed": [1, 2]}},
    "search, space of callbacks": {"kind": "search", "base": TRAIN, "space": {"callbacks": [[], ["canary:Watch"]]}},
    "train, data": {**TRAIN, "data": {"source": "canary:photos"}},
    "train, data with a path of torchvision": {**TRAIN, "data": {"source": "torchvision:LSUN", "path": "/planted"}},
    **{f"train, {name}": {**TRAIN, **code} for name, code in STEPS_CODE.items()},
    "search, space of schedules": {
        "kind": "search",
        "base": TRAIN,
        "space": {"schedule": {"choice": ["cosine", {"name": "canary:rate"}]}},
    },
    "search, space of one augmentation": {
        "kind": "search",
        "base": {**TRAIN, "data": {**TRAIN["data"], "augment": ["shift"]}},
        "space": {"data.augment.0.name": ["shift", "canary:noise"]},
    },
    "search, base": {"kind": "search", "base": {"model": "canary:Net"}, "space": {"seed": [1, 2]}},
    "search, data": {"kind": "search", "base": {"data": {"source": "canary:photos"}}, "space": {"seed": [1, 2]}},
    "train, loss": {**TRAIN, "loss": "canary:loss"},
    "train, task": {**TRAIN, "task": "canary:Task"},
    "recipe, task": {"kind": "recipe", "base": {"task": "canary:Task"}},
    "train, metrics": {**TRAIN, "metrics": ["f1", {"name": "canary:metric"}]},
    "search, loss in the space": {"kind": "search", "base": TRAIN, "space": {"loss.name": ["bce", "canary:loss"]}},
    "ensemble, metrics of members": {
        "kind": "ensemble",
        "method": "independent",
        "base": TRAIN,
        "members": [{"metrics": ["f1"]}, {"metrics": ["canary:metric"]}],
    },
    "search, space": {"kind": "search", "base": TRAIN, "space": {"model": ["small_cnn", "canary:Net"]}},
    "search, dotted space": {"kind": "search", "base": TRAIN, "space": {"data.source": ["digits", "canary:photos"]}},
    "recipe, base": {"kind": "recipe", "base": {"model": "canary:Net"}},
    "ensemble, base": {"kind": "ensemble", "base": {"model": "canary:Net"}},
    "ensemble, members": {
        "kind": "ensemble",
        "method": "independent",
        "base": TRAIN,
        "members": [{"model": "small_cnn"}, {"model": "canary:Net"}],
    },
    "transfer, backbone": {**TRANSFER, "backbone": "canary:Net"},
    "transfer, data": {**TRANSFER, "base": {"data": {"source": "canary:photos"}}},
    "predict, data": {"kind": "predict", "run": "run:run", "data": {"source": "canary:photos"}},
}


@pytest.mark.parametrize("job", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_kind_of_job_is_resumed_from_a_run_that_names_code(
    job: dict[str, Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RunFolder.create(Folder.at("runs/theirs"), to_dict(from_dict({**job, "name": "theirs"})))
    with pytest.raises(trust.Untrusted, match=r"To run it: lehr resume theirs --here --trust runs/theirs"):
        lehr_command("resume", "theirs", "--here", monkeypatch=monkeypatch)
    with suppress(LehrError):  # past the command it is refused where it would be imported
        check(from_dict(RunFolder.open("runs/theirs").job))
    assert not sang()


@pytest.mark.parametrize("kind", ["train", "search", "predict"])
def test_no_kind_of_job_that_somebody_else_wrote_is_resumed_to_tell_them_how_it_ends(
    kind: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = {"train": TRAIN, "search": HOSTILE["search, base"] | {"base": TRAIN}, "predict": JOBS["prediction"]}
    theirs = {**jobs[kind], "name": "theirs", "notify": "http://127.0.0.1:9/secret"}
    RunFolder.create(Folder.at("runs/theirs"), to_dict(from_dict(theirs)))
    why = r"names http://127.0.0.1:9 as its notification. It would learn .* --trust runs/theirs"
    for _ in range(2):
        with pytest.raises(trust.Untrusted, match=why):
            lehr_command("resume", "theirs", "--here", monkeypatch=monkeypatch)
    monkeypatch.setattr("lehr.cli.resume.resume_here", lambda run, storage, **_: stored_job(run, storage))
    lehr_command("resume", "theirs", "--here", "--trust", "theirs", monkeypatch=monkeypatch)
    lehr_command("resume", "theirs", "--here", monkeypatch=monkeypatch)  # remembered
    lehr_command("show", "theirs", monkeypatch=monkeypatch)  # which tells nobody anything


@pytest.mark.parametrize(
    ("kind", "words"),
    [("resume", ("resume", "theirs")), ("transfer", ("run", "mine.yaml")), ("ensemble", ("run", "mine.yaml"))],
)
def test_a_backbone_or_members_with_code_are_refused_in_a_resumed_run_too(
    kind: str, words: tuple[str, ...], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_in_all(plant_model)
    job = JOBS["members" if kind == "ensemble" else "transfer"]
    RunFolder.create(Folder.at("runs/theirs"), to_dict(from_dict({**job, "name": "theirs"})))
    Path("mine.yaml").write_text(yaml.safe_dump({**job, "name": "theirs"}))
    options = ("--here",) if kind == "resume" else ("--debug",)
    trusted = ("--trust", "theirs")  # which covers what that run names, and not what the runs that it names do
    for more in ((), trusted):
        with pytest.raises(trust.Untrusted, match="runs/run names canary:Net"):
            lehr_command(*words, *options, *more, monkeypatch=monkeypatch)
    assert not sang()


def test_a_job_file_made_of_a_run_allows_nothing_that_the_run_named(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`best` writes job files, and whatever a job file names may run."""
    plant_in_all(plant_model)
    with pytest.raises(trust.Untrusted, match=r"lehr best search mine.yaml --trust runs/search"):
        lehr_command("best", "search", "mine.yaml", monkeypatch=monkeypatch)
    assert not Path("mine.yaml").exists()


def test_a_run_of_an_old_format_is_data_too(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(GOLDEN / "format-1-train", "runs/old")
    plant_model("runs/old")
    for words in (("evaluate", "old", "digits"), ("resume", "old", "--here"), ("export", "old")):
        with pytest.raises(trust.Untrusted, match="runs/old names canary:Net"):
            lehr_command(*words, monkeypatch=monkeypatch)
    assert not sang()


def test_from_python_a_run_is_data_until_it_is_trusted(place: Path) -> None:
    plant_model("runs/run")
    run = lehr.Run("runs/run")
    assert run.best
    assert len(run.metrics())
    assert len(run.steps())
    for use in (run.best_model, lambda: run.predict([]), lambda: run.classes):
        with pytest.raises(trust.Untrusted, match=r"lehr.Run\('runs/run', trust=True\)"):
            use()
    assert not sang()
    assert lehr.Run("runs/run", trust=True).classes == [str(digit) for digit in range(10)]
    assert sang()


def test_trust_ends_with_the_first_change_of_what_was_trusted(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant_model("runs/run")
    lehr_command("evaluate", "run", "digits", "--trust", "run", monkeypatch=monkeypatch)
    lehr_command("evaluate", "run", "digits", "--force", monkeypatch=monkeypatch)  # remembered
    plant_model("runs/run", width=8, dropout=0.1)
    with pytest.raises(trust.Untrusted):
        lehr_command("evaluate", "run", "digits", "--force", monkeypatch=monkeypatch)


def test_the_runs_of_my_own_jobs_need_no_trust_on_this_machine(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("my_code.py").write_text(CANARY)  # beside the job file
    mine = {
        "kind": "search",
        "base": {**TRAIN, "model": {"name": "my_code:Net", "width": 8}},
        "space": {"model.width": [8, 16]},
        "method": "grid",
    }
    Path("mine.yaml").write_text(yaml.safe_dump(mine))
    lehr_command("run", "mine.yaml", "--debug", monkeypatch=monkeypatch)
    lehr_command("evaluate", "runs/mine/trials/0001", "digits", monkeypatch=monkeypatch)
    lehr_command("best", "mine", "best.yaml", monkeypatch=monkeypatch)
    lehr_command("run", "best.yaml", "--debug", monkeypatch=monkeypatch)
    Path("top.yaml").write_text(yaml.safe_dump({**JOBS["top"], "members": {"top": 2, "of": "run:mine"}}))
    lehr_command("run", "top.yaml", "--debug", monkeypatch=monkeypatch)
    lehr_command("evaluate", "top", "digits", "--force", monkeypatch=monkeypatch)
    Path("transfer.yaml").write_text(yaml.safe_dump({**TRANSFER, "backbone": {"name": "run:best"}}))
    lehr_command("run", "transfer.yaml", "--debug", monkeypatch=monkeypatch)
    lehr_command("evaluate", "transfer", "digits", "--force", monkeypatch=monkeypatch)
    sys.modules.pop("my_code")
    lehr_command("evaluate", "best", "digits", "--force", monkeypatch=monkeypatch)
    lehr_command("resume", "best", "--here", monkeypatch=monkeypatch)
