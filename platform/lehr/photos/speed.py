"""How fast a network is on this machine: measured, on images of noise."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from lehr import models
from lehr.machine import cores
from lehr.photos.plan import BATCH, Costs

SECONDS = 1.5  # that each of the two measurements takes about


def measure(
    network: str,
    options: dict[str, Any],
    size: tuple[int, int],
    classes: int,
    *,
    ways: int,
    decode: float,
    imports: float,
) -> Costs:
    """What a photograph costs.

    Args:
        size: (height, width) of the network's input.
        ways: how many trainings share the cores.
        decode: seconds to read and decode one, on one core.
        imports: seconds that this process took to import what a worker does.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = models.build(network, 3, classes, options, seed=0).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.rand(BATCH // 2, 3, *size, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(len(images), device=device) % classes
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(cores())
        model.eval()
        with torch.inference_mode():
            forward = _seconds(lambda: model(images), device) / len(images)
        torch.set_num_threads(max(1, cores() // ways))
        model.train()
        step = _seconds(lambda: cross_entropy(model(images), labels).backward(), device) / len(images)
    finally:
        torch.set_num_threads(before)
    return Costs(forward, step, decode / cores(), imports)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    """The median of what a call takes, after one to warm up."""
    took: list[float] = []
    began = time.perf_counter()
    while len(took) < 2 or time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        took.append(time.perf_counter() - start)
    return sorted(took[1:])[len(took[1:]) // 2]
