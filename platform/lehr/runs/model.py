"""`model/`: the trained model of a run, with all that prediction needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lehr.errors import RunError
from lehr.runs.fingerprint import Fingerprint
from lehr.runs.storage import Folder
from lehr.runs.tolerant import tolerant
from lehr.runs.weights import pack, unpack

if TYPE_CHECKING:
    from torch import Tensor

MODEL_FORMAT = 1
_FILE, _WEIGHTS = "model/model.json", "model/weights.safetensors"


@dataclass(frozen=True)
class ModelFile:
    """`model/model.json`, which makes the weights beside it valid.

    Attributes:
        weights: fingerprint of weights.safetensors.
        description: what prediction needs besides the weights; `lehr.models.description.ModelDescription` is its type.
    """

    weights: Fingerprint
    description: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Folder) -> ModelFile:
        """That of the run in `folder`. Raises `RunError` where it is missing, damaged or newer."""
        try:
            value = folder.read_json(_FILE)
        except FileNotFoundError as error:
            raise _unfinished(folder) from error
        whole = isinstance(value, dict) and {"format", "weights"} <= value.keys()
        if not whole or not isinstance(value.get("description"), dict):
            raise RunError(f"{folder.uri}/{_FILE}: is damaged: it does not describe a model")
        if value["format"] != MODEL_FORMAT:
            newer = f"has format {value['format']}, this lehr reads {MODEL_FORMAT}; update lehr"
            raise RunError(f"{folder.uri}/model: {newer}")
        return cls(tolerant(Fingerprint, value["weights"]), value["description"])

    def write(self, folder: Folder) -> None:
        """Replaces model.json."""
        value = {"format": MODEL_FORMAT, "weights": asdict(self.weights), "description": dict(self.description)}
        folder.write_json(_FILE, value)


def write_model(folder: Folder, weights: dict[str, Tensor], description: Mapping[str, Any]) -> None:
    """Writes `model/` of a run folder: the weights first, then `model.json`, which makes them valid."""
    data = pack(weights)
    folder.delete(_FILE)
    folder.write(_WEIGHTS, data)
    ModelFile(Fingerprint.of(data), description).write(folder)


def read_model(folder: Folder) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights, on the CPU, and description of a run's model. Raises `RunError` if it is missing, damaged or newer."""
    file = ModelFile.read(folder)
    try:
        data = folder.read(_WEIGHTS)
    except FileNotFoundError as error:
        raise _unfinished(folder) from error
    if Fingerprint.of(data) != file.weights:
        raise RunError(f"{folder.uri}/{_WEIGHTS}: is damaged: its checksum differs from model.json")
    try:
        return unpack(data), dict(file.description)
    except ValueError as error:
        raise RunError(f"{folder.uri}/{_WEIGHTS}: is damaged: {error}") from error


def _unfinished(folder: Folder) -> RunError:
    return RunError(f"{folder.uri}: holds no finished model: model/ is missing or incomplete")
