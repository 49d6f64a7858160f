"""The type of `draw`: draw(k) gives one number in [0, 1) per row, the k-th draw of this row in this epoch."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Draw = Callable[[int], Tensor]
