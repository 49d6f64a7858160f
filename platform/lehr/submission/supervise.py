"""The entrypoint of a submitted job: `python -m lehr.submission.supervise`.

It checks the cluster, then runs the job in a process of its own. When that driver dies, it is restarted under the same
name, and resumes from the run folder. Ray itself starts no job a second time.
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
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lehr.credentials import mask
from lehr.errors import ClusterError, LehrError, StorageError
from lehr.submission.backend import Request
from lehr.submission.held_runs import when_free

FINAL = (0, 1, 2, 130)
"""Exit codes of a job that ended by itself: another attempt would end the same way."""
STORAGE_AWAY = 75  # EX_TEMPFAIL: the storage is unavailable, so another attempt is worthwhile after a while
CLUSTER_AWAY = 69  # EX_UNAVAILABLE: Ray or the network is unavailable, so another attempt is worthwhile too
NETWORK_ERRORS = (ConnectionError, TimeoutError, socket.gaierror)  # not every OSError: a missing file stays missing
UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)
UNPACKED = "working_dir_files"
"""Ray's folder of unpacked packages."""
BACKOFF_SECONDS = (1.0, 10.0, 60.0)  # before the first, the second and later restarts


def main() -> None:
    close_package()
    request = Request.from_environment(os.environ)
    if sys.argv[1:] == ["job"]:
        sys.exit(run(request))
    sys.exit(supervise(request))


def close_package() -> None:
    """Hides the names in Ray's copy of the package from other users of this node; their content is hidden already."""
    if Path.cwd().parent.name == UNPACKED:
        with suppress(OSError):
            os.chmod(".", 0o700)


def supervise(request: Request) -> int:
    """Runs the job to its end, with its retries; returns the exit code of the last attempt."""
    stopping: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def on_signal(number: int, _: Any) -> None:
        stopping.append(number)
        if child is None:
            print("Stopped before the job started.", flush=True)
            sys.exit(130)
        child.send_signal(signal.SIGTERM)  # Ray signals every process of a job, others only this one

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    if request.check or request.only_check:
        if not check(request):
            return 2
        if request.only_check:
            return 0
        for number in (signal.SIGINT, signal.SIGTERM):  # Ray has replaced the handlers
            signal.signal(number, on_signal)
    for attempt in range(request.retries + 1):
        child = subprocess.Popen([sys.executable, "-m", "lehr.submission.supervise", "job"], env=_environment(attempt))
        code = child.wait()
        if stopping or code in FINAL:
            return code if code >= 0 else 130
        why = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        why = {STORAGE_AWAY: "lost its storage", CLUSTER_AWAY: "lost the cluster"}.get(code, why)
        if attempt < request.retries:
            wait = BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)]
            print(f"The driver {why}; retry {attempt + 1} of {request.retries} in {wait:.0f} s.", flush=True)
            child = None
            time.sleep(wait)
    times = f" {request.retries + 1} times" if request.retries else " (no retries)"
    print(f"The driver {why}{times}; resume with: lehr resume {request.run}", flush=True)
    return 1


def check(request: Request) -> bool:
    """Checks the cluster, and prints the result for people and for the client. Returns whether the job may start."""
    from lehr.submission.inspection import check_cluster

    result = check_cluster(request)
    for line in (*result.lines(), result.write(request.check_token)):
        print(line, flush=True)
    return not result.is_refused


def run(request: Request) -> int:
    """The job itself, in this process. Returns its exit code."""
    from lehr.kinds import run_job

    started = time.time()
    try:
        when_free(
            lambda: run_job(request.given(), fresh=request.fresh, started=started, command=f"lehr resume {request.run}")
        )
    except LehrError as error:
        print(error, flush=True)
        away = {StorageError: STORAGE_AWAY, ClusterError: CLUSTER_AWAY}
        return next((code for kind, code in away.items() if isinstance(error, kind)), error.exit_code)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        from lehr.training.failures import describe

        failure = describe(error)
        print(mask(traceback.format_exc()), file=sys.stderr)
        print(mask(failure.sentence), flush=True)
        is_away = isinstance(error, NETWORK_ERRORS) or (isinstance(error, OSError) and error.errno in UNREACHABLE)
        return CLUSTER_AWAY if is_away else 1
    return 0


def _environment(attempt: int) -> dict[str, str]:
    """The environment of an attempt: only the first may start over."""
    variables = dict(os.environ)
    if attempt:
        request = replace(Request.from_environment(variables), fresh=False)
        variables.update(
            {key: value for key, value in request.runtime_env()["env_vars"].items() if key.startswith("LEHR_")}
        )
    return variables


if __name__ == "__main__":
    main()
