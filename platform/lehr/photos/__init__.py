"""A folder of photographs, and the job that fits it: from pretrained weights, as long as this machine allows."""

from lehr.photos.folder import Photographs, look_at
from lehr.photos.job import PhotoJob, is_changed, photo_job
from lehr.photos.typed import told_as_typed
from lehr.photos.written import as_yaml

__all__ = ["PhotoJob", "Photographs", "as_yaml", "is_changed", "look_at", "photo_job", "told_as_typed"]
