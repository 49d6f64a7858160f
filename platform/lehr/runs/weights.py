"""Tensors on disk: safetensors, byte for byte, and the trained model that `predict` needs."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from lehr.errors import RunError

from lehr.runs.storage import Folder

if TYPE_CHECKING:
    from torch import Tensor

MODEL_FORMAT = 1


def pack(tensors: dict[str, Tensor]) -> bytes:
    """Tensors of any device and layout as safetensors bytes, dtypes kept. Tied tensors are written once per name."""
    from safetensors.torch import save

    plain: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        plain[name] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    return save(plain)


def unpack(data: bytes) -> dict[str, Tensor]:
    """The tensors, on the CPU. Raises `ValueError` for bytes that are no safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def fingerprint(data: bytes) -> dict[str, Any]:
    """Size in bytes and SHA-256, as manifests hold them."""
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def write_model(folder: Folder, weights: dict[str, Tensor], description: dict[str, Any]) -> None:
    """Write `model/` of the run folder: weights first, then `model.json`, which makes them valid.

    `description` is all that `predict` needs besides the weights: architecture by name, classes, preprocessing.
    """
    data = pack(weights)
    folder.delete("model/model.json")
    folder.write("model/weights.safetensors", data)
    sealed = {"format": MODEL_FORMAT, "weights": fingerprint(data), "description": description}
    folder.write_json("model/model.json", sealed)


def read_model(folder: Folder) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights (on the CPU) and description from `model/`. Raises `RunError` where it is missing, damaged or newer."""
    try:
        sealed = folder.read_json("model/model.json")
        data = folder.read("model/weights.safetensors")
    except FileNotFoundError as error:
        raise RunError(f"{folder.uri}: holds no finished model: model/ is missing or incomplete") from error
    if not isinstance(sealed, dict) or not {"format", "weights", "description"} <= sealed.keys():
        raise RunError(f"{folder.uri}/model/model.json: is damaged: it does not describe a model")
    if sealed["format"] != MODEL_FORMAT:
        raise RunError(
            f"{folder.uri}/model: has format {sealed['format']}, this lehr reads {MODEL_FORMAT}; update lehr"
        )
    if fingerprint(data) != sealed["weights"]:
        raise RunError(f"{folder.uri}/model/weights.safetensors: is damaged: its checksum differs from model.json")
    try:
        return unpack(data), sealed["description"]
    except ValueError as error:
        raise RunError(f"{folder.uri}/model/weights.safetensors: is damaged: {error}") from error
