"""`notify`: tells an address how a job ended, with one POST of a small JSON.

It is sent once a job that had begun has finished, failed or stopped. A killed process, and one that a second Ctrl-C
ends at once, sends nothing. Nothing that happens here changes how the job ends: what fails is told in one line.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from lehr import trust
from lehr.credentials import mask
from lehr.driver.running import Interrupted, Running
from lehr.errors import LehrError, RunHeld
from lehr.formatting import format_metric, format_seconds
from lehr.job import Job
from lehr.job.notify import ENVIRONMENT, host_of, problem_of
from lehr.printing import one_line

SECONDS = 5.0
"""How long an address has to answer, looking up its name included."""
LONGEST = 500  # characters of a reason

State = Literal["finished", "failed", "stopped"]


def address_of(job: Job) -> str | None:
    """Where the end of a job is told; None where it is not.

    Raises:
        JobError: the environment variable that holds the address is not set here, or holds none.
        Untrusted: a run of somebody else names the address.
    """
    said = job.notify
    if said is None or not said.startswith(ENVIRONMENT):
        trust.check(trust.addresses_of({"notify": said}), "")
        return said
    name = said.removeprefix(ENVIRONMENT)
    found = os.environ.get(name, "")
    if not found:
        what = f"the environment variable {name} is not set here; first type: export {name}=https://…"
        raise job.error("notify", f"{what}, or type notify= to tell nobody")
    if problem := problem_of(found):  # its value is a secret and is not shown
        raise job.error("notify", f"the environment variable {name} {problem}")
    return found


@contextmanager
def end_is_told(running: Running, address: str | None) -> Iterator[None]:
    """Tells the address how the block ends, unless another process goes on with the run."""
    try:
        yield
    except RunHeld:
        raise
    except BaseException as error:
        stopped = bool(running.interrupted) or isinstance(error, Interrupted | KeyboardInterrupt)
        _tell(running, address, "stopped" if stopped else "failed", str(error) or running.interrupted)
        raise
    _tell(running, address)


def _tell(running: Running, address: str | None, state: State = "finished", reason: str = "") -> None:
    if address is None:
        return
    if problem := post(address, ending(running, state, reason)):
        running.screen.say(f"notify: {host_of(address)} {problem}; the run is not affected.")


def ending(running: Running, state: State, reason: str) -> dict[str, Any]:
    """What is sent; SECURITY.md lists it. `text` and `content` are what chats show.

    Args:
        reason: why it ended; of a run that ended by itself, its record says that.
    """
    run, holder = running.run, running.lease.holder
    try:
        told = run.outcome() or run.progress()
    except (LehrError, OSError):  # the storage is lost, which may be why it ended
        told = None
    best = told.best if told else None
    if state == "finished" and told:
        state = "stopped" if told.status == "stopped" else state
        reason = told.message
    reason = one_line(mask(reason.partition("\n")[0]))[:LONGEST]
    seconds = time.time() - running.started
    value = f", {best.metric.replace('_', ' ')} {format_metric(best.value, best.metric, told.measured_rows)}" if (
        best and told and best.value is not None
    ) else ""  # fmt: skip
    text = f"{run.name} {state} after {format_seconds(seconds)}{value}{f': {reason}' if reason else ''}"
    return {
        "run": run.name,
        "kind": running.job.kind,
        "state": state,
        "metric": best.metric or None if best else None,
        "value": best.value if best else None,
        "reason": reason,
        "seconds": round(seconds, 1),
        "folder": mask(run.folder.uri),
        "user": holder.user,
        "host": holder.host,
        "text": text,
        "content": text,
    }


def post(address: str, content: dict[str, Any], seconds: float = SECONDS) -> str:
    """Sends the content as JSON; returns what went wrong, as what follows the host in a sentence, or nothing.

    It never takes much longer than `seconds`, whatever the other side does, and follows no redirect.
    """
    problem = [f"did not answer within {seconds:g} s"]

    def send() -> None:
        body = json.dumps(content).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "lehr"}
        try:
            with build_opener(_NoRedirect).open(Request(address, body, headers), timeout=seconds):
                problem[0] = ""
        except HTTPError as error:
            problem[0] = f"answered {error.code} {one_line(str(error.reason))[:60]}".rstrip()
        except TimeoutError:
            return
        except (OSError, HTTPException, ValueError) as error:
            why = getattr(error, "reason", None) or error
            if not isinstance(why, TimeoutError):
                problem[0] = f"cannot be reached ({one_line(getattr(why, 'strerror', None) or type(why).__name__)})"

    thread = threading.Thread(target=send, name="lehr-notify", daemon=True)
    thread.start()
    thread.join(seconds)
    return problem[0]


class _NoRedirect(HTTPRedirectHandler):
    """Whoever answers does not decide where else this is sent: a redirect counts as an error."""

    def redirect_request(self, *_: Any) -> None:
        return None
