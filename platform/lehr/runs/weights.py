"""Tensors as safetensors bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


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
    data: bytes = save(plain)
    return data


def metadata(file: Path) -> dict[str, str]:
    """What a safetensors file says besides its tensors; empty where that cannot be read, as of any other file."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length)) if 0 < length < 1 << 26 else {}
        found = header.get("__metadata__", {})
        return {key: value for key, value in found.items() if isinstance(value, str)}
    except (OSError, ValueError, AttributeError):
        return {}


def unpack(data: bytes) -> dict[str, Tensor]:
    """The tensors, on the CPU. Raises `ValueError` for bytes that are not a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors: dict[str, Tensor] = load(data)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    return tensors
