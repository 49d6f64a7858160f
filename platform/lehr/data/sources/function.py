"""`my_package.module:function`: the user's own function, which returns a Ray Dataset.

Its rows have a column `image` (encoded files as bytes, or uint8 arrays [height, width] or [height, width, channels])
and a column `label`: class names, or whole numbers from 0. The function is called with `data.path` if the job sets it.
"""

from __future__ import annotations

import importlib

from lehr.data.sources.base import ErrorFactory, Source
from lehr.job import DataSection
from lehr.paths import packaged_path


def open_source(section: DataSection, job_error: ErrorFactory) -> Source:
    """Calls the function and takes the blocks of its dataset as parts. Needs Ray."""
    module_name, _, name = section.source.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            what = f'the module "{module_name}" is neither beside the job file nor installed'
            raise job_error("data.source", what) from error
        raise
    function = getattr(module, name, None)
    if not callable(function):
        raise job_error("data.source", f'"{module_name}" has no function "{name}"')
    dataset = function(packaged_path(section.path)) if section.path else function()

    from lehr.data.ray_data import dataset_source  # mistakes are reported before Ray is imported

    return dataset_source(dataset, section.source, job_error)
