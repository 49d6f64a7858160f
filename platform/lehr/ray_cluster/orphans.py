"""Ends the Ray processes that a killed driver left behind. A mark in their environment identifies them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from lehr.processes import Process, is_running, this_process

MARK = "LEHR_DRIVER"
"""The environment variable that names the driver a process was started for."""


@contextmanager
def marked_children() -> Iterator[None]:
    """Every process that this process starts within this context is marked, with all that descend from it."""
    # Without SPT_NOENV, setproctitle, which Ray's agents use, overwrites the environment with the title.
    names = {MARK: str(this_process()), "SPT_NOENV": "1"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def end_orphans() -> list[int]:
    """Kills the marked processes that this process can see and whose driver is known to be dead; returns their ids.

    Ray's daemons notice a driver's death only after a minute or more, and hold memory until then. Those of a driver in
    another container are left alone, since nothing is known of it here.
    """
    orphans = []
    for process in psutil.process_iter():
        try:
            driver = Process.parse(process.environ().get(MARK, ""))
            if driver and not is_running(driver):
                process.kill()
                orphans.append(process)
        except (psutil.Error, OSError):  # it has ended meanwhile, or belongs to another user
            continue
    psutil.wait_procs(orphans, timeout=5)
    return [process.pid for process in orphans]
