"""Checkpoints: complete once their manifest is there, verified to the last bit when read, nothing pickled trusted."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lehr.errors import RunError

from lehr.runs.attempts import all_attempts, part_attempt
from lehr.runs.storage import Folder, to_json
from lehr.runs.weights import fingerprint, pack, unpack

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINT_FORMAT = 1
REQUIRED = {"model.safetensors", "state.json"}
OPTIONAL = {"average.safetensors", "optimizer.pt"}
_NAME = re.compile(r"step-(\d{10,})")


class DamagedCheckpoint(RunError):
    """A checkpoint that is incomplete or does not hold what its manifest says."""


@dataclass
class Checkpoint:
    """The state of a training run after `step` optimizer steps.

    Attributes:
        step: optimizer steps taken.
        model: the model's state dict; all values tensors.
        average: the averaged weights, or None.
        optimizer: tensors and plain values, as `torch.load(weights_only=True)` admits them; or None.
        state: JSON values: "covered" is `Recorder.covered()`, the record parts that this checkpoint covers; the rest
            is the loop's own. Comes back as JSON does, with "step": tuples as lists, keys as strings.
    """

    step: int
    model: dict[str, Tensor]
    average: dict[str, Tensor] | None = None
    optimizer: dict[str, Any] | None = None
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return name_of(self.step)

    @property
    def covered(self) -> dict[str, list[str]]:
        """The parts of "steps" and "epochs" that it covers."""
        return self.state.get("covered") or {}


def name_of(step: int) -> str:
    return f"step-{step:010d}"


def step_of(name: str) -> int:
    """The optimizer steps taken before the checkpoint of this name."""
    return int(name.removeprefix("step-"))


def save(folder: Folder, checkpoint: Checkpoint) -> str:
    """Write `checkpoints/step-…/` of the run folder and return its name; the manifest, last, makes it valid.

    A checkpoint of this step that exists already is replaced. Raises `RunError` for what could not be read back.
    """
    files = {"model.safetensors": pack(checkpoint.model)}
    if checkpoint.average is not None:
        files["average.safetensors"] = pack(checkpoint.average)
    if checkpoint.optimizer is not None:
        files["optimizer.pt"] = _pack_optimizer(checkpoint.optimizer)
    files["state.json"] = to_json(checkpoint.state | {"step": checkpoint.step})
    manifest = {
        "format": CHECKPOINT_FORMAT,
        "step": checkpoint.step,
        # Its writer's number, 0 where unknown: whoever took a step has recorded it.
        "attempt": max((part_attempt(part) for parts in checkpoint.covered.values() for part in parts), default=0),
        "files": {name: fingerprint(data) for name, data in files.items()},
    }
    place = _place(folder, checkpoint.name)
    _remove(place)
    for name, data in files.items():
        place.write(name, data)
    place.write_json("manifest.json", manifest)
    return checkpoint.name


def load(folder: Folder, name: str) -> Checkpoint:
    """Read and verify `checkpoints/<name>/`; tensors are on the CPU.

    Raises `DamagedCheckpoint`, which says which file, and `RunError` for one written by a newer lehr.
    """
    place = _place(folder, name)
    manifest = _manifest(place)
    if manifest is None:
        raise DamagedCheckpoint(f"{place.uri}: is incomplete: it has no manifest.json, its writer was interrupted")
    files = {file: _verified(place, file, expected) for file, expected in manifest["files"].items()}

    def parsed(file: str, parse: Callable[[bytes], Any]) -> Any:
        try:
            return parse(files[file]) if file in files else None
        except ValueError as error:
            raise DamagedCheckpoint(f"{place.uri}/{file}: is damaged: {error}") from error

    return Checkpoint(
        step=manifest["step"],
        model=parsed("model.safetensors", unpack),
        average=parsed("average.safetensors", unpack),
        optimizer=parsed("optimizer.pt", _unpack_optimizer),
        state=parsed("state.json", json.loads),
    )


def names(folder: Folder) -> list[str]:
    """The complete checkpoints that count, oldest first; their contents are not verified."""
    return [name for _, name, problem in _survey(folder) if problem is None]


def newest_valid(
    folder: Folder, needs: Callable[[Checkpoint], int | None] = lambda _: None
) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that can be trusted, and a sentence for each newer one that was skipped.

    Skipped are incomplete and damaged ones, and those that workers of a replaced attempt left behind.
    Raises `StorageError` where the storage fails: that is no reason to fall back.

    Args:
        needs: the step of another checkpoint without which one is of no use, or None.
    """
    skipped: list[str] = []
    for _, name, problem in reversed(_survey(folder)):
        try:
            if problem is not None:
                raise DamagedCheckpoint(problem)
            found = load(folder, name)
            needed = needs(found)
            if needed is not None and needed != found.step:
                load(folder, name_of(needed))
            return found, skipped
        except DamagedCheckpoint as error:
            which = "" if name in str(error) else f"{name}, which needs another: "
            skipped.append(f"skipped checkpoint {which}{error}")
    return None, skipped


