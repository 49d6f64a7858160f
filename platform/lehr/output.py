"""Files that a command leaves for its user: never over others unasked, and whole or not at all.

Pages and pictures say in their first bytes that lehr made them; the next command may replace those.
"""

from __future__ import annotations

import os
import secrets
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lehr.errors import LehrError, StorageError

MARKS = (b'name="generator" content="lehr"', b"tEXtSoftware\0lehr")
"""What a page and a picture have near their start that lehr made."""
_PNG, _HEADER = b"\x89PNG\r\n\x1a\n", 33
"""How a PNG file starts, and where its first chunk ends, the header."""


def marked(png: bytes) -> bytes:
    """A PNG file that says it is lehr's; other bytes as they are."""
    if not png.startswith(_PNG):
        return png
    chunk = MARKS[1]
    whole_chunk = (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    return png[:_HEADER] + whole_chunk + png[_HEADER:]


def is_ours(path: Path) -> bool:
    """Whether a file is a page or a picture that lehr made, as far as its start says."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError:
        return False
    return any(mark in start for mark in MARKS)


def write_unless_theirs(path: Path, data: bytes | str, *, force: bool) -> str:
    """Writes a file, unless one of the user's own has its name.

    Returns:
        Why it was not written, and what to type instead; empty where it was.
    """
    try:
        refuse_existing(path, force=force)
    except LehrError as error:
        return f"Not written: {error}"
    write_whole(path, data)
    return ""


def refuse_existing(*paths: Path, force: bool) -> None:
    """Raises LehrError where one of the files exists already, unless lehr made it or `force` says to overwrite it."""
    there = [path for path in paths if os.path.lexists(path) and not is_ours(path)]
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
