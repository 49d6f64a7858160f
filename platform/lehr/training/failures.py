"""What went wrong in a worker, as one sentence for the screen; the full trace goes to the log."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

from lehr.errors import LehrError

_NOT_THEIRS = (str(Path(__file__).parents[1]), "site-packages", "lib/python")


def lost_peer(error: BaseException) -> bool:
    """Whether the error only says that another worker is gone: not this worker's fault, and worth another attempt."""
    text = str(error).lower()
    signs = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "process group")
    return isinstance(error, (RuntimeError, ConnectionError)) and any(sign in text for sign in signs)


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
    return {"sentence": f"{what}{where}", "trace": trace, "exit_code": 1}
