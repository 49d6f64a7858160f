"""What trackers are told is what the run recorded: read back by each tracker's own package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from lehr.errors import JobError, LehrError
from lehr.job import from_dict
from lehr.job.base import Tracker
from lehr.kinds import run_job
from lehr.runs import RunFolder
from lehr.tracking import TRACKERS, track
from lehr.tracking.copying import State, called, new_rows

TINY: dict[str, Any] = {
    "kind": "train",
    "name": "tiny",
    "notes": "a first look",
    "data": {"source": "digits", "limit": 60},
    "model": {"name": "small_cnn", "width": 8},
    "train": {"epochs": 2, "batch_size": 30},
}
SEARCH: dict[str, Any] = {
    "kind": "search", "name": "found", "base": {key: TINY[key] for key in ("data", "model", "train")},
    "space": {"optimizer.lr": [0.05, 0.1]}, "method": "grid",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tiny() -> RunFolder:
    return run_job(from_dict(TINY), debug=True)


class Memory:
    """A tracker that keeps what it is told."""

    told: dict[str, dict[str, Any]] = {}  # noqa: RUF012  # like a server, it is one for all

    def __init__(self, described: Any, known: str, folder: Path | None) -> None:
        self.id = known or f"id-{len(self.told)}"
        self.told.setdefault(self.id, {"described": described, "rows": [], "files": [], "ends": []})
        self.failing: Exception | None = None

    def log(self, rows: Any) -> None:
        self.told[self.id]["rows"] += rows

    def attach(self, path: Path) -> None:
        self.told[self.id]["files"].append(path.name)

    def end(self, status: str, summary: Any) -> None:
        self.told[self.id]["ends"].append((status, dict(summary)))


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    Memory.told = {}
    monkeypatch.setattr("lehr.tracking.mlflow.open_sink", Memory)
    return Memory.told


def test_a_job_may_name_each_tracker() -> None:
    assert set(get_args(Tracker)) == set(TRACKERS)


def test_every_value_of_the_record_is_told_at_its_step(tiny: RunFolder, memory: dict[str, dict[str, Any]]) -> None:
    rows = track(tiny, "mlflow")
    (told,) = memory.values()
    assert rows == len(told["rows"]) == len(tiny.steps())
    by_step = {row.step: row.values for row in told["rows"]}
    for row in tiny.steps().to_pylist():
        assert by_step[row["step"]]["train/loss"] == row["loss"]
        assert by_step[row["step"]]["learning_rate"] == row["learning_rate"]
    for row in tiny.epochs().to_pylist():
        values = by_step[row["step"] - 1]
        assert values["validation/accuracy"] == row["validation_accuracy"]
        assert values["train/epoch_loss"] == row["train_loss"]
    assert told["ends"] == [("finished", tiny.outcome().metrics)]  # type: ignore[union-attr]
    assert {"report.html", "job.yaml"} <= set(told["files"])
    described = told["described"]
    assert (described.name, described.kind, described.notes) == ("tiny", "train", "a first look")
    assert described.parameters["train.batch_size"] == 30


def test_what_it_has_is_not_told_again(tiny: RunFolder, memory: dict[str, dict[str, Any]]) -> None:
    track(tiny, "mlflow")
    before = {key: {**value, "rows": list(value["rows"])} for key, value in memory.items()}
    assert track(RunFolder.open(tiny.folder), "mlflow") == 0
    assert {key: value["rows"] for key, value in memory.items()} == {k: v["rows"] for k, v in before.items()}
    assert [len(value["ends"]) for value in memory.values()] == [1]


def test_a_run_that_goes_on_goes_on_in_the_same_place(tiny: RunFolder, memory: dict[str, dict[str, Any]]) -> None:
    state = State(id="id-0", step=1, epoch=1, attempt=1, ended="stopped")
    state.write(tiny.folder, "mlflow")
    rows, last, epoch = new_rows(tiny, state)
    assert [row.step for row in rows] == list(range(2, len(tiny.steps())))
    assert (last, epoch) == (len(tiny.steps()) - 1, 2)
    assert track(tiny, "mlflow") == len(rows)
    assert list(memory) == ["id-0"]


def test_a_search_and_its_trials_are_parent_and_children(memory: dict[str, dict[str, Any]]) -> None:
    found = run_job(from_dict(SEARCH), debug=True)
    track(found, "mlflow")
    told = {value["described"].name: (key, value) for key, value in memory.items()}
    assert set(told) == {"found", "found-trials-0000", "found-trials-0001"}
    parent = told["found"][0]
    for number, rate in enumerate((0.05, 0.1)):
        described = told[f"found-trials-{number:04d}"][1]["described"]
        assert (described.parent, described.group) == (parent, "found")
        assert described.parameters["optimizer.lr"] == rate


def test_a_tracker_that_fails_is_tried_again_and_then_told(
    tiny: RunFolder, memory: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OSError("no route to host\nwith details"), OSError("no route to host")]

    def log(self: Memory, rows: Any) -> None:
        if failures:
            raise failures.pop()
        self.told[self.id]["rows"] += rows

    monkeypatch.setattr(Memory, "log", log)
    waits: list[float] = []

    def pause(seconds: float) -> bool:
        waits.append(seconds)
        return False

    assert track(tiny, "mlflow", follow=True, pause=pause) == len(tiny.steps())
    assert waits == [1.0, 1.0]
    failures.append(OSError("no route to host\nwith details"))
    (tiny.folder.local_path / "tracking-mlflow.json").unlink()
    with pytest.raises(LehrError, match=r"^mlflow: OSError: no route to host$"):
        track(tiny, "mlflow")


def test_the_names_that_trackers_show() -> None:
    assert called("steps", "loss") == "train/loss"
    assert called("steps", "learning_rate") == "learning_rate"
    assert called("epochs", "validation_top_k_accuracy") == "validation/top_k_accuracy"
    assert called("epochs", "averaged_validation_loss") == "averaged_validation/loss"
    assert called("epochs", "train_accuracy") == "train/epoch_accuracy"
    assert called("epochs", "seconds") == "epoch/seconds"


def test_a_damaged_note_of_what_it_has_costs_only_that_it_is_told_again(
    tiny: RunFolder, memory: dict[str, dict[str, Any]]
) -> None:
    (tiny.folder.local_path / "tracking-mlflow.json").write_text('{"id": 3')
    assert track(tiny, "mlflow") == len(tiny.steps())


def test_a_tracker_that_is_not_installed_is_refused_before_the_run_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(JobError, match="tracking: the package mlflow is not installed: pip install mlflow"):
        run_job(from_dict({**TINY, "tracking": ["mlflow"]}), debug=True)
    assert not Path("runs").exists()


# ── the packages themselves ─────────────────────────────────────────────────────────────────────────────────────────


def recorded(run: RunFolder) -> dict[tuple[str, int], float]:
    rows, _, _ = new_rows(run, State())
    return {(name, row.step): value for row in rows for name, value in row.values.items()}


def test_tensorboards_own_reader(tiny: RunFolder) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track(tiny, "tensorboard")
    reader = EventAccumulator(str(tiny.folder.local_path / "tensorboard"), size_guidance={"scalars": 0})
    reader.Reload()
    read = {(tag, event.step): event.value for tag in reader.Tags()["scalars"] for event in reader.Scalars(tag)}
    wanted = recorded(tiny)
    assert read.keys() == wanted.keys()
    assert all(read[key] == np.float32(wanted[key]) for key in wanted)  # it keeps float32


def test_mlflows_own_client(tiny: RunFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="MLflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    from mlflow.tracking import MlflowClient

    track(tiny, "mlflow")
    client = MlflowClient()
    (experiment,) = [each for each in client.search_experiments() if each.name == "lehr"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("tiny", "FINISHED")
    assert run.data.params["train.batch_size"] == "30"
    wanted = recorded(tiny)
    for name in {name for name, _ in wanted}:
        history = {(name, each.step): each.value for each in client.get_metric_history(run.info.run_id, name)}
        assert history == {key: value for key, value in wanted.items() if key[0] == name}
    assert "report.html" in {each.path for each in client.list_artifacts(run.info.run_id)}


def leveldb_records(data: bytes) -> list[bytes]:
    """The records of an offline run: a log in the form of LevelDB's, in blocks of 32 kB, after a head of 7 bytes."""
    found, part, at = [], b"", 7
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last of its parts
            found.append(part)
            part = b""
    return found


def test_weights_and_biases_offline(tiny: RunFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    track(tiny, "wandb")
    from wandb.proto import wandb_internal_pb2

    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    read: dict[tuple[str, int], float] = {}
    for data in leveldb_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            read |= {(name, row["step"]): value for name, value in row.items() if name[0] != "_" and name != "step"}
    assert read == recorded(tiny)


def test_trackios_own_database(tiny: RunFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("trackio", reason="Trackio is not installed")
    monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path / "trackio", raising=False)
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio", raising=False)
    track(tiny, "trackio")
    from trackio.sqlite_storage import SQLiteStorage

    logs = SQLiteStorage.get_logs("lehr", "tiny")
    read = {
        (name, row["step"]): value
        for row in logs
        for name, value in row.items()
        if isinstance(value, float) and not name.startswith("best/")
    }
    assert read == recorded(tiny)
