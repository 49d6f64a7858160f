"""How many additions and multiplications a network takes for one image."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lehr.models import Around, build


def operations(
    name: str, shape: tuple[int, int, int], outputs: int, options: dict[str, Any], around: Around | None = None
) -> int:
    """Those of a forward pass of one image of `shape` (channels, height, width), without computing anything.

    A multiplication and the addition after it are two. Matrix products, convolutions and attention are counted, as
    torch counts them; what else a network does takes few. 0 for networks of the user's own, which may need actual
    numbers, and for those that take more than images.
    """
    if ":" in name:
        return 0
    with suppress(Exception), torch.no_grad(), torch.device("meta"):  # whatever layers raise, training goes on
        model: nn.Module = build(name, shape[0], outputs, options, 0, around).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, *shape))
        return int(counter.get_total_flops())
    return 0
