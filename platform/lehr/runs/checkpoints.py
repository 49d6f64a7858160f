"""Checkpoints: complete once their manifest is written, verified byte for byte when read; no pickle is trusted."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from lehr.errors import RunError
from lehr.runs.attempts import all_attempts, part_attempt
from lehr.runs.fingerprint import Fingerprint
from lehr.runs.manifest import DamagedCheckpoint, Manifest
from lehr.runs.storage import Folder, to_json
from lehr.runs.weights import pack, unpack

if TYPE_CHECKING:
    from torch import Tensor

_T = TypeVar("_T")
_NAME = re.compile(r"step-(\d{10,})")


@dataclass
class Checkpoint:
    """The state of a training run after `step` optimizer steps.

    Attributes:
        step: optimizer steps taken.
        model: the model's state dict; all values are tensors.
        average: the averaged weights, or None.
        optimizer: its state dict, of tensors and plain values, as `torch.load(weights_only=True)` accepts it; or None.
        state: JSON values, as state.json holds them: `covered` is `Recorder.covered()`, the parts of the record that
            the checkpoint covers; the rest is the training loop's (`lehr.training.state.TrainingState`). They come back
            with `step`, tuples as lists and keys as text.
    """

    step: int
    model: dict[str, Tensor]
    average: dict[str, Tensor] | None = None
    optimizer: dict[str, Any] | None = None
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of its folder."""
        return name_of(self.step)

    @property
    def covered(self) -> Mapping[str, Sequence[str]]:
        """The parts of "steps" and "epochs" that it covers."""
        return self.state.get("covered") or {}


def name_of(step: int) -> str:
    """`step-0000000120`."""
    return f"step-{step:010d}"


def step_of(name: str) -> int:
    """The optimizer steps taken before the checkpoint of this name."""
    return int(name.removeprefix("step-"))


def save(folder: Folder, checkpoint: Checkpoint) -> str:
    """Writes `checkpoints/step-…/` of a run folder and returns its name. The manifest, written last, makes it valid.

    Replaces an existing checkpoint of this step. Raises `RunError` for what could not be read back.
    """
    files = {"model.safetensors": pack(checkpoint.model)}
    if checkpoint.average is not None:
        files["average.safetensors"] = pack(checkpoint.average)
    if checkpoint.optimizer is not None:
        files["optimizer.pt"] = _pack_optimizer(checkpoint.optimizer)
    files["state.json"] = to_json(checkpoint.state | {"step": checkpoint.step})
    fingerprints = {name: Fingerprint.of(data) for name, data in files.items()}
    own = _own_folder(folder, checkpoint.name)
    _remove(own)
    for name, data in files.items():
        own.write(name, data)
    # Its writer, 0 where unknown: whoever took a step has recorded it.
    writer = max((part_attempt(part) for parts in checkpoint.covered.values() for part in parts), default=0)
    Manifest(checkpoint.step, writer, fingerprints).write(own)
    return checkpoint.name


def load(folder: Folder, name: str) -> Checkpoint:
    """Reads and verifies `checkpoints/<name>/`; tensors are on the CPU.

    Raises `DamagedCheckpoint`, which says which file is damaged, and `RunError` for one that a newer lehr wrote.
    """
    own = _own_folder(folder, name)
    manifest = Manifest.read(own, step_of(name))
    if manifest is None:
        raise DamagedCheckpoint(_incomplete(own))
    files = {file: _verified(own, file, expected) for file, expected in manifest.files.items()}

    def parsed(file: str, parse: Callable[[bytes], _T]) -> _T:
        try:
            return parse(files[file])
        except ValueError as error:
            raise DamagedCheckpoint(f"{own.uri}/{file}: is damaged: {error}") from error

    return Checkpoint(
        step=manifest.step,
        model=parsed("model.safetensors", unpack),
        average=parsed("average.safetensors", unpack) if "average.safetensors" in files else None,
        optimizer=parsed("optimizer.pt", _unpack_optimizer) if "optimizer.pt" in files else None,
        state=parsed("state.json", _unpack_state),
    )


