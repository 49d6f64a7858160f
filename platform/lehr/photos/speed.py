"""How fast a network is on this machine: measured, on images of noise.

What other programs take must not be measured: the same photographs on the same machine are to be the same job. On a CPU
the time counts that the process itself got to compute; how much longer it waited for says how busy the machine is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from lehr import models
from lehr.machine import cores
from lehr.photos.plan import BATCH, Costs

SECONDS = 1.5  # that each of the two measurements takes about
FEWEST, MOST_SECONDS = 3, 8.0  # calls that are measured, and for how long at most on a slow or busy machine


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
        imports: seconds that this process took to import what a worker does, waiting for others left out.
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
            forward, waited = _seconds(lambda: model(images), device)
        torch.set_num_threads(max(1, cores() // ways))
        model.train()
        step, waited_too = _seconds(lambda: cross_entropy(model(images), labels).backward(), device)
    finally:
        torch.set_num_threads(before)
    busy = max(1.0, (waited + waited_too) / (forward + step))
    return Costs(forward / len(images), step / len(images), decode / busy / cores(), imports, busy)


def _seconds(call: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """What a call takes, and how long one waits for it: medians of several calls, after one to warm up.

    On a CPU, what it takes is the time that this thread got: it takes part in every computation from start to end.
    """
    took: list[float] = []
    waited: list[float] = []
    began, spent = time.perf_counter(), 0.0
    while len(waited) < 2 or spent < (SECONDS if len(waited) > FEWEST else MOST_SECONDS):
        start, alone = time.perf_counter(), time.thread_time()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        waited.append(time.perf_counter() - start)
        took.append(waited[-1] if device.type == "cuda" else time.thread_time() - alone)
        spent = time.perf_counter() - began
    return median(took[1:]), median(waited[1:])