def prune(folder: Folder, keep_last: int, keep_also: set[int]) -> None:
    """Remove all complete checkpoints but the newest `keep_last` (at least one) and those of the steps `keep_also`.

    Older than the newest complete one, incomplete ones and those of replaced attempts go too.
    """
    survey = _survey(folder)
    good = [step for step, _, problem in survey if problem is None]
    keep = set(good[-max(keep_last, 1) :]) | keep_also
    for step, name, problem in survey:
        # What is newer than the newest good one may be just being written.
        if good and step < good[-1] and (problem is not None or step not in keep):
            _remove(_place(folder, name))


def _survey(folder: Folder) -> list[tuple[int, str, str | None]]:
    """Step, name, and what is wrong by name and manifest alone, of each checkpoint, oldest first."""
    # Later attempts that resumed from an earlier step have replaced what an attempt did after that step.
    history = all_attempts(folder)
    found = []
    for name in folder.child("checkpoints").folders():
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        step, place, problem = int(match[1]), _place(folder, name), None
        try:
            manifest = _manifest(place)
        except DamagedCheckpoint as error:
            manifest, problem = None, str(error)
        if manifest is not None:
            writer = manifest.get("attempt")
            later = [a for a in history if writer and a.number > writer and a.step < step]
            if later:
                problem = (
                    f"{place.uri}: is of attempt {writer}, which attempt {later[0].number} replaced "
                    f"from step {later[0].step} on"
                )
        elif problem is None:
            problem = f"{place.uri}: is incomplete: it has no manifest.json, its writer was interrupted"
        found.append((step, name, problem))
    return sorted(found)


def _place(folder: Folder, name: str) -> Folder:
    if not _NAME.fullmatch(name):
        raise RunError(f'"{name}" is no checkpoint; allowed: step- and ten digits, as step-0000000120')
    return folder.child("checkpoints", name)


def _manifest(place: Folder) -> dict[str, Any] | None:
    try:
        manifest = place.read_json("manifest.json")
    except FileNotFoundError:
        return None
    except RunError as error:
        raise DamagedCheckpoint(str(error)) from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise DamagedCheckpoint(f"{place.uri}/manifest.json: is damaged: it names no format")
    if manifest["format"] > CHECKPOINT_FORMAT:
        raise RunError(f"{place.uri}: was written by a newer lehr (format {manifest['format']}); update lehr")
    files = manifest.get("files")
    if not isinstance(files, dict) or not REQUIRED <= files.keys() <= REQUIRED | OPTIONAL:
        raise DamagedCheckpoint(f"{place.uri}/manifest.json: is damaged: it does not name the files of a checkpoint")
    if manifest.get("step") != int(place.name.removeprefix("step-")):
        raise DamagedCheckpoint(f"{place.uri}/manifest.json: is damaged: it is of step {manifest.get('step')}")
    return manifest


def _verified(place: Folder, name: str, expected: Any) -> bytes:
    try:
        data = place.read(name)
    except FileNotFoundError as error:
        raise DamagedCheckpoint(f"{place.uri}/{name}: is missing") from error
    actual = fingerprint(data)
    if actual != expected:
        raise DamagedCheckpoint(f"{place.uri}/{name}: is damaged: it is not the file that the manifest names")
    return data


def _remove(place: Folder) -> None:
    # The manifest first: a half-deleted checkpoint must never look complete.
    place.delete("manifest.json")
    place.delete_all()


def _pack_optimizer(optimizer: dict[str, Any]) -> bytes:
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint

    buffer = io.BytesIO()
    try:
        torch.save(optimizer, buffer)
    except Exception as error:  # whatever the user's own objects raise
        raise RunError(f"the optimizer's state cannot be saved: {error}") from error
    data = buffer.getvalue()
    # Better refused now than found unreadable when it is needed. The list alone is cheap, but too strict.
    unsafe = get_unsafe_globals_in_checkpoint(io.BytesIO(data))
    if unsafe:
        try:
            _unpack_optimizer(data)
        except ValueError as error:
            raise RunError(
                f"the optimizer's state holds {', '.join(unsafe)}, which cannot be read back safely; "
                "allowed: tensors, numbers, strings, lists, tuples and dicts"
            ) from error
    return data


def _unpack_optimizer(data: bytes) -> dict[str, Any]:
    import torch

    try:
        return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:  # whatever bytes made by somebody else may raise
        raise ValueError("it holds something else than tensors and plain values, and was not unpickled") from error
