"""Ends the Ray processes that a killed driver left behind. A mark in their environment identifies them."""

from __future__ import annotations

import os

import psutil

MARK = "LEHR_DRIVER"
"""The environment variable that names the driver a process was started for, by process id and start time."""


def mark_children() -> None:
    """Marks every process that this process starts from now on."""
    os.environ[MARK] = _name(psutil.Process())
    os.environ["SPT_NOENV"] = (
        "1"  # otherwise setproctitle, which Ray's agents use, overwrites the environment with the title
    )


def end_orphans() -> list[int]:
    """Kills the marked processes on this machine whose driver is dead, and returns their ids.

    Ray's daemons notice a driver's death only after a minute or more, and hold memory until then.
    """
    orphans = []
    for process in psutil.process_iter():
        try:
            driver = process.environ().get(MARK)
            if driver and not _alive(driver):
                process.kill()
                orphans.append(process)
        except (psutil.Error, OSError):  # it has ended meanwhile, or belongs to another user
            continue
    psutil.wait_procs(orphans, timeout=5)
    return [process.pid for process in orphans]


def _name(process: psutil.Process) -> str:
    return f"{process.pid}:{process.create_time():.2f}"


def _alive(driver: str) -> bool:
    pid = driver.partition(":")[0]
    try:
        process = psutil.Process(int(pid))
        return _name(process) == driver and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, ValueError):
        return False
