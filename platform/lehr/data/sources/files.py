"""A folder of images without labels, on a disk or an object store, for prediction; in order of their names."""

from __future__ import annotations

import pyarrow.fs

from lehr.data.sources.base import ErrorFactory, Part, Source, file_system
from lehr.data.sources.images import ENDINGS, FILES_PER_PART, FilesPart
from lehr.job import DataSection

UNKNOWN = -1  # the label of every row


def files(section: DataSection, refuse: ErrorFactory) -> Source:
    """All images in the folder and the folders in it; the source has no classes."""
    assert section.path is not None, "the job file's own checks ask for data.path"
    where = section.path
    try:
        names = images_in(where)
    except (OSError, ValueError) as error:
        raise refuse("data.path", f"cannot be read: {str(error).splitlines()[0]}") from error
    if not names:
        raise refuse("data.path", f'"{where}" holds no images; allowed: files ending in {", ".join(ENDINGS)}')
    parts: list[Part] = []
    for first in range(0, len(names), FILES_PER_PART):
        some = tuple(names[first : first + FILES_PER_PART])
        parts.append(FilesPart(where, some, (UNKNOWN,) * len(some)))
    return Source(where, tuple(parts), ())


def images_in(where: str) -> list[str]:
    """The sorted names of the images in a folder and the folders in it, hidden ones left out.

    Raises:
        OSError, ValueError: it is not there, or cannot be listed.
    """
    filesystem, path = file_system(where)
    entries = filesystem.get_file_info(pyarrow.fs.FileSelector(path, recursive=True))
    names = [entry.path[len(path) :].lstrip("/") for entry in entries if entry.type == pyarrow.fs.FileType.File]
    visible = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    return sorted(name for name in visible if name.lower().endswith(ENDINGS))
