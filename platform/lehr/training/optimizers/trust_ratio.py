"""The trust ratio of layer-wise adaptive rates: how long a layer's weights are, as a multiple of its step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def ratio(of_weights: Sequence[Tensor], of_steps: Sequence[Tensor], coefficient: float = 1.0) -> list[Tensor]:
    """coefficient × ‖w‖ / ‖step‖ for each layer; 1 where either is zero. No value is waited for.

    Args:
        of_weights, of_steps: norms, a scalar tensor for each layer.
    """
    above, below = torch.stack(list(of_weights)), torch.stack(list(of_steps))
    return list(torch.where((above > 0) & (below > 0), coefficient * above / below, 1.0).unbind())
