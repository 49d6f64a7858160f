"""A folder of images without labels, on a disk or an object store, for prediction. Rows are sorted by file name."""

from __future__ import annotations

from lehr.data.sources.base import NO_LABEL, ErrorFactory, Part, Source
from lehr.data.sources.images import ENDINGS, FILES_PER_PART, FilesPart, list_images
from lehr.job import DataSection


def open_source(section: DataSection, job_error: ErrorFactory) -> Source:
    """All images in the folder and its subfolders. The source has no classes."""
    assert section.path is not None, "DataSection requires a path for this source"
    root = section.path
    listing = list_images(root, job_error)
    if not listing.files:
        told = "".join(f"; {note}" for note in listing.left_out)
        allowed = f"allowed: files ending in {', '.join(ENDINGS)}"
        raise job_error("data.path", f'"{root}" contains no images; {allowed}{told}')
    parts: list[Part] = []
    for first in range(0, len(listing.files), FILES_PER_PART):
        files = tuple(listing.files[first : first + FILES_PER_PART])
        parts.append(FilesPart(root, files, (NO_LABEL,) * len(files)))
    return Source(root, tuple(parts), (), notes=listing.left_out, form="image files")
