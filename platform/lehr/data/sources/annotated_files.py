"""The files below a folder, among which those of annotations name images."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import yaml
from pyarrow.fs import FileSystem, FileType

from lehr.data.annotations import WrongAnnotations
from lehr.data.sources.base import ErrorFactory, Source, file_system, join_path, read_with_retries
from lehr.data.sources.images import ENDINGS
from lehr.data.sources.listing import kind_of, list_folder, shown
from lehr.data.sources.splits import split_of
from lehr.job import DataSection


@dataclass(frozen=True)
class FilesBelow:
    """The files below a folder.

    Attributes:
        root: the folder, as messages and parts name it. path: the same in its file system.
        names: of all files, relative to it.
    """

    root: str
    path: str
    system: FileSystem
    names: tuple[str, ...]

    @classmethod
    def below(cls, root: str) -> FilesBelow:
        system, path = file_system(root)
        return cls(root, path, system, tuple(sorted(list_folder(system, path).files)))

    def read(self, name: str) -> bytes:
        def read() -> bytes:
            with self.system.open_input_stream(join_path(self.path, name)) as file:
                return bytes(file.read())

        return read_with_retries(join_path(self.root, name), read)

    def ending(self, *endings: str) -> list[str]:
        return [name for name in self.names if kind_of(name) in endings]

    @cached_property
    def images(self) -> Mapping[str, list[str]]:
        """By its name without folders, where an image is."""
        found = defaultdict(list)
        for name in self.ending(*ENDINGS):
            found[posixpath.basename(name)].append(name)
        return found

    @cached_property
    def stems(self) -> Mapping[str, list[str]]:
        """The same without the ending."""
        found = defaultdict(list)
        for name in self.ending(*ENDINGS):
            found[posixpath.splitext(posixpath.basename(name))[0]].append(name)
        return found

    def image(self, said: str, near: str) -> str:
        """The image that an annotation in the file `near` names; what it says where there is none.

        Raises WrongAnnotations where several have that name.
        """
        wanted = posixpath.normpath(said.replace("\\", "/")).lstrip("/")
        found = self.images.get(posixpath.basename(wanted), [])
        whole = [name for name in found if f"/{name}".endswith(f"/{wanted}")] or found
        for rule in (partial(_beside, near=near), partial(_same_split, near=near)):
            whole = list(filter(rule, whole)) or whole
        if len(whole) > 1:
            where = shown(posixpath.dirname(name) or "." for name in whole)
            raise WrongAnnotations(f"there are several images {wanted}, in {where}; allowed: one of each name")
        return whole[0] if whole else wanted


def _beside(name: str, near: str) -> bool:
    return posixpath.dirname(name) == posixpath.dirname(near)


def _same_split(name: str, near: str) -> bool:
    return split_named(posixpath.dirname(name)) == split_named(near)


def split_named(name: str) -> str | None:
    """The split that a path names, its last word first: `validation` of `annotations/instances_val2017.json`."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((split for word in reversed(words) if (split := split_of(word))), None)


Found = tuple[dict[str, Source], Sequence[str]]
"""The rows of each split, and what the user should know."""


def open_annotated(
    section: DataSection,
    job_error: ErrorFactory,
    of_file: Callable[[str], Found],
    of_folder: Callable[[FilesBelow], Found],
    what: str,
) -> Source:
    """The images of a file or folder of annotations; where nothing is called a split, all are to train on.

    Args:
        what: annotations are, in a sentence: `annotations`.
    """
    assert section.path is not None, "DataSection requires a path for this source"
    path = section.path.rstrip("/") or "/"
    try:
        system, inner = file_system(path)
        there = system.get_file_info(inner).type
        if there == FileType.NotFound:
            raise job_error("data.path", f'"{path}" does not exist')
        sources, notes = of_file(path) if there == FileType.File else of_folder(FilesBelow.below(path))
    except WrongAnnotations as error:
        raise job_error("data.path", f'"{path}": {error}') from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise job_error("data.path", f'"{path}" cannot be read: {str(error).splitlines()[0]}') from error
    if "train" not in sources:
        if len(sources) > 1:
            has = f"it has {what} for {', '.join(sources)}, and none to train on"
            raise job_error("data.path", f'"{path}": {has}; allowed: a file or folder with train in its name')
        sources = {"train": next(iter(sources.values()))}
    train = sources.pop("train")
    return replace(train, name=path, other_splits=sources, notes=(*notes, *train.notes))


def split_path(path: str) -> tuple[str, str]:
    """The folder of a file, and its name in it."""
    return path.rpartition("/")[0] or ("/" if path.startswith("/") else "."), path.rpartition("/")[2]


def beside_images(files: FilesBelow, name: str, named: Sequence[str]) -> tuple[FilesBelow, str]:
    """The files among which the images of a file of annotations are: beside it, else one folder up; and its name there.

    Args:
        files: those of its folder.
        named: the images that it names.
    """
    folder = files.root
    if any(posixpath.basename(each) in files.images for each in named):
        return files, name
    above = folder.rpartition("/")[0] or ("/" if folder.startswith("/") else "..")
    return FilesBelow.below(above), f"{folder.rpartition('/')[2]}/{name}"
