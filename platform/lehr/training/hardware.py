"""How busy the first worker's hardware is: its cores, its memory and its GPU, every few seconds."""

from __future__ import annotations

import time
from contextlib import suppress

import psutil
import torch

EVERY = 2.0
"""Seconds between two measurements, which take less than a millisecond."""
MOST_ROWS = 1_000
"""Measurements of an attempt at that pace; after each so many the pause between them doubles."""


class HardwareUse:
    """Measures this process. Columns of the step table that it fills: `COLUMNS` of `lehr.runs.columns`."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._process = device, psutil.Process()
        self._every, self._measured = EVERY, 0
        self._at, self._busy = time.perf_counter(), time.process_time()

    def sample(self) -> dict[str, float | None]:
        """What is in use now, cores since the last measurement; nothing where that was a moment ago."""
        now, busy = time.perf_counter(), time.process_time()
        if now - self._at < self._every:
            return {}
        cores = (busy - self._busy) / (now - self._at)
        self._at, self._busy = now, busy
        self._measured += 1
        if self._measured % MOST_ROWS == 0:
            self._every *= 2
        return {"cpu_cores": cores, "memory_bytes": float(self._process.memory_info().rss), **self._gpu()}

    def _gpu(self) -> dict[str, float | None]:
        if self._device.type != "cuda":
            return {}
        use = None
        with suppress(Exception):  # without NVML, or a driver that does not tell
            use = torch.cuda.utilization(self._device) / 100
        return {"gpu_use": use, "gpu_memory_bytes": float(torch.cuda.memory_reserved(self._device))}
