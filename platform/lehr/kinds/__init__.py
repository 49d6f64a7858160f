"""What each kind of job does. A new kind is one module here and one line in `KINDS`."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from lehr.job import Job

KINDS = {"train": "lehr.kinds.train"}


def kind_of(job: Job) -> ModuleType:
    """The module that runs this kind of job. It has `check(job)` and `run(running)`; see `lehr.kinds.train`."""
    return import_module(KINDS[job.kind])
