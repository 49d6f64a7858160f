"""What went wrong in a worker, as one sentence for the screen; the full trace goes to the log."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lehr.errors import LehrError

_NOT_THEIRS = (str(Path(__file__).parents[1]), "site-packages", "lib/python")
_LESS_MEMORY = "try a smaller train.batch_size (train.accumulate keeps the effective one), or fewer workers per machine"
_MEMORY: tuple[tuple[tuple[str, ...], str], ...] = (
    (("cuda out of memory", "cuda error: out of memory"), f"the GPU's memory is full; {_LESS_MEMORY}"),
    (("objectstorefull", "object store is full", "plasma"), "Ray's object store is full; try data.cache=stream"),
    (
        ("outofmemory", "running low on memory", "memoryerror", "can't allocate memory", "unable to allocate"),
        f"the machine's memory is full; {_LESS_MEMORY}, or data.cache=stream",
    ),
)
"""Signs of full memory as torch, numpy and Ray word them, and which settings to change; the first that fits counts."""


def lost_peer(error: BaseException) -> bool:
    """Whether the error only says that another worker is gone: not this worker's fault, and worth another attempt."""
    text = str(error).lower()
    signs = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "process group", "store->get")
    return isinstance(error, (RuntimeError, ConnectionError)) and any(sign in text for sign in signs)


def lost(errors: Mapping[int, BaseException]) -> str:
    """Why a group of workers ended, by rank, in one sentence: of those who were lost, not of those who missed them."""
    rank, error = next(((rank, error) for rank, error in errors.items() if not lost_peer(error)), (None, None))
    if error is None:
        return "the workers lost each other"
    text = f"{type(error).__name__}: {error}"
    if full := full_memory(text):
        return f"worker {rank} was lost: {full}"
    if "hanging" in text:
        return f"worker {rank} did not answer its health check in time, and was ended"
    if "node" in text.lower() and any(
        sign in text.lower() for sign in ("node died", "node was", "node has", "dead node")
    ):
        return f"worker {rank} was lost with its machine"
    if "died" in text or "ActorUnavailable" in text:
        return f"worker {rank} died without a word (killed, or crashed)"
    return f"worker {rank} failed: {last_line(error)}"


def full_memory(text: str) -> str:
    """The sentence for an error that says that some memory is full, with the settings to change; else empty."""
    found = (sentence for signs, sentence in _MEMORY if any(sign in text.lower() for sign in signs))
    return next(found, "")


def last_line(error: BaseException) -> str:
    """The last line of an error's message, shortened; its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip()[:300] if lines else type(error).__name__


def describe(error: BaseException) -> dict[str, Any]:
    """`sentence` for the screen, `trace` for the log, `exit_code` for the command line.

    For an error in the user's own code the sentence names the last frame that is theirs.
    """
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, LehrError):
        return {"sentence": str(error), "trace": trace, "exit_code": error.exit_code}
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not any(part in frame.filename for part in _NOT_THEIRS)]
    where = f" at {theirs[-1].filename}:{theirs[-1].lineno} ({theirs[-1].line})" if theirs else ""
    what = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    full = full_memory(f"{type(error).__name__}: {error}")
    return {"sentence": f"{full} ({what}{where})" if full else f"{what}{where}", "trace": trace, "exit_code": 1}
