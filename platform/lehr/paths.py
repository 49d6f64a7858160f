"""Where the paths of a job are on this machine (on a cluster, its folder is a copy), and what lehr keeps of a user."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from lehr.errors import StorageError

STATE = "LEHR_STATE"
"""Environment variable: the folder for what lehr keeps of a user on a machine; by default ~/.lehr."""
ROOT = "LEHR_ROOT"
"""Environment variable of a submitted job: the path that the packaged folder had on the machine it came from."""

PACKED = "lehr-job"
"""The folder of a package that holds what was sent. Ray puts the package before everything that is installed, and
nothing in it can be imported by this name."""

_WORKING = ""
with suppress(OSError):  # Ray starts every process of a job in its copy of the packaged folder
    _WORKING = os.getcwd()


def packaged_path(path: str) -> str:
    """The path itself, or that of the packaged copy.

    A job keeps the paths that it was submitted with, so that it is the same job wherever it runs; only the code that
    opens a file asks where the file is.
    """
    root = os.environ.get(ROOT)
    if root and (path == root or path.startswith(root.rstrip("/") + "/")):
        copy = os.path.normpath(os.path.join(_WORKING, PACKED, os.path.relpath(path, root)))
        if os.path.exists(copy):
            return copy
    return path


STORES = {name: name for name in ("s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss")} | {"s3a": "s3", "s3n": "s3"}
"""The schemes of addresses that files are read from and written to, and how each is spelt."""
WEB = ("http", "https", "ftp", "ftps", "sftp", "scp", "hf")


def misspelt_address(text: str) -> str:
    """What is wrong with an address of files, such as `s3:/bucket/x`, and the right spelling; empty for all else."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):(/*)(.*)", text, re.DOTALL)
    scheme = found[1].lower() if found else ""
    if found and scheme in WEB:
        what = f'"{text}" is an address of the web, from which files cannot be read one by one'
        return f"{what}; allowed: a folder that they are downloaded to, or s3://BUCKET/PATH, gs://BUCKET/PATH"
    if not found or scheme not in (*STORES, "file") or text.startswith("file://"):
        return ""
    right = f"{STORES[scheme]}://{found[3]}" if scheme in STORES else f"file:///{found[3]}"
    return "" if text == right else f'"{text}" is not an address of files; did you mean {right}?'


def packed_root() -> str:
    """In a process of a submitted job, the copy of the folder that was sent; else empty."""
    copy = os.path.join(_WORKING, PACKED)
    return copy if _WORKING and os.path.isdir(copy) else ""


def user_folder() -> Path:
    """What lehr keeps for this user on this machine: LEHR_STATE, else ~/.lehr."""
    return Path(os.environ.get(STATE) or "~/.lehr").expanduser()


def run_around(path: str | os.PathLike[str]) -> Path | None:
    """The run folder that a file or folder lies in, or is, if any. A run folder has a `job.yaml` with a format."""
    for folder in (Path(path), *Path(path).parents):
        try:
            if not (folder / "job.yaml").is_file():  # a FIFO would be waited for
                continue
            with (folder / "job.yaml").open("rb") as job:
                if re.search(rb"""(?m)(^|[{,])\s*["']?format["']?\s*:""", job.read(1_000_000)):
                    return folder
        except OSError:
            continue
    return None


def state_folder(name: str) -> Path:
    """A folder of this name for what lehr keeps of this user on this machine. Nobody else can write it.

    It is in LEHR_STATE, else in ~/.lehr; for a user without a home of his own, among the temporary files. Raises
    StorageError where that folder is somebody else's.
    """
    folder = user_folder() / name
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    folder = Path(tempfile.gettempdir()) / f"lehr-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    except OSError as error:
        raise StorageError(f"{folder}: cannot be created: {error.strerror}; set LEHR_STATE to a folder") from error
    if not mine:
        raise StorageError(f"{folder}: is not a folder that only this user can write; set LEHR_STATE to one")
    (folder / name).mkdir(mode=0o700, exist_ok=True)
    return folder / name


def default_storage() -> str:
    """Where the run folders are if nobody says it: what LEHR_STORAGE names, else ./runs."""
    return os.environ.get("LEHR_STORAGE") or "./runs"
