"""What went wrong in a worker: one sentence for the screen, and the full trace for the log."""

from __future__ import annotations

import traceback
from collections.abc import Mapping

from lehr.errors import LehrError
from lehr.own_code import place, raised
from lehr.runs import Failure

_LESS_MEMORY = (
    "try a smaller train.batch_size (train.gradient_accumulation keeps the effective one), or fewer workers per machine"
)
_MEMORY: tuple[tuple[tuple[str, ...], str], ...] = (
    (("cuda out of memory", "cuda error: out of memory"), f"the GPU's memory is full; {_LESS_MEMORY}"),
    (("objectstorefull", "object store is full", "plasma"), "Ray's object store is full; try data.cache=stream"),
    (
        ("outofmemory", "running low on memory", "memoryerror", "can't allocate memory", "unable to allocate"),
        f"the machine's memory is full; {_LESS_MEMORY}, or data.cache=stream",
    ),
)
"""Signs of full memory as torch, numpy and Ray word them, and the settings to change; the first match counts."""


def is_lost_peer(error: BaseException) -> bool:
    """Whether the error only says that another worker is gone: then this one is not at fault, and may be restarted."""
    text = str(error).lower()
    signs = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "process group", "store->get")
    return isinstance(error, (RuntimeError, ConnectionError)) and any(sign in text for sign in signs)


def describe_lost_workers(errors: Mapping[int, BaseException]) -> str:
    """Why a group of workers ended, in one sentence: the error of the worker that was lost, not of its peers.

    Args:
        errors: by rank.
    """
    rank, error = next(((rank, error) for rank, error in errors.items() if not is_lost_peer(error)), (None, None))
    if error is None:
        return "the workers lost their connection to each other"
    text = f"{type(error).__name__}: {error}"
    if full := full_memory(text):
        return f"worker {rank} was lost: {full}"
    if "hanging" in text:
        return f"worker {rank} did not answer its health check in time and was killed"
    if any(sign in text.lower() for sign in ("node died", "node was", "node has", "dead node")):
        return f"worker {rank} was lost with its machine"
    if "died" in text or "ActorUnavailable" in text:
        return f"worker {rank} exited without an error message (it was killed, or it crashed)"
    return f"worker {rank} failed: {last_line(error)}"


def full_memory(text: str) -> str:
    """For an error text about full memory: a sentence with the settings to change. Else empty."""
    found = (sentence for signs, sentence in _MEMORY if any(sign in text.lower() for sign in signs))
    return next(found, "")


def last_line(error: BaseException) -> str:
    """The last line of an error's message, shortened; its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip()[:300] if lines else type(error).__name__


def describe(error: BaseException) -> Failure:
    """An error as a failure. For one in the user's own code, the sentence names the last frame of that code."""
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, LehrError):
        return Failure(str(error), trace, error.exit_code)
    what, where = raised(error), place(error)
    full = full_memory(f"{type(error).__name__}: {error}")
    return Failure(f"{full} ({what}{where})" if full else f"{what}{where}", trace, exit_code=1)
