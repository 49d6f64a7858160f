"""`my_package.module:function`: the user's own function, which returns a Ray Dataset.

Rows have a column `image` (encoded files as bytes, or uint8 arrays [height, width] or [height, width, channels]) and a
column `label`: class names, or whole numbers from 0. The function is called with `data.path`, where the job gives one.
"""

from __future__ import annotations

import importlib

from lehr.data.sources.base import ErrorFactory, Source
from lehr.job import DataSection
from lehr.paths import packaged_path


def function(section: DataSection, refuse: ErrorFactory) -> Source:
    module, _, name = section.source.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name and module.startswith(error.name):
            raise refuse("data.source", f'there is no module "{module}" beside the job file or installed') from error
        raise
    except AttributeError:
        raise refuse("data.source", f'"{module}" has no function "{name}"') from None
    from lehr.data.ray_data import dataset_source  # Ray is imported only where such a source is used

    return dataset_source(found(packaged_path(section.path)) if section.path else found(), section.source, refuse)
