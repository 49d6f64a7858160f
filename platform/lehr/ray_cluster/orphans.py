"""Processes of a Ray whose driver was killed: found by a mark in their environment, and ended."""

from __future__ import annotations

import os

import psutil

MARK = "LEHR_DRIVER"
"""The environment variable that names the driver a process was started for: process id and time of its start."""


def mark_children() -> None:
    """Whatever this process starts from now on is known as its own."""
    os.environ[MARK] = _name(psutil.Process())
    os.environ["SPT_NOENV"] = "1"  # else setproctitle, which Ray's agents use, writes the title over the environment


def end_orphans() -> list[int]:
    """Ends the marked processes on this machine whose driver is dead; returns their ids.

    Ray's daemons notice the death of a driver in their own time, after a minute or more, and hold memory until then.
    """
    orphans = []
    for process in psutil.process_iter():
        try:
            driver = process.environ().get(MARK)
            if driver and not _alive(driver):
                process.kill()
                orphans.append(process)
        except (psutil.Error, OSError):  # gone meanwhile, or somebody else's
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
