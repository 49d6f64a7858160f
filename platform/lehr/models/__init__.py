"""Networks by name, or the user's own.

A model is a callable (channels, outputs, **options) -> torch.nn.Module that maps images [rows, channels, height, width]
to [rows, outputs]. To add one: write it and name it in `MODELS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lehr.models.small_cnn import SmallCNN

MODELS: dict[str, Callable[..., nn.Module]] = {"small_cnn": SmallCNN}

__all__ = ["MODELS", "SmallCNN", "build"]


def build(name: str, channels: int, outputs: int, options: dict[str, Any], seed: int) -> nn.Module:
    """The named network with weights drawn from the seed; the global random state is left as it was.

    Raises:
        ValueError: an option has a value that the model refuses.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[name](channels, outputs, **options)
