"""`model/`: the trained model of a run, with all that prediction needs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lehr.errors import RunError
from lehr.runs.attempts import newest_number
from lehr.runs.fingerprint import Fingerprint
from lehr.runs.progress import Progress
from lehr.runs.storage import Folder
from lehr.runs.tolerant import tolerant
from lehr.runs.weights import pack, unpack

if TYPE_CHECKING:
    from torch import Tensor

MODEL_FORMAT = 1
_FILE = re.compile(r"model(?:-(\d{4,}))?\.json")


@dataclass(frozen=True)
class ModelFile:
    """`model/model-0003.json`, which makes the weights beside it valid. That of the newest attempt counts.

    Attributes:
        weights: fingerprint of the file with the weights.
        description: what prediction needs besides the weights; `lehr.models.description.ModelDescription` is its type.
        attempt: number of the attempt that wrote it; None in runs of format 1 and 2.
    """

    weights: Fingerprint
    description: Mapping[str, Any]
    attempt: int | None = None

    @property
    def name(self) -> str:
        """Of the file, in the run folder."""
        return f"model/model{self._suffix}.json"

    @property
    def weights_name(self) -> str:
        """Of the file with the weights, in the run folder."""
        return f"model/weights{self._suffix}.safetensors"

    @property
    def _suffix(self) -> str:
        return "" if self.attempt is None else f"-{self.attempt:04d}"

    @classmethod
    def read(cls, folder: Folder) -> ModelFile:
        """That of the run in `folder`. Raises `RunError` where it is missing, damaged or newer."""
        attempts = _attempts(folder)
        if not attempts:
            raise _unfinished(folder)
        named = cls(Fingerprint(), {}, attempts[-1])
        try:
            value = folder.read_json(named.name)
        except FileNotFoundError as error:
            raise _unfinished(folder) from error
        whole = isinstance(value, dict) and {"format", "weights"} <= value.keys()
        if not whole or not isinstance(value.get("description"), dict):
            raise RunError(f"{folder.uri}/{named.name}: is damaged: it does not describe a model")
        if value["format"] != MODEL_FORMAT:
            newer = f"has format {value['format']}, this lehr reads {MODEL_FORMAT}; update lehr"
            raise RunError(f"{folder.uri}/model: {newer}")
        return cls(tolerant(Fingerprint, value["weights"]), value["description"], named.attempt)

    def write(self, folder: Folder) -> None:
        """Replaces the file."""
        value = {"format": MODEL_FORMAT, "weights": asdict(self.weights), "description": dict(self.description)}
        folder.write_json(self.name, value)


def write_model(
    folder: Folder, weights: dict[str, Tensor], description: Mapping[str, Any], attempt: int | None = None
) -> None:
    """Writes `model/` of a run folder: the weights first, then the description, which makes them valid.

    Args:
        attempt: number of the attempt that writes it; by default that of the newest one.
    """
    data = pack(weights)
    number = newest_number(folder) if attempt is None else attempt
    file = ModelFile(Fingerprint.of(data), description, number)
    folder.delete(file.name)
    folder.write(file.weights_name, data)
    file.write(folder)
    for old in (
        ModelFile(Fingerprint(), {}, earlier) for earlier in _attempts(folder) if earlier is None or earlier < number
    ):
        folder.delete(old.name)
        folder.delete(old.weights_name)


def has_model(folder: Folder) -> bool:
    """Whether the run has a finished model; its contents are not verified."""
    return bool(_attempts(folder))


def read_model(folder: Folder) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights, on the CPU, and description of a run's model. Raises `RunError` if it is missing, damaged or newer."""
    file = ModelFile.read(folder)
    try:
        data = folder.read(file.weights_name)
    except FileNotFoundError as error:
        raise _unfinished(folder) from error
    if Fingerprint.of(data) != file.weights:
        raise RunError(f"{folder.uri}/{file.weights_name}: is damaged: its checksum differs from {file.name}")
    try:
        return unpack(data), dict(file.description)
    except ValueError as error:
        raise RunError(f"{folder.uri}/{file.weights_name}: is damaged: {error}") from error


def _attempts(folder: Folder) -> list[int | None]:
    """The attempts that wrote a model, oldest first; None for a file without a number, which is older than any."""
    found = filter(None, map(_FILE.fullmatch, folder.files("model")))
    numbers = [int(match[1]) if match[1] else None for match in found]
    return sorted(numbers, key=lambda number: -1 if number is None else number)


def _unfinished(folder: Folder) -> RunError:
    what = f"{folder.uri}: holds no finished model: model/ is missing or incomplete"
    trials = [f"{group}/{name}" for group in ("trials", "folds") for name in folder.child(group).folders()]
    progress = Progress.read(folder)
    if progress.status in ("stopped", "failed") and (training := progress.training):
        done = f"it was {'stopped' if progress.status == 'stopped' else 'ended by a failure'} after epoch"
        what += f"; {done} {training.epochs_done} of {training.epochs}: lehr resume {shlex.quote(folder.uri)}"
    if trials:  # of a search, or of a job made of trainings that has not ended
        best = progress.best.trial or trials[0]
        what += f"; its trainings may have one, such as {folder.uri}/{best}"
    return RunError(what)
