"""The entrypoint of a submitted job: `python -m lehr.submission.supervise`.

It looks the cluster over, then runs the job in a process of its own and starts that one again when it dies, under the
same name: the run folder knows how far it came. Ray starts no job a second time by itself.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from dataclasses import replace
from typing import Any

from lehr.errors import LehrError, RunHeld, StorageError
from lehr.runs.lease import STALE_SECONDS
from lehr.submission.backend import Request

TOLD = (0, 1, 2, 130)
"""Exit codes of a job that ended by itself: another attempt would end the same way."""
AGAIN = 75  # the storage is away (EX_TEMPFAIL): worth another attempt, after a while
LOST = 69  # Ray or the network is away (EX_UNAVAILABLE): worth another attempt too
AWAY = (ConnectionError, TimeoutError, socket.gaierror)  # not every OSError: a file that is missing stays missing
NO_WAY = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)
HELD_SECONDS = 2.5 * STALE_SECONDS
WAIT_SECONDS = (1.0, 10.0, 60.0)  # before the first, second and later restarts


def main() -> None:
    request = Request.from_environment(os.environ)
    if sys.argv[1:] == ["job"]:
        sys.exit(run(request))
    sys.exit(supervise(request))


def supervise(request: Request) -> int:
    """Runs the job to its end, with its retries; returns the exit code of the last attempt."""
    stopping: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def on_signal(number: int, _: Any) -> None:
        stopping.append(number)
        if child is None:
            print("Stopped before it began.", flush=True)
            sys.exit(130)
        child.send_signal(signal.SIGTERM)  # Ray signals every process of a job, others only this one

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    if request.check or request.only_check:
        from lehr.submission.inspection import inspect_cluster

        if not inspect_cluster(request.load(), request):
            return 2
        if request.only_check:
            return 0
        for number in (signal.SIGINT, signal.SIGTERM):  # Ray puts a handler of its own in place
            signal.signal(number, on_signal)
    for attempt in range(request.retries + 1):
        child = subprocess.Popen([sys.executable, "-m", "lehr.submission.supervise", "job"], env=_environment(attempt))
        code = child.wait()
        if stopping or code in TOLD:
            return code if code >= 0 else 130
        why = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        why = {AGAIN: "lost its storage", LOST: "lost the cluster"}.get(code, why)
        if attempt < request.retries:
            wait = WAIT_SECONDS[min(attempt, len(WAIT_SECONDS) - 1)]
            print(f"The driver {why}; retry {attempt + 1} of {request.retries} in {wait:.0f} s.", flush=True)
            child = None
            time.sleep(wait)
    tries = f"{request.retries + 1} times" if request.retries else "and no retries were asked for"
    print(f"The driver {why} {tries}; go on with: lehr resume {request.run}", flush=True)
    return 1


def run(request: Request) -> int:
    """The job itself, in this process. Returns its exit code."""
    from lehr.kinds import run_job

    started = time.time()
    try:
        while True:
            try:
                run_job(request.load(), fresh=request.fresh, started=started, command=f"lehr resume {request.run}")
                break
            except RunHeld as held:  # perhaps by a driver that died with its machine: its lease runs out
                if time.time() - started > HELD_SECONDS:
                    raise
                print(f"{held}; waiting until it is known to be gone", flush=True)
                time.sleep(5.0)
    except LehrError as error:
        print(error, flush=True)
        return AGAIN if isinstance(error, StorageError) else error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        from lehr.training.failures import describe

        failure = describe(error)
        traceback.print_exc()
        print(failure["sentence"], flush=True)
        away = isinstance(error, AWAY) or (isinstance(error, OSError) and error.errno in NO_WAY)
        return LOST if away else 1
    return 0


def _environment(attempt: int) -> dict[str, str]:
    """The environment of an attempt: only the first may start afresh."""
    variables = dict(os.environ)
    if attempt:
        request = replace(Request.from_environment(variables), fresh=False)
        variables.update(
            {key: value for key, value in request.runtime_env()["env_vars"].items() if key.startswith("LEHR_")}
        )
    return variables


if __name__ == "__main__":
    main()
