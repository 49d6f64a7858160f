"""A checkpoint is complete and verified, or it is not used."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
import torch

from lehr.errors import RunError, StorageError, Superseded
from lehr.runs import (
    Attempt,
    Checkpoint,
    DamagedCheckpoint,
    Fingerprint,
    Folder,
    ModelFile,
    Recorder,
    begin_attempt,
    checkpoints,
    load,
    newest_valid,
    prune,
    read_model,
    save,
    size_of,
    write_model,
)
from lehr.runs.progress import Progress, TrainingProgress


def small(
    step: int, value: float = 1.0, covered: dict[str, dict[str, int]] | None = None, attempt: int = 0
) -> Checkpoint:
    state = {"covered": covered} if covered else {}
    return Checkpoint(step, {"w": torch.full((3,), value)}, optimizer={"lr": 0.1}, state=state, attempt=attempt)


CONTENTS = ("average.safetensors", "model.safetensors", "optimizer.pt", "state.json")


def names(folder: Folder) -> list[str]:
    return folder.child("checkpoints").folders()


def complete(folder: Folder) -> list[str]:
    return list(checkpoints.saved(folder).values())


def step_of_newest(folder: Folder) -> int | None:
    checkpoint, _ = newest_valid(folder)
    return None if checkpoint is None else checkpoint.step


def reseal(folder: Folder, name: str, file: str, data: bytes) -> None:
    """Replaces a file and makes the manifest agree, as an attacker would."""
    place = folder.child("checkpoints", name)
    place.write(file, data)
    manifest = place.read_json("manifest.json")
    manifest["files"][file] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    place.write_json("manifest.json", manifest)


def test_everything_comes_back_bit_for_bit(folder: Folder) -> None:
    base = torch.arange(24, dtype=torch.float64).reshape(4, 6) / 7
    model = {
        "f64": base,
        "transposed": base.t(),
        "view": base[1:3, ::2],
        "tied": base,
        "bf16": torch.randn(5).bfloat16(),
        "f16": torch.tensor([1.0, math.inf, -0.0]).half(),
        "nan": torch.tensor([math.nan, math.inf]),
        "int64": torch.tensor(7),
        "uint8": torch.arange(5, dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    net = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {"epoch": 1.5, "best": {"metric": "validation_loss", "value": math.inf, "step": 3}, "π": 0.1 + 0.2}

    name = save(folder, Checkpoint(120, model, {"w": base}, optimizer.state_dict(), state))
    assert name == "step-0000000120-0000"
    assert folder.child("checkpoints", name).files() == sorted([*CONTENTS, "manifest.json"])
    again = load(folder, name)
    assert (again.step, again.name) == (120, name)
    assert again.state == state | {"step": 120}
    assert size_of(folder, name) == sum(len(folder.read(f"checkpoints/{name}/{file}")) for file in CONTENTS)
    assert again.model.keys() == model.keys()
    for key, tensor in model.items():
        assert again.model[key].dtype == tensor.dtype
        assert again.model[key].shape == tensor.shape
        torch.testing.assert_close(again.model[key], tensor.detach(), rtol=0, atol=0, equal_nan=True)
    assert torch.equal(again.average["w"], base)  # type: ignore[index]
    fresh = torch.optim.AdamW(net.parameters())
    fresh.load_state_dict(again.optimizer)  # type: ignore[arg-type]
    assert str(fresh.state_dict()) == str(optimizer.state_dict())


def test_optional_parts_that_were_not_saved_are_none(local: Folder) -> None:
    save(local, Checkpoint(1, {"w": torch.ones(1)}))
    again = load(local, "step-0000000001-0000")
    assert again.average is None
    assert again.optimizer is None
    assert again.covered == {}


def test_the_newest_is_chosen_by_number(folder: Folder) -> None:
    assert newest_valid(folder) == (None, [])
    for step in (9, 100, 20):
        save(folder, small(step))
    assert step_of_newest(folder) == 100
    assert complete(folder) == ["step-0000000009-0000", "step-0000000020-0000", "step-0000000100-0000"]


def flip_a_bit(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("file", ["model.safetensors", "average.safetensors", "optimizer.pt", "state.json"])
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[:-1], "is damaged"),
        (lambda data: b"", "is damaged"),
        (flip_a_bit, "is damaged"),
        (lambda data: data + b"\0", "is damaged"),
        (None, "is missing"),
    ],
    ids=["truncated", "emptied", "bit flipped", "longer", "deleted"],
)
def test_damage_is_found_named_and_skipped(
    local: Folder, file: str, damage: Callable[[bytes], bytes] | None, says: str
) -> None:
    for step in (10, 20):
        save(local, Checkpoint(step, {"w": torch.ones(9)}, {"w": torch.ones(9)}, {"lr": 0.1}))
    place = local.child("checkpoints", "step-0000000020-0000")
    if damage is None:
        place.delete(file)
    else:
        place.write(file, damage(place.read(file)))
    with pytest.raises(DamagedCheckpoint, match=f"step-0000000020-0000/{file}: {says}"):
        load(local, "step-0000000020-0000")
    checkpoint, skipped = newest_valid(local)
    assert checkpoint is not None
    assert checkpoint.step == 10
    (sentence,) = skipped
    assert f"step-0000000020-0000/{file}: {says}" in sentence


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"format": 1}',
        b'{"format": 1, "step": 20, "files": {}}',
        b'{"format": 1, "step": 20, "files": {"model.safetensors": null, "state.json": 1}}',
        b'{"format": 1, "step": 19, "files": {"model.safetensors": {}, "state.json": {}}}',
        b'{"format": 1, "step": 20, "files": {"model.safetensors": {}, "state.json": {}, "../../job.yaml": {}}}',
    ],
)
def test_a_damaged_manifest_is_skipped(local: Folder, manifest: bytes) -> None:
    save(local, small(10))
    save(local, small(20))
    local.write("checkpoints/step-0000000020-0000/manifest.json", manifest)
    checkpoint, skipped = newest_valid(local)
    assert checkpoint is not None
    assert checkpoint.step == 10
    assert "step-0000000020-0000" in skipped[0]
    assert "is damaged" in skipped[0]


def test_a_checkpoint_of_a_newer_lehr_is_not_skipped(local: Folder) -> None:
    save(local, small(10))
    save(local, small(20))
    manifest = local.read_json("checkpoints/step-0000000020-0000/manifest.json")
    local.write_json("checkpoints/step-0000000020-0000/manifest.json", manifest | {"format": 2})
    with pytest.raises(RunError, match="newer lehr") as caught:
        newest_valid(local)
    assert not isinstance(caught.value, DamagedCheckpoint)


def test_a_storage_error_does_not_fall_back_to_an_older_checkpoint(local: Folder) -> None:
    save(local, small(10))
    save(local, small(20))
    path = local.local_path / "checkpoints/step-0000000020-0000/state.json"
    path.unlink()
    path.mkdir()  # a read that fails, and not because the file is missing
    with pytest.raises(StorageError):
        newest_valid(local)


KILLED_WRITER = """
import os, signal, sys
import torch
from lehr.runs import Checkpoint, Folder, save

