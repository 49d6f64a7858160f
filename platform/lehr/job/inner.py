"""What is said about a job's `base`, in the words of the job that has it.

The trainings of a search, a recipe, an ensemble or a transfer are made of its `base`, and their errors speak of a train
job: `train.batch_size`. Typed for the job that was run, that is `base.train.batch_size`, and it stands in its file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from lehr.errors import JobError, LehrError
from lehr.job.base import Job
from lehr.job.training import Training


@contextmanager
def told_of_base(job: Job) -> Iterator[None]:
    """Errors raised within name the fields of the job's `base`, if it has one, as that job has them."""
    try:
        yield
    except LehrError as error:
        inner = _only_of_base(job)
        if not inner:
            raise
        if isinstance(error, JobError) and error.field.split(".")[0] in inner:
            told = job.error(f"base.{error.field}", with_base(error.what, inner))
            error.where, error.field, error.what = told.where or error.where, told.field, told.what
            error.args = told.args if told.where else (": ".join(filter(None, (error.where, told.field, told.what))),)
        else:
            error.args = (with_base(str(error.args[0]), inner), *error.args[1:]) if error.args else ()
        raise


def with_base(sentence: str, inner: frozenset[str]) -> str:
    """The sentence with `base.` before each assignment to one of the fields `inner`."""
    names = "|".join(sorted(inner))
    return re.sub(rf"(?<![\w./-])((?:{names})(?:\.\w+)*=)", r"base.\1", sentence)


def _only_of_base(job: Job) -> frozenset[str]:
    """The fields of a training that the job has only in its `base`; none for a job without one."""
    own = type(job).model_fields
    return frozenset(Training.model_fields) - frozenset(own) if "base" in own else frozenset()
