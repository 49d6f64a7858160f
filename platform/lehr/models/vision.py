"""torchvision, imported so that it works with every build of torch. Import it from here only."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import TypeVar

import torch

T = TypeVar("T")

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_OF_OPERATORS = "torchvision::"
_declared: list[torch.library.Library] = []  # a declaration lasts as long as its library object


@cache
def torchvision() -> ModuleType:
    """The package with `datasets`, `models` and `transforms`. Importing it takes a second or two.

    The torchvision wheel on PyPI is compiled against the CUDA build of torch; with a CPU build of torch its compiled
    extension cannot be loaded. That alone would not matter, since models, datasets and transforms are pure Python. But
    on import, torchvision registers the shapes of two operators of that extension with torch, which fails because the
    operators were never declared: `operator torchvision::nms does not exist`. They are therefore declared here, without
    an implementation. Calling one still fails, as it should; lehr calls neither.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if _OF_OPERATORS not in str(error):
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in _OPERATORS:
            library.define(operator)
        _declared.append(library)
        import torchvision
    return torchvision


def with_torchvision(imports: Callable[[], T]) -> T:
    """What a function returns that imports code of others, which may import torchvision itself."""
    try:
        return imports()
    except Exception as error:
        if _OF_OPERATORS not in str(error):
            raise
    torchvision()
    return imports()