def full(step, value):
    w = {"w": torch.full((1000,), value)}
    return Checkpoint(step, w, w, {"lr": value}, {"value": value})

root, call, overwrite = sys.argv[1], sys.argv[2], sys.argv[3] == "True"
torch.set_num_threads(1)
for point in range(1, 100):
    folder = Folder.at(f"{root}/{point:02d}")
    save(folder, full(10, 1.0))
    save(folder, full(20, 2.0))
    child = os.fork()
    if child == 0:
        real, count = getattr(os, call), 0
        def killed(*arguments):
            global count
            count += 1
            if count == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments)
        setattr(os, call, killed)
        save(folder, full(20 if overwrite else 30, 3.0))
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        print(point - 1, flush=True)
        break
"""


@pytest.mark.parametrize("overwrite", [False, True], ids=["a new one", "an existing one"])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_writer_killed_at_any_point_leaves_a_whole_checkpoint(
    tmp_path: Path, python: Callable[..., Popen[str]], call: str, overwrite: bool
) -> None:
    output, _ = python(KILLED_WRITER, tmp_path, call, overwrite).communicate(timeout=120)
    points = int(output)
    assert points >= 5, "each of the five files is a point to die at"
    seen = set()
    for point in range(1, points + 1):
        folder = Folder.at(tmp_path / f"{point:02d}")
        checkpoint, skipped = newest_valid(folder)
        assert checkpoint is not None
        # Which one depends on the point; that it is one of them, and all of one piece, does not.
        value = {10: 1.0, 20: 2.0, 30: 3.0}[checkpoint.step]
        if overwrite and checkpoint.step == 20:
            value = 3.0
        assert checkpoint.state["value"] == checkpoint.optimizer["lr"] == value  # type: ignore[index]
        assert torch.equal(checkpoint.model["w"], torch.full((1000,), value))
        if checkpoint.step == (10 if overwrite else 20):
            assert "is incomplete" in skipped[0]
        seen.add(checkpoint.step)
        # Training resumes from there as if nothing had happened.
        save(folder, small(40))
        prune(folder, 1, set(), attempt=9)
        assert names(folder) == ["step-0000000040-0000"]
    assert (10 if overwrite else 20) in seen


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.fspath(self.path),)


@pytest.mark.parametrize("wrap", ["torch", "pickle"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_bomb_with_a_true_checksum_executes_nothing(local: Folder, tmp_path: Path, wrap: str) -> None:
    save(local, small(10))
    save(local, small(20))
    content = {"state": Bomb(tmp_path / "exploded")}
    buffer = io.BytesIO()
    if wrap == "torch":
        torch.save(content, buffer)
    else:
        pickle.dump(content, buffer)
    reseal(local, "step-0000000020-0000", "optimizer.pt", buffer.getvalue())
    with pytest.raises(DamagedCheckpoint, match=r"optimizer\.pt: .* was not unpickled"):
        load(local, "step-0000000020-0000")
    assert step_of_newest(local) == 10
    assert not (tmp_path / "exploded").exists()
    buffer.seek(0)
    torch.load(buffer, weights_only=False) if wrap == "torch" else pickle.load(buffer)
    assert (tmp_path / "exploded").exists(), "the bomb was a real one"


@pytest.mark.parametrize(("file", "data"), [("model.safetensors", b"x" * 50), ("state.json", b"{half")])
def test_files_of_another_kind_with_a_true_checksum_are_damage(local: Folder, file: str, data: bytes) -> None:
    save(local, small(10))
    reseal(local, "step-0000000010-0000", file, data)
    with pytest.raises(DamagedCheckpoint, match=f"{file}: is damaged"):
        load(local, "step-0000000010-0000")


def test_an_optimizer_that_could_not_be_read_back_is_refused_when_saved(local: Folder, tmp_path: Path) -> None:
    save(local, small(10))
    with pytest.raises(RunError, match="cannot be read back safely"):
        save(local, Checkpoint(20, {"w": torch.ones(1)}, optimizer={"state": tmp_path}))
    with pytest.raises(RunError, match="cannot be saved"):
        save(local, Checkpoint(20, {"w": torch.ones(1)}, optimizer={"state": lambda: 0}))
    with pytest.raises(RunError, match="as JSON"):
        save(local, Checkpoint(20, {"w": torch.ones(1)}, state={"rng": object()}))
    assert step_of_newest(local) == 10


@pytest.mark.parametrize("name", ["../../elsewhere", "step-12", "latest", ""])
def test_only_names_of_checkpoints_are_read(local: Folder, name: str) -> None:
    with pytest.raises(RunError, match="is not a checkpoint"):
        load(local, name)


def test_prune_keeps_the_last_and_the_best(folder: Folder) -> None:
    for step in (10, 20, 30, 40):
        save(folder, small(step))
    prune(folder, 2, {10}, attempt=9)
    assert complete(folder) == ["step-0000000010-0000", "step-0000000030-0000", "step-0000000040-0000"]
    assert load(folder, "step-0000000010-0000").step == 10
    prune(folder, 0, set(), attempt=9)
    assert complete(folder) == ["step-0000000040-0000"]


def test_prune_removes_old_incomplete_checkpoints_but_not_one_in_the_making(local: Folder) -> None:
    save(local, small(20))
    local.write("checkpoints/step-0000000010-0000/model.safetensors", b"half")
    local.write("checkpoints/step-0000000030-0000/model.safetensors", b"half")
    local.write("checkpoints/notes/mine.txt", b"not ours")
    prune(local, 1, set(), attempt=9)
    assert names(local) == ["notes", "step-0000000020-0000", "step-0000000030-0000"]


def test_a_half_deleted_checkpoint_is_never_valid(local: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (10, 20):
        save(local, small(step))

    def killed(self: Folder) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Folder, "delete_all", killed)
    with pytest.raises(KeyboardInterrupt):
        prune(local, 1, set(), attempt=9)
    assert names(local) == ["step-0000000010-0000", "step-0000000020-0000"]
    assert complete(local) == ["step-0000000020-0000"]


def sleeping(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Every writer has just made sure that it is the newest: what it does next, it does too late."""
    monkeypatch.setattr(Attempt, "check", lambda *_: None)
    return monkeypatch


