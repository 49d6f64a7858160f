"""What is recorded of the hardware in use, and what the report draws of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from lehr.curves.hardware import hardware_section
from lehr.curves.record import Curves
from lehr.models.operations import operations
from lehr.runs import RunFolder, Survey, without_timing
from lehr.training import hardware
from lehr.training.hardware import HardwareUse


def test_cores_are_those_that_this_process_kept_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "EVERY", 0.2)
    use = HardwareUse(torch.device("cpu"))
    assert use.sample() == {}, "a moment is no measurement"
    time.sleep(0.25)
    idle = use.sample()["cpu_cores"]
    end = time.process_time() + 0.25
    while time.process_time() < end:
        math.sqrt(2)
    busy = use.sample()
    assert idle is not None
    assert busy["cpu_cores"] is not None
    assert idle < 0.2 < busy["cpu_cores"]
    assert busy["memory_bytes"] is not None
    assert busy["memory_bytes"] > 50e6
    assert "gpu_use" not in busy


def test_a_long_run_is_measured_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "MOST_ROWS", 2)
    monkeypatch.setattr(hardware, "EVERY", 0.02)
    use, found = HardwareUse(torch.device("cpu")), 0
    end = time.perf_counter() + 1.0
    while time.perf_counter() < end:
        found += bool(use.sample())
        time.sleep(0.002)
    assert 4 <= found <= 12  # 2 of 0.02 s, 2 of 0.04 s, … 2 of 0.32 s


def test_a_run_records_it_as_figures_that_differ_between_equal_runs(
    train_tiny: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "EVERY", 0.0)
    run = train_tiny()
    steps = run.steps()
    assert steps.column("cpu_cores").null_count < len(steps)
    assert not {"cpu_cores", "memory_bytes", "gpu_use"} & set(without_timing(steps).column_names)
    assert Survey.read(run.folder).network.flops > 0


def curves(**columns: list[float]) -> Curves:
    steps = {"step": np.arange(4.0), "epoch": np.arange(4.0) / 2, **{k: np.array(v) for k, v in columns.items()}}
    return Curves(steps, {"epoch": np.arange(1.0, 3.0)})


def test_the_report_draws_what_was_measured_and_nothing_else() -> None:
    nothing = float("nan")
    section = hardware_section(curves(cpu_cores=[nothing, 1.5, nothing, 2.5], gpu_use=[nothing] * 4))
    assert section is not None
    assert "Cores in use" in str(section.body)
    assert "GPU" not in str(section.body)
    assert hardware_section(curves(cpu_cores=[nothing, nothing, 1.0, nothing])) is None
    assert hardware_section(curves()) is None


def test_operations_are_those_of_the_paper() -> None:
    """ResNet-50 takes 3.8 × 10⁹ multiply-adds for 224 pixels (He et al., 2016, table 1, stride in the first 1 × 1
    layer); with the stride in the 3 × 3 layer, as torchvision has it, 4.09 × 10⁹ (its documentation)."""
    assert operations("resnet50", (3, 224, 224), 1000, {}) / 2 == pytest.approx(4.09e9, rel=0.005)
    assert operations("my.nets:Net", (3, 224, 224), 1000, {}) == 0
