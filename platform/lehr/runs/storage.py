"""A folder on any file system that `pyarrow.fs` reaches: the disk, S3, GCS.

All of them make three promises. A write is atomic: a reader finds the old bytes or the new ones, never a part. A
missing file is `FileNotFoundError`. Every other failure is a `StorageError` of one sentence: at once on a disk (full,
forbidden), and after bounded retries on a remote store: for a few seconds if it never answered, since its address may
be wrong, and for up to `PATIENCE_SECONDS` if it did, since it will come back.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

from lehr.credentials import has_credentials
from lehr.errors import RunError, StorageError
from lehr.paths import misspelt_address
from lehr.runs.stores import Apart, Disk, Objects, Store

if TYPE_CHECKING:
    from pyarrow import NativeFile

FIRST_WAIT_SECONDS = 0.25  # doubles with every try, times a jitter of 0.5 to 1.5
LONGEST_WAIT_SECONDS = 5.0
PATIENCE_SECONDS = 120.0  # how long a remote store that has answered before may be gone
PATIENCE = "LEHR_STORAGE_PATIENCE"
"""Environment variable: that time for this process, whether or not the store has answered before."""
MOST_JSON_BYTES = 32 << 20  # of a JSON file; the largest, of the longest runs, have a few megabytes
# Causes that waiting does not cure, as stores name them in their messages.
HOPELESS = (
    "NO_SUCH_BUCKET",
    "ACCESS_DENIED",
    "INVALID_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
)

SEAL = "sha256"
"""The last field of a JSON file: a digest of the others."""

_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)


class Folder:
    """A folder, which need not exist yet: the first write creates it. Cheap to make, safe to pickle (by its URI).

    A name is one or more parts joined by `/`. No part is empty or starts with a dot, so a name cannot lead out of the
    folder or to a hidden temporary file. A wrong name raises `RunError`.
    """

    def __init__(self, uri: str, store: Store, path: str) -> None:
        self.uri = uri  # for a folder on disk, its absolute path
        self._store = store
        self._path = path

    @classmethod
    def at(cls, where: str | os.PathLike[str], *, known: bool = False, patience: float | None = None) -> Folder:
        """The folder at a plain path, a `file://` URI, or any URI of `pyarrow.fs` (`s3://bucket/path`).

        Credentials come from the environment (`AWS_ENDPOINT_URL` and the like). Raises `StorageError`.

        Args:
            known: another process has reached it before, so a remote store that does not answer will come back.
            patience: seconds for which an operation on a remote store that is away is tried again, beyond a few tries.
                By default LEHR_STORAGE_PATIENCE, which is set for jobs on a cluster, so that a long outage stalls a job
                and loses nothing; else two minutes, if the store has answered before.
        """
        text = os.fspath(where)
        if not text:
            raise StorageError("an empty string is not a folder; allowed: a path, file://, s3://, gs://")
        if problem := misspelt_address(text):
            raise StorageError(problem)
        if text.startswith("file://"):
            text = unquote(urlsplit(text).path)
        if "://" in text:
            folder = cls._remote(text.rstrip("/"), patience)
            folder._store.answered = known
            return folder
        path = os.path.abspath(os.path.expanduser(text))
        return cls(path, Disk(), path)

    @classmethod
    def _remote(cls, uri: str, patience: float | None) -> Folder:
        import pyarrow as pa
        from pyarrow.fs import FileSystem

        if has_credentials(uri):
            raise StorageError(
                f"{''.join(uri.split())}: credentials belong in the environment, not in the address of a folder"
            )
        try:
            try:
                # One PUT for a small object, not a multipart upload: a third of the requests, and a killed writer
                # leaves no orphaned upload behind.
                filesystem, path = FileSystem.from_uri(f"{uri}{'&' if '?' in uri else '?'}allow_delayed_open=true")
            except pa.ArrowInvalid:
                filesystem, path = FileSystem.from_uri(uri)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise StorageError(f"{uri}: no such storage: {_cause(error)}") from error
        if not path:
            raise StorageError(f"{uri}: has no bucket; allowed: {uri.split('://')[0]}://bucket/path")
        return cls(uri, Objects(_with_few_retries(filesystem), patience), path)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self._path.rstrip("/").rpartition("/")[2]

    @property
    def is_local(self) -> bool:
        """Whether it is a path on a disk."""
        return isinstance(self._store, Disk)

    @property
    def local_path(self) -> Path:
        """The folder's path on this machine's disk. Raises `RunError` for a remote folder."""
        if not self.is_local:
            raise RunError(f"{self.uri}: is not on a local disk")
        return Path(self._path)

    def child(self, *names: str) -> Folder:
        """The folder of that name inside this one, at any depth: `child("trials/0007")`, `child("trials", "0007")`."""
        name = "/".join(names)
        return self._folder(name, self._inside(name))

    def writing_to(self, out: Folder) -> Folder:
        """This folder for reading; what is written or deleted through it is written or deleted in `out` instead."""
        return Folder(self.uri, Apart(self._store, self._path, out._store, out._path), self._path)

    def scratch(self) -> Folder:
        """The hidden folder for Ray's files while a job runs. It is not part of the run: delete it afterwards."""
        return self._folder(".ray", f"{self._path}/.ray")

    def _folder(self, name: str, path: str) -> Folder:
        if self.is_local:
            return Folder(path, self._store, path)
        base, mark, query = self.uri.partition("?")
        return Folder(f"{base}/{quote(name, safe='/=,+@:')}{mark}{query}", self._store, path)

    def make(self) -> None:
        """Creates the folder, if there is none. On a disk its name and those above it survive a power cut."""
        self._do("create", None, self._store.make)

    def read(self, name: str, limit: int | None = None) -> bytes:
        """The bytes of a file, at most `limit`. Raises `FileNotFoundError` where there is none.

        Raises `StorageError` for what is larger, and on a disk for what is no regular file: a FIFO, a device.
        """
        return self._do("read", name, lambda path: self._store.read(path, limit))

    def write(self, name: str, data: bytes) -> None:
        """Writes or replaces a file, atomically; on disk also durably (fsync)."""
        self._do("write", name, lambda path: self._store.write(path, data))

    def create(self, name: str, data: bytes) -> bool:
        """Writes a file that must not exist yet. Returns False, and changes nothing, if it does.

        On disk exactly one of any number of racing writers gets True, and the content is complete once visible. An
        object store checks, puts and reads back: it tells writers of the same instant apart only by their data, so put
        something random into it where that matters.
        """
        return self._do("create", name, lambda path: self._store.create(path, data))

    def claim(self, name: str, data: bytes) -> bool:
        """Writes a file that must not exist yet, and tells at most one of any number of racing writers True.

        Put something random into `data`. On a disk it is `create`. S3 and GCS decide it by a conditional put, if the
        library `boto3` or `google-cloud-storage` is installed; otherwise, and on other stores, the writer waits for a
        second and looks whose data is there.
        """
        return self._do("create", name, lambda path: self._store.claim(path, data))

    def exists(self, name: str) -> bool:
        """Whether there is a file or a folder of this name."""
        return self._do("look up", name, self._store.exists)

    def files(self, sub: str = "") -> list[str]:
        """Sorted names of the files directly in this folder, or in its folder `sub` (relative to `sub`)."""
        return sorted(name for name, is_file in self._list(sub) if is_file)

    def folders(self) -> list[str]:
        """Sorted names of the folders directly in this one."""
        return sorted(name for name, is_file in self._list("") if not is_file)

    def delete(self, name: str) -> None:
        """Deletes a file, if there is one."""
        self._do("delete", name, self._store.delete)

    def delete_all(self) -> None:
        """Deletes this folder with everything in it, if there is one."""
        self._do("delete", None, self._store.delete_tree)

    def sweep(self) -> None:
        """Deletes the temporary files of killed writers, here and below. Call it only while nobody writes."""
        self._do("clear", None, self._store.sweep)

    def read_json(self, name: str) -> Any:
        """The value in a JSON file. Raises `RunError` for a file that is not JSON, or not as it was written."""
        data = self.read(name, MOST_JSON_BYTES)
        try:
            value = json.loads(data)
            changed = isinstance(value, dict) and (seal := value.pop(SEAL, None)) is not None and seal != _digest(value)
        except (ValueError, RecursionError) as error:
            raise RunError(f"{self.uri}/{name}: is damaged: not JSON ({error})") from error
        if changed:
            raise RunError(f"{self.uri}/{name}: is damaged: its checksum differs")
        return value

    def write_json(self, name: str, value: Any) -> None:
        """Writes or replaces a JSON file; a mapping is sealed. Raises `RunError` for a value that JSON cannot hold."""
        self.write(name, to_sealed_json(value) if isinstance(value, Mapping) else to_json(value))

    def open_input_file(self, name: str) -> NativeFile:
        """The file opened for reading, as Parquet readers want it. Raises `FileNotFoundError` where there is none."""
        return self._do("open", name, self._store.open)

    def __repr__(self) -> str:
        return f"Folder({self.uri!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Folder) and self.uri == other.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    def __reduce__(self) -> tuple[Any, ...]:
        return Folder.at, (self.uri,)

    def _list(self, sub: str) -> list[tuple[str, bool]]:
        found = self._do("list", sub or None, self._store.list)
        return [(name, is_file) for name, is_file in found if not name.startswith(".")]

    def _inside(self, name: str) -> str:
        for part in name.split("/"):
            if not part or part.startswith(".") or "\\" in part or not part.isprintable():
                raise RunError(
                    f'{name!r} cannot be a name in a run folder; allowed: parts joined by "/", none empty or starting '
                    "with a dot, without backslashes and control characters"
                )
        return f"{self._path}/{name}"

    def _patience(self) -> float:
        """Seconds for which a failing operation is tried again, beyond a few tries."""
        store = self._store
        if store.patience is not None:
            return store.patience
        if said := os.environ.get(PATIENCE):
            return float(said)
        return PATIENCE_SECONDS if store.answered else 0.0

    def _do(self, operation: str, name: str | None, action: Callable[[str], _T]) -> _T:
        path = self._path if name is None else self._inside(name)
        store, began = self._store, time.monotonic()
        for attempt in count(1):
            try:
                result = action(path)
                store.answered = True
                return result
            except OSError as error:
                if isinstance(error, FileNotFoundError) and operation in ("read", "open"):
                    store.answered = True
                    raise
                cause, waited = _cause(error), time.monotonic() - began
                enough = attempt >= store.tries and waited >= self._patience()
                enough |= error.errno == errno.EFBIG  # it will not shrink
                if enough or any(word in cause for word in HOPELESS):
                    store.answered = False  # gone for good: later operations need not wait as long
                    after = f" (tried {attempt} times in {waited:.0f} s)" if attempt > 1 else ""
                    where = self.uri if name is None else f"{self.uri}/{name}"
                    raise StorageError(f"{where}: cannot {operation}: {cause}{after}") from error
                if attempt == store.tries:
                    _LOG.warning("%s does not answer (%s); trying again for a while", self.uri, cause)
                wait = min(FIRST_WAIT_SECONDS * 2 ** min(attempt - 1, 10), LONGEST_WAIT_SECONDS)
                time.sleep(wait * random.uniform(0.5, 1.5))
        raise AssertionError("unreachable")


