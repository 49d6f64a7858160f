"""Checkpoints: complete once their manifest is written, verified byte for byte when read; no pickle is trusted."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from lehr.errors import RunError
from lehr.runs.attempts import Extent, all_attempts, extent
from lehr.runs.fingerprint import Fingerprint
from lehr.runs.manifest import DamagedCheckpoint, Manifest
from lehr.runs.storage import Folder, to_json
from lehr.runs.weights import pack, unpack

if TYPE_CHECKING:
    from torch import Tensor

_T = TypeVar("_T")
_NAME = re.compile(r"step-(\d{10,})(?:-(\d{4,}))?")


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
        attempt: number of the attempt that wrote or writes it; 0: unknown.
        read_from: name of the folder that it was read from; empty for one that was not.
    """

    step: int
    model: dict[str, Tensor]
    average: dict[str, Tensor] | None = None
    optimizer: dict[str, Any] | None = None
    state: dict[str, Any] = field(default_factory=dict)
    attempt: int = 0
    read_from: str = ""

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.read_from or name_of(self.step, self.attempt)

    @property
    def covered(self) -> Mapping[str, Extent]:
        """The parts of "steps" and "epochs" that it covers: how many of each attempt."""
        covered = self.state.get("covered")
        return {kind: extent(parts) for kind, parts in covered.items()} if isinstance(covered, dict) else {}


def name_of(step: int, attempt: int) -> str:
    """`step-0000000120-0003`: a name that no other attempt writes."""
    return f"step-{step:010d}-{attempt:04d}"


def step_of(name: str) -> int:
    """The optimizer steps taken before the checkpoint of this name."""
    return int(_parsed(name)[1])


def save(folder: Folder, checkpoint: Checkpoint, check: Callable[[], None] = lambda: None) -> str:
    """Writes `checkpoints/step-…/` of a run folder and returns its name. The manifest, written last, makes it valid.

    Replaces an existing checkpoint of this step and attempt. All of it is on the disk when this returns.

    Args:
        check: called before anything is written, and again before the manifest; raises `Superseded` to end it.

    Raises:
        RunError: it could not be read back.
    """
    files = {"model.safetensors": pack(checkpoint.model)}
    if checkpoint.average is not None:
        files["average.safetensors"] = pack(checkpoint.average)
    if checkpoint.optimizer is not None:
        files["optimizer.pt"] = _pack_optimizer(checkpoint.optimizer)
    files["state.json"] = to_json(checkpoint.state | {"step": checkpoint.step})
    fingerprints = {name: Fingerprint.of(data) for name, data in files.items()}
    written = name_of(checkpoint.step, checkpoint.attempt)
    own = _own_folder(folder, written)
    check()
    _remove(own)
    for name, data in files.items():
        own.write(name, data)
    check()
    Manifest(checkpoint.step, checkpoint.attempt, fingerprints).write(own)
    return written


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
        attempt=manifest.attempt,
        read_from=name,
    )


def size_of(folder: Folder, name: str) -> int:
    """Bytes of the checkpoint of this name; 0 for one that is incomplete."""
    manifest = Manifest.read(_own_folder(folder, name), step_of(name))
    return manifest.size if manifest else 0


def saved(folder: Folder) -> dict[int, str]:
    """The names of the complete checkpoints that count, by step, oldest first; their contents are not verified."""
    return {found.step: found.name for found in _survey(folder) if found.problem is None}


def newest_valid(folder: Folder) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that can be trusted, and a sentence for each newer one that was skipped.

    Skips those that are incomplete or damaged, and those that a replaced attempt left behind.
    Raises `StorageError` where the storage fails: that is no reason to fall back to an older one.
    """
    skipped: list[str] = []
    for found in reversed(_survey(folder)):
        try:
            if found.problem is not None:
                raise DamagedCheckpoint(found.problem)
            return load(folder, found.name), skipped
        except DamagedCheckpoint as error:
            skipped.append(f"skipped checkpoint {error}")
    return None, skipped


def prune(
    folder: Folder, keep_last: int, keep_also: set[int], attempt: int, check: Callable[[], None] = lambda: None
) -> None:
    """Removes all complete checkpoints but the newest `keep_last` (at least one) and those of the steps `keep_also`.

    Also removes those older than the newest complete one that are incomplete, of a replaced attempt, or there twice.
    An attempt removes its own and those of earlier attempts, never those of a later one.

    Args:
        attempt: the number of the one that asks.
        check: called before anything is removed; raises `Superseded` to end it.
    """
    survey = _survey(folder)
    good = {found.step: found.name for found in survey if found.problem is None}
    if not good:
        return
    newest = max(good)
    keep = set(sorted(good)[-max(keep_last, 1) :]) | keep_also
    useless = [
        found
        for found in survey
        # What is newer than the newest good one may still be in the making.
        if found.step <= newest and found.attempt <= attempt
        and not (found.name == good.get(found.step) and found.step in keep)
    ]  # fmt: skip
    if useless:
        check()
    for found in useless:
        _remove(_own_folder(folder, found.name))


class _Found(NamedTuple):
    """A checkpoint, and what name and manifest alone show to be wrong with it."""

    step: int
    attempt: int
    name: str
    problem: str | None


def _survey(folder: Folder) -> list[_Found]:
    """Every checkpoint, oldest first; of several of one step, that of the newest attempt comes last."""
    # Later attempts that resumed from an earlier step have replaced what an attempt did after that step.
    history = [attempt for attempt in all_attempts(folder) if not attempt.open]
    found = []
    for name in folder.child("checkpoints").folders():
        if not (match := _NAME.fullmatch(name)):
            continue
        step, own, problem = int(match[1]), _own_folder(folder, name), None
        writer = int(match[2] or 0)
        try:
            manifest = Manifest.read(own, step)
        except DamagedCheckpoint as error:
            manifest, problem = None, str(error)
        if manifest is not None:
            writer = writer or manifest.attempt
            later = [each for each in history if writer and each.number > writer and each.step < step]
            if later:
                problem = (
                    f"{own.uri}: is of attempt {writer}, which attempt {later[0].number} replaced "
                    f"from step {later[0].step} on"
                )
        elif problem is None:
            problem = _incomplete(own)
        found.append(_Found(step, writer, name, problem))
    return sorted(found, key=lambda each: (each.step, each.attempt, each.name))


def _parsed(name: str) -> re.Match[str]:
    if not (match := _NAME.fullmatch(name)):
        raise RunError(f'"{name}" is not a checkpoint; allowed: a name such as step-0000000120-0003')
    return match


def _own_folder(folder: Folder, name: str) -> Folder:
    _parsed(name)
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