def size_of(folder: Folder, name: str) -> int:
    """Bytes of the checkpoint of this name; 0 for one that is incomplete."""
    manifest = Manifest.read(_own_folder(folder, name), step_of(name))
    return manifest.size if manifest else 0


def names(folder: Folder) -> list[str]:
    """The complete checkpoints that count, oldest first; their contents are not verified."""
    return [name for _, name, problem in _survey(folder) if problem is None]


def newest_valid(
    folder: Folder, needs: Callable[[Checkpoint], int | None] = lambda _: None
) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that can be trusted, and a sentence for each newer one that was skipped.

    Skips those that are incomplete or damaged, and those that workers of a replaced attempt left behind.
    Raises `StorageError` where the storage fails: that is no reason to fall back to an older one.

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
    """Removes all complete checkpoints but the newest `keep_last` (at least one) and those of the steps `keep_also`.

    Also removes those older than the newest complete one that are incomplete or of a replaced attempt.
    """
    survey = _survey(folder)
    good = [step for step, _, problem in survey if problem is None]
    keep = set(good[-max(keep_last, 1) :]) | keep_also
    for step, name, problem in survey:
        # What is newer than the newest good one may still be in the making.
        if good and step < good[-1] and (problem is not None or step not in keep):
            _remove(_own_folder(folder, name))


def _survey(folder: Folder) -> list[tuple[int, str, str | None]]:
    """Of each checkpoint, oldest first: its step, its name, and what name and manifest alone show to be wrong."""
    # Later attempts that resumed from an earlier step have replaced what an attempt did after that step.
    history = all_attempts(folder)
    found = []
    for name in folder.child("checkpoints").folders():
        if not _NAME.fullmatch(name):
            continue
        step, own, problem = step_of(name), _own_folder(folder, name), None
        try:
            manifest = Manifest.read(own, step)
        except DamagedCheckpoint as error:
            manifest, problem = None, str(error)
        if manifest is not None:
            writer = manifest.attempt
            later = [each for each in history if writer and each.number > writer and each.step < step]
            if later:
                problem = (
                    f"{own.uri}: is of attempt {writer}, which attempt {later[0].number} replaced "
                    f"from step {later[0].step} on"
                )
        elif problem is None:
            problem = _incomplete(own)
        found.append((step, name, problem))
    return sorted(found)


def _own_folder(folder: Folder, name: str) -> Folder:
    if not _NAME.fullmatch(name):
        raise RunError(f'"{name}" is not a checkpoint; allowed: step- and ten digits, such as step-0000000120')
    return folder.child("checkpoints", name)


def _incomplete(own: Folder) -> str:
    return f"{own.uri}: is incomplete: it has no manifest.json, its writer was interrupted"


def _verified(own: Folder, name: str, expected: Fingerprint) -> bytes:
    try:
        data = own.read(name)
    except FileNotFoundError as error:
        raise DamagedCheckpoint(f"{own.uri}/{name}: is missing") from error
    if Fingerprint.of(data) != expected:
        raise DamagedCheckpoint(f"{own.uri}/{name}: is damaged: its checksum differs from manifest.json")
    return data


def _remove(own: Folder) -> None:
    # The manifest first: a half-deleted checkpoint must never look complete.
    own.delete("manifest.json")
    own.delete_all()


def _pack_optimizer(optimizer: dict[str, Any]) -> bytes:
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint

    buffer = io.BytesIO()
    try:
        torch.save(optimizer, buffer)
    except Exception as error:  # whatever the user's own objects raise
        raise RunError(f"the optimizer's state cannot be saved: {error}") from error
    data = buffer.getvalue()
    # Better to refuse it now than to find it unreadable later. The list of globals is cheap to get, but too strict.
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


def _unpack_state(data: bytes) -> dict[str, Any]:
    state = json.loads(data)
    if not isinstance(state, dict):
        raise ValueError("it is not a mapping")
    return state


def _unpack_optimizer(data: bytes) -> dict[str, Any]:
    import torch

    try:
        state: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:  # whatever bytes made by somebody else may raise
        raise ValueError("it holds more than tensors and plain values, and was not unpickled") from error
    return state