def _with_few_retries(filesystem: Any) -> Any:
    """An S3 file system that tries a failed request twice, not 31 times: `Folder` tries again, and counts seconds."""
    if filesystem.type_name != "s3":
        return filesystem
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    _, (options,) = filesystem.__reduce__()
    return S3FileSystem(**options, retry_strategy=AwsStandardS3RetryStrategy(max_attempts=2))


def to_json(value: Any, indent: int | None = 1) -> bytes:
    """JSON as Python writes it: floats to the last digit, and the tokens `NaN` and `Infinity`, which JSON lacks.

    Scalars of NumPy and PyTorch become plain numbers. Raises `RunError` for a value that JSON cannot hold.
    """

    def plain(item: Any) -> Any:
        if hasattr(item, "item"):
            return item.item()
        if isinstance(item, os.PathLike):
            return os.fspath(item)
        raise TypeError(f"a {type(item).__name__} has no JSON form")

    try:
        return (json.dumps(value, default=plain, ensure_ascii=False, indent=indent) + "\n").encode()
    except (TypeError, ValueError, RuntimeError) as error:
        raise RunError(f"cannot write this as JSON: {error}") from error


def to_sealed_json(value: Mapping[str, Any]) -> bytes:
    """JSON as `to_json` makes it, with a last field that holds a digest of the others: `read_json` checks it."""
    content = json.loads(to_json(value))
    return to_json({**content, SEAL: _digest(content)})


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _cause(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{os.strerror(error.errno)}; free some, then run the job again: it resumes from what was saved"
    text = (error.strerror if isinstance(error, OSError) and error.strerror else str(error)).strip()
    return text.splitlines()[0] if text else type(error).__name__
