"""Files that a command leaves for its user: never over others unasked, and whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lehr.errors import LehrError, StorageError


def refuse_existing(*paths: Path, force: bool) -> None:
    """Raises LehrError where one of the files exists already, unless `force` says to overwrite it."""
    there = [path for path in paths if os.path.lexists(path)]
    if there and not force:
        names = " and ".join(map(str, there))
        one = len(there) == 1
        raise LehrError(
            f"{names} exist{'s' if one else ''} already; name another {'file' if one else 'place'}, or overwrite "
            f"{'it' if one else 'them'} with --force"
        )
    for path in there:
        if not path.is_file():  # a folder, a device
            raise LehrError(f"{path} is not a file that can be replaced; name another place")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which takes its place once the block ends: readers never see half of it.

    The name keeps the ending of `path`, the folder is created, and the file's mode follows the umask. If the block
    raises, nothing is left.

    Raises:
        StorageError: the file cannot be written: no permission, no space.
    """
    part = path.with_name(f".{path.stem[:80]}.{secrets.token_hex(6)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            part.unlink()


def write_whole(path: Path, data: bytes | str) -> None:
    """Writes or replaces a file, as `whole` does; text as UTF-8."""
    with whole(path) as part:
        part.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8"))
