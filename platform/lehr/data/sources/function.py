"""`my_package.module:function`: the user's own function, which returns a Ray Dataset.

Its rows have a column `image` (encoded files as bytes, or uint8 arrays [height, width] or [height, width, channels])
and a column `label`: class names, or whole numbers from 0. The function is called with `data.path` if the job sets it.
"""

from __future__ import annotations

from lehr import trust
from lehr.data.sources.base import ErrorFactory, Source
from lehr.job import DataSection
from lehr.paths import packaged_path


def open_source(section: DataSection, job_error: ErrorFactory) -> Source:
    """Calls the function and takes the blocks of its dataset as parts. Needs Ray.

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

    from lehr.data.ray_data import dataset_source, send_by_value  # mistakes are reported before Ray is imported

    send_by_value()
    dataset = function(packaged_path(section.path)) if section.path else function()
    return dataset_source(dataset, section.source, job_error)
