"""Tensors as safetensors bytes."""

from __future__ import annotations

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


def unpack(data: bytes) -> dict[str, Tensor]:
    """The tensors, on the CPU. Raises `ValueError` for bytes that are not a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors: dict[str, Tensor] = load(data)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    return tensors
