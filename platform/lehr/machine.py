"""What this machine gives to this process: cores and memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """Bytes of memory this process may use: the machine's, or the smallest limit of its control groups.

    A container sees its limit at the root of its control groups; Slurm and systemd set theirs some levels below.
    """
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([total, *_limits()])


def _limits() -> Iterator[int]:
    """The memory limits of this process's control groups and of all groups above them, of version 1 and 2."""
    for group in _groups():
        for name in ("memory.max", "memory.limit_in_bytes"):
            try:
                text = (group / name).read_text().strip()
            except OSError:
                continue
            if text.isdecimal():  # else "max"
                yield int(text)


def _groups() -> Iterator[Path]:
    yield CGROUPS
    yield CGROUPS / "memory"
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:  # 0::/user.slice/job.scope, or 5:memory:/slurm/job_7 in version 1
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            group = CGROUPS / controllers / path.lstrip("/")
            yield from (each for each in (group, *group.parents) if each.is_relative_to(CGROUPS))
