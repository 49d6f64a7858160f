"""How a disk and an object store each keep the promises of `Folder`. Errors are `OSError`."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lehr.runs.conditional import conditional_put

if TYPE_CHECKING:
    from pyarrow import NativeFile
    from pyarrow.fs import FileSystem

REMOTE_TRIES = 5
SETTLE_SECONDS = 1.0  # how long a writer waits before it looks who won, on a store without compare-and-set
_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{12}\.tmp")


class Store(Protocol):
    """What `Folder` asks of a file system. A missing file is `FileNotFoundError`.

    Attributes:
        tries: how often a failing operation is tried at least.
        patience: seconds for which it is tried again beyond `tries`; None: `Folder` decides.
        answered: whether the store ever answered, in this process or another.
    """

    tries: int
    patience: float | None
    answered: bool

    def make(self, path: str) -> None: ...
    def read(self, path: str, limit: int | None = None) -> bytes: ...
    def write(self, path: str, data: bytes) -> None: ...
    def create(self, path: str, data: bytes) -> bool: ...
    def claim(self, path: str, data: bytes) -> bool: ...
    def exists(self, path: str) -> bool: ...
    def list(self, path: str) -> Iterable[tuple[str, bool]]: ...
    def delete(self, path: str) -> None: ...
    def delete_tree(self, path: str) -> None: ...
    def sweep(self, path: str) -> None: ...
    def open(self, path: str) -> NativeFile: ...


class Disk:
    """A disk: a write is a temporary file that is renamed; it, its name and the names of new folders are synced."""

    tries = 1
    patience: float | None = 0.0
    answered = False

    def make(self, path: str) -> None:
        _refuse_links(path)
        os.makedirs(path, exist_ok=True)
        while path != (above := os.path.dirname(path)) and os.access(above, os.W_OK):
            self._sync(above)
            path = above

    def read(self, path: str, limit: int | None = None) -> bytes:
        # A FIFO would be waited for and a device may have no end. O_NONBLOCK: opening one does not wait either.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            if limit is not None and found.st_size > limit:
                raise _too_large(limit)
            return _at_most(limit, file.read)

    def write(self, path: str, data: bytes) -> None:
        _refuse_links(path)
        temporary = self._temporary(path, data)
        try:
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        self._sync(os.path.dirname(path))

    def create(self, path: str, data: bytes) -> bool:
        _refuse_links(path)
        temporary = self._temporary(path, data)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise
            # No hard links here (some network and FUSE mounts): still exclusive, but visible before it is complete.
            try:
                with open(path, "xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            except FileExistsError:
                return False
        finally:
            os.unlink(temporary)
        self._sync(os.path.dirname(path))
        return True

    def claim(self, path: str, data: bytes) -> bool:
        return self.create(path, data)

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def list(self, path: str) -> Iterable[tuple[str, bool]]:
        try:
            with os.scandir(path) as entries:
                return [(entry.name, _is_file(entry)) for entry in entries]
        except FileNotFoundError:
            return []

    def delete(self, path: str) -> None:
        _refuse_links(path)
        Path(path).unlink(missing_ok=True)

    def delete_tree(self, path: str) -> None:
        _refuse_links(path)
        if os.path.islink(path):  # what it leads to belongs to somebody else
            os.unlink(path)
            return
        # Renamed first, so that the name is free at once and what others still write does not land in it.
        aside = os.path.join(os.path.dirname(path), f".{os.path.basename(path)[:100]}.{secrets.token_hex(6)}.tmp")
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return
        except OSError:  # the folder that holds it is not ours to change, or it is a mount
            aside = path
        try:
            shutil.rmtree(aside)
        except FileNotFoundError:
            if os.path.lexists(aside):  # another process removed a file meanwhile
                shutil.rmtree(aside, ignore_errors=True)

    def sweep(self, path: str) -> None:
        for folder, folders, names in os.walk(path):
            for name in filter(_TEMPORARY.fullmatch, names):
                Path(folder, name).unlink(missing_ok=True)
            for name in filter(_TEMPORARY.fullmatch, folders):  # whoever deleted it was killed
                shutil.rmtree(os.path.join(folder, name), ignore_errors=True)

    def open(self, path: str) -> NativeFile:
        from pyarrow.fs import LocalFileSystem

        return LocalFileSystem().open_input_file(path)

    def _temporary(self, path: str, data: bytes) -> str:
        folder, name = os.path.split(path)
        self._make(folder)
        temporary = os.path.join(folder, f".{name[:100]}.{secrets.token_hex(6)}.tmp")
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return temporary

    def _make(self, folder: str) -> None:
        """Makes a folder and those above it, and makes each new name survive a power cut."""
        if os.path.isdir(folder):
            return
        above = os.path.dirname(folder)
        if above != folder:
            self._make(above)
        os.makedirs(folder, exist_ok=True)
        self._sync(above)

    def _sync(self, folder: str) -> None:
        """Makes the names in a folder survive a power cut, where the file system can."""
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except OSError:
            return
        try:
            os.fsync(descriptor)
        except OSError as error:
            # Some file systems cannot sync a folder. A disk that fails is another matter.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF):
                raise
        finally:
            os.close(descriptor)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads in a circle
        return False


def _refuse_links(path: str) -> None:
    """Raises OSError where `path` leads through a link inside a run folder, to files that are none of the run's.

    The run folder itself, and the storage that holds it, may be links.
    """
    parent = os.path.dirname(path)
    while parent != os.path.dirname(parent):
        above = os.path.dirname(parent)
        if os.path.islink(parent) and _in_run(above):
            raise OSError(errno.ELOOP, f"{parent} is a link, and nothing in a run is written or deleted through a link")
        parent = above


def _in_run(folder: str) -> bool:
    """Whether a folder is a run, or inside one. (A project may have a job.yaml too, but no environment.json.)"""
    while not all(os.path.lexists(os.path.join(folder, name)) for name in ("job.yaml", "environment.json")):
        folder, below = os.path.dirname(folder), folder
        if folder == below:
            return False
    return True


def _at_most(limit: int | None, read: Callable[[int], bytes]) -> bytes:
    """What `read(size)` gives, to the end. Raises OSError for more than `limit` bytes."""
    data = read(-1 if limit is None else limit + 1)
    if limit is not None and len(data) > limit:
        raise _too_large(limit)
    return data


def _too_large(limit: int) -> OSError:
    return OSError(errno.EFBIG, f"it is larger than the {limit >> 10:,} kB that are read of such a file")


class Apart:
    """Reads from the folder `root` of one store; writes and deletes in the folder `place` of another.

    So what a reader makes of somebody's run leaves the run as it is.
    """

    tries = 1
    patience: float | None = None
    answered = True

    def __init__(self, store: Store, root: str, written: Store, place: str) -> None:
        self._store, self._root, self._written, self._place = store, root, written, place

    def _moved(self, path: str) -> str:
        return self._place + path.removeprefix(self._root)

    def make(self, path: str) -> None:
        self._written.make(self._moved(path))

    def read(self, path: str, limit: int | None = None) -> bytes:
        return self._store.read(path, limit)

    def write(self, path: str, data: bytes) -> None:
        self._written.write(self._moved(path), data)

    def create(self, path: str, data: bytes) -> bool:
        return self._written.create(self._moved(path), data)

    def claim(self, path: str, data: bytes) -> bool:
        return self._written.claim(self._moved(path), data)

    def exists(self, path: str) -> bool:
        return self._store.exists(path)

    def list(self, path: str) -> Iterable[tuple[str, bool]]:
        return self._store.list(path)

    def delete(self, path: str) -> None:
        self._written.delete(self._moved(path))

    def delete_tree(self, path: str) -> None:
        self._written.delete_tree(self._moved(path))

    def sweep(self, path: str) -> None:
        self._written.sweep(self._moved(path))

    def open(self, path: str) -> NativeFile:
        return self._store.open(path)


class Objects:
    """An object store: a put is atomic, folders exist only as prefixes."""

    tries = REMOTE_TRIES
    answered = False

    def __init__(self, filesystem: FileSystem, patience: float | None = None) -> None:
        self._filesystem = filesystem
        self.patience = patience

    def make(self, path: str) -> None:
        """Does nothing: folders exist only as prefixes."""

    def read(self, path: str, limit: int | None = None) -> bytes:
        with self._filesystem.open_input_stream(path) as stream:
            return _at_most(limit, lambda size: stream.read(None if size < 0 else size))

    def write(self, path: str, data: bytes) -> None:
        with self._filesystem.open_output_stream(path) as stream:
            stream.write(data)  # the object appears when the stream closes

    def create(self, path: str, data: bytes) -> bool:
        if self.exists(path):
            # An earlier try of ours may have succeeded although its answer was lost.
            return self.read(path) == data
        self.write(path, data)
        return self.read(path) == data

    def claim(self, path: str, data: bytes) -> bool:
        put = conditional_put(self._filesystem)
        wrote = put(path, data) if put else None
        if wrote is not None:
            # An earlier try of ours may have succeeded although its answer was lost.
            return wrote or self.read(path) == data
        if self.exists(path):
            return self.read(path) == data
        self.write(path, data)
        time.sleep(SETTLE_SECONDS)  # of several writers the last one wins, and the others see its data after a while
        return self.read(path) == data

    def exists(self, path: str) -> bool:
        from pyarrow.fs import FileType

        found: bool = self._filesystem.get_file_info(path).type != FileType.NotFound
        return found

    def list(self, path: str) -> Iterable[tuple[str, bool]]:
        from pyarrow.fs import FileSelector

        found = self._filesystem.get_file_info(FileSelector(path, allow_not_found=True))
        return [(info.base_name, info.is_file) for info in found]

    def delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._filesystem.delete_file(path)

    def delete_tree(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._filesystem.delete_dir(path)

    def sweep(self, path: str) -> None:
        """Does nothing: a put leaves no temporary file."""

    def open(self, path: str) -> NativeFile:
        return self._filesystem.open_input_file(path)
