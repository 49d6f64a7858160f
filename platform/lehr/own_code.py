"""Around every call of code that a user brings (a loss, a metric, a transform): its errors say whose they are."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lehr.errors import LehrError

_FOLDERS = (str(Path(__file__).parent), *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")))
_LIBRARIES = tuple({os.path.join(folder, "") for folder in _FOLDERS})
_PACKAGES = ("/site-packages/", "/dist-packages/")  # an environment may use those of another one


class OwnCodeError(LehrError):
    """What a user's code raised, as one sentence: what, where in their file, with which values."""


@contextmanager
def calling(path: str, **values: object) -> Iterator[None]:
    """Around a call of a user's code: an error in it becomes one sentence.

    Errors of lehr itself, and those for memory that is full, are passed on as they are.

    Args:
        path: the import path that the job names, such as `my_losses:focal`.
        values: what it is called with, by name; tensors are told by type and shape.

    Raises:
        OwnCodeError: the code raised something.
    """
    try:
        yield
    except (LehrError, MemoryError):
        raise
    except Exception as error:
        if "out of memory" in str(error).lower():
            raise
        given = ", ".join(f"{name}: {shape(value)}" for name, value in values.items())
        raise OwnCodeError(
            f"{path} failed: {raised(error)}{place(error)}"
            + (f"; called with {given}" if given else "")
            + "; to step into it, put breakpoint() there and run with --debug"
        ) from error


def raised(error: BaseException) -> str:
    """The type and the last line of an error: `ValueError: too few rows`."""
    return "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]


def place(error: BaseException) -> str:
    """The last line of the user's own code that an error passed through, as ` at file:line (code)`; else empty."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _of_a_library(frame.filename)]
    return f" at {own[-1].filename}:{own[-1].lineno} ({own[-1].line})" if own else ""


def _of_a_library(file: str) -> bool:
    return file.startswith((*_LIBRARIES, "<")) or any(part in file for part in _PACKAGES)


def shape(value: object) -> str:
    """A value in a few words: `float32 [64, 10]` for a tensor or an array, else its type or short content."""
    size, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if size is not None and dtype is not None:
        return f"{str(dtype).removeprefix('torch.')} [{', '.join(map(str, size))}]"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} of {', '.join(map(shape, value[:3]))}{', …' if len(value) > 3 else ''}"
    return repr(value)[:60] if isinstance(value, str | int | float | None) else type(value).__name__
