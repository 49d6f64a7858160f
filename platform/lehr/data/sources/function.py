"""`my_package.module:function`: the user's own function, which returns a data set of a library.

That is a Ray Dataset, whose rows have a column `image` (encoded files as bytes, or uint8 arrays [height, width] or
[height, width, channels]) and a column `label` (class names, or whole numbers from 0); or what `returned.py` says. The
function is called with `data.path` if the job sets it.
"""

from __future__ import annotations

from dataclasses import replace

from lehr import trust
from lehr.data.sources.base import ErrorFactory, Source
from lehr.data.sources.returned import Called, returned_source
from lehr.data.sources.tabular import Wanted
from lehr.data.sources.told import told
from lehr.job import DataSection
from lehr.own_code import calling
from lehr.paths import packaged_path
from lehr.tasks.forms import LabelKind


def open_source(section: DataSection, job_error: ErrorFactory, kind: LabelKind) -> Source:
    """Calls the function and takes what it returned as parts. Needs Ray.

    Raises:
        Untrusted: nobody allowed this function with this path; see `lehr.trust`.
    """
    (call,) = trust.source(section.source, section.path)
    try:
        function = trust.load(call)
    except ValueError as error:
        raise job_error("data.source", str(error)) from error
    if not callable(function):
        raise job_error("data.source", f"{section.source} is not a function")

    from lehr.data.ray_data import (  # mistakes are reported before Ray is imported
        dataset_source,
        is_dataset,
        send_by_value,
    )

    send_by_value()
    arguments = (packaged_path(section.path),) if section.path else ()
    with calling(section.source):
        returned = function(*arguments)
    if is_dataset(returned):
        if kind != "class" or section.columns.label or section.columns.image:
            what = f"{section.source} returned a Ray Dataset, whose rows have one class each, in a column label"
            raise job_error("data.source", f"{what}; allowed for others: a list of dicts, or Parquet files")
        return _with_line(dataset_source(returned, section.source, job_error), section.source)
    called = Called(function, section.source, arguments)
    return _with_line(returned_source(returned, called, Wanted.of(section, kind), job_error), section.source)


def _with_line(source: Source, name: str) -> Source:
    return replace(source, notes=(told(source, name), *source.notes))