def test_what_workers_of_a_replaced_attempt_save_later_is_not_resumed_from(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeping(monkeypatch)

    def start(after: Checkpoint | None) -> Recorder:
        return Recorder(folder, begin_attempt(folder, workers=1, checkpoint=after))

    def write(recorder: Recorder, step: int, value: float = 1.0) -> Checkpoint:
        recorder.write_steps({"step": [step - 1]})
        return load(folder, save(folder, small(step, value, recorder.covered(), recorder.attempt.number)))

    zombie = start(None)
    saved = write(zombie, 10)
    second = start(saved)
    write(zombie, 20)
    checkpoint, skipped = newest_valid(folder)
    assert checkpoint is not None
    assert checkpoint.step == 10
    assert "is of attempt 1, which attempt 2 replaced from step 10 on" in skipped[0]
    write(second, 15)
    assert step_of_newest(folder) == 15
    write(second, 20, value=2.0)
    write(second, 25)
    write(zombie, 20)
    prune(folder, 1, set(), attempt=1)
    assert load(folder, "step-0000000020-0002").model["w"][0] == 2.0
    assert step_of_newest(folder) == 25, "an old attempt removes nothing of a newer one"
    prune(folder, 9, set(), attempt=2)
    assert complete(folder) == ["step-0000000015-0002", "step-0000000020-0002", "step-0000000025-0002"]
    assert names(folder) == complete(folder)

    fresh = start(None)
    assert newest_valid(folder)[0] is None, "a start from scratch leaves all earlier checkpoints behind"
    write(fresh, 5)
    prune(folder, 1, set(), attempt=3)
    assert step_of_newest(folder) == 5


def test_a_replaced_attempt_writes_and_removes_nothing(folder: Folder) -> None:
    old = begin_attempt(folder, workers=1, checkpoint=None)
    saved = load(folder, save(folder, small(10, attempt=1), lambda: old.check(folder)))
    begin_attempt(folder, workers=1, checkpoint=saved)
    with pytest.raises(Superseded, match="attempt 2 has replaced attempt 1"):
        save(folder, small(20, attempt=1), lambda: old.check(folder))
    with pytest.raises(Superseded):
        Recorder(folder, old).write_steps({"step": [0]})
    save(folder, small(30, attempt=2))
    with pytest.raises(Superseded):
        prune(folder, 1, set(), 2, lambda: old.check(folder))
    assert complete(folder) == ["step-0000000010-0001", "step-0000000030-0002"]


def test_a_model_is_read_as_it_was_written(folder: Folder) -> None:
    weights = {"w": torch.randn(4, 3).t(), "n": torch.tensor(3)}
    description = {"name": "small_cnn", "classes": ["zero", "eins"], "mean": [0.1], "best": math.inf}
    write_model(folder, {"w": torch.zeros(1)}, {})
    write_model(folder, weights, description)
    again, described = read_model(folder)
    assert described == description
    assert ModelFile.read(folder).description == description
    assert again.keys() == weights.keys()
    assert torch.equal(again["w"], weights["w"])


def test_a_model_file_has_the_weights_fingerprint_and_the_description(local: Folder) -> None:
    write_model(local, {"w": torch.ones(1)}, {"classes": ["a"]}, attempt=3)
    data = local.read("model/weights-0003.safetensors")
    assert local.read_json("model/model-0003.json") == {
        "format": 1,
        "weights": {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()},
        "description": {"classes": ["a"]},
    }
    assert ModelFile.read(local) == ModelFile(Fingerprint.of(data), {"classes": ["a"]}, 3)


def test_the_model_of_the_newest_attempt_counts_whenever_an_older_one_writes_its_own(folder: Folder) -> None:
    write_model(folder, {"w": torch.ones(1)}, {"of": 1}, attempt=1)
    write_model(folder, {"w": torch.ones(1)}, {"of": 2}, attempt=2)
    assert folder.files("model") == ["model-0002.json", "weights-0002.safetensors"]
    write_model(folder, {"w": torch.ones(1)}, {"of": 1}, attempt=1)
    assert read_model(folder)[1] == {"of": 2}


def test_a_model_of_an_earlier_format_is_read(folder: Folder) -> None:
    write_model(folder, {"w": torch.ones(1)}, {"of": 0}, attempt=1)
    for name in ("model.json", "weights.safetensors"):
        stem, _, suffix = name.partition(".")
        folder.write(f"model/{name}", folder.read(f"model/{stem}-0001.{suffix}"))
        folder.delete(f"model/{stem}-0001.{suffix}")
    assert read_model(folder)[1] == {"of": 0}
    write_model(folder, {"w": torch.ones(1)}, {"of": 2}, attempt=2)
    assert folder.files("model") == ["model-0002.json", "weights-0002.safetensors"]


def test_a_damaged_or_unfinished_model_is_one_sentence(local: Folder) -> None:
    with pytest.raises(RunError, match="holds no finished model"):
        read_model(local)
    write_model(local, {"w": torch.ones(9)}, {})
    data, sealed = local.read("model/weights-0000.safetensors"), local.read_json("model/model-0000.json")
    local.write("model/weights-0000.safetensors", flip_a_bit(data))
    with pytest.raises(RunError, match=r"weights-0000\.safetensors: is damaged"):
        read_model(local)
    local.write("model/weights-0000.safetensors", data)
    local.write_json("model/model-0000.json", sealed | {"format": 2})
    with pytest.raises(RunError, match="has format 2"):
        read_model(local)
    for value in ([1], {}, sealed | {"description": []}, {"format": 1, "description": {}}):
        local.write("model/model-0000.json", json.dumps(value).encode())
        with pytest.raises(RunError, match="does not describe a model"):
            read_model(local)
    local.delete("model/model-0000.json")
    with pytest.raises(RunError, match="holds no finished model"):
        read_model(local)


def test_a_stopped_run_without_a_model_says_what_to_type(local: Folder) -> None:
    training = TrainingProgress(epochs=120, epochs_done=12, total_steps=9)
    Progress("stopped", training=training).write(local)
    with pytest.raises(RunError, match=r"it was stopped after epoch 12 of 120: lehr resume \S+$"):
        read_model(local)
    Progress("running", training=training).write(local)
    with pytest.raises(RunError, match=r"missing or incomplete$"):
        read_model(local)
