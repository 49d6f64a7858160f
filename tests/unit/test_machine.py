"""The memory that a process may use: the smallest limit on its way up through the control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lehr import machine

TOTAL = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("membership", "limits", "expected"),
    [
        ("0::/\n", {"memory.max": "max"}, TOTAL),
        ("0::/\n", {"memory.max": "1000000"}, 1_000_000),  # in a container
        ("0::/user.slice/job.scope\n", {"user.slice/job.scope/memory.max": "2000000"}, 2_000_000),
        (
            "0::/slurm/job_7/step_0\n",  # activeloopai/deeplake#2987: the cache took the machine's memory for the job's
            {"slurm/job_7/memory.max": "3000000", "slurm/job_7/step_0/memory.max": "max"},
            3_000_000,
        ),
        ("5:memory:/slurm/job_7\n3:cpu:/\n", {"memory/slurm/job_7/memory.limit_in_bytes": "4000000"}, 4_000_000),
        ("5:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, TOTAL),  # version 1 has no "max"
        ("0::/../other\n", {}, TOTAL),
    ],
)
def test_memory_is_what_the_control_groups_leave(
    membership: str, limits: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in limits.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(f"{text}\n")
    (tmp_path / "membership").write_text(membership)
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "MEMBERSHIP", tmp_path / "membership")
    assert machine.memory() == expected


def test_without_control_groups_it_is_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "none")
    monkeypatch.setattr(machine, "MEMBERSHIP", tmp_path / "none")
    assert machine.memory() == TOTAL
