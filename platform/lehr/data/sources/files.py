"""A folder of images without labels, on a disk or an object store, for prediction. Rows are sorted by file name."""

from __future__ import annotations

from pyarrow.fs import FileType

from lehr.data.sources.base import ErrorFactory, Part, Source, file_system, list_entries
from lehr.data.sources.images import ENDINGS, FILES_PER_PART, FilesPart
from lehr.job import DataSection

UNKNOWN = -1  # the label of every row


def open_source(section: DataSection, job_error: ErrorFactory) -> Source:
    """All images in the folder and its subfolders. The source has no classes."""
    assert section.path is not None, "DataSection requires a path for this source"
    root = section.path
    try:
        names = images_in(root)
    except (OSError, ValueError) as error:
        raise job_error("data.path", f"cannot be read: {str(error).splitlines()[0]}") from error
    if not names:
        raise job_error("data.path", f'"{root}" contains no images; allowed: files ending in {", ".join(ENDINGS)}')
    parts: list[Part] = []
    for first in range(0, len(names), FILES_PER_PART):
        files = tuple(names[first : first + FILES_PER_PART])
        parts.append(FilesPart(root, files, (UNKNOWN,) * len(files)))
    return Source(root, tuple(parts), ())


def images_in(folder: str) -> list[str]:
    """The sorted names of the images in a folder and its subfolders, hidden ones left out.

    Raises:
        OSError, ValueError: the folder does not exist or cannot be listed.
    """
    filesystem, path = file_system(folder)
    names = [name for name, kind in list_entries(filesystem, path) if kind == FileType.File]
    return sorted(name for name in names if name.lower().endswith(ENDINGS))
