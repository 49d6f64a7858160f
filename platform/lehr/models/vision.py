"""torchvision, imported in the one way that works with every build of torch. Get it from here and nowhere else."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # a declaration lives as long as its library


@cache
def torchvision() -> ModuleType:
    """The package, with `datasets`, `models` and `transforms` in it. Importing it takes a second or two.

    The wheel of torchvision on PyPI is compiled against the CUDA build of torch. Beside a CPU build of torch its
    compiled extension cannot be loaded. That would not matter here, since models, datasets and transforms are pure
    Python; but while it is imported, torchvision describes the shapes of two operators of that extension to torch, and
    torch refuses to hear of operators that nobody declared: `operator torchvision::nms does not exist`. So they are
    declared here, without an implementation: to call one still fails, as it should, and nothing in lehr does.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in _OPERATORS:
            library.define(operator)
        _declared.append(library)
        import torchvision
    return torchvision
