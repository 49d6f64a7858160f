"""A driver that dies is restarted, one that ends by itself is not: real processes, without Ray."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lehr.job import load, to_dict
from lehr.submission.backend import Request
from lehr.submission.check_result import CheckResult, Finding, Level

JOB = """\
kind: train
data: {source: my_data:photos}
train: {epochs: 1}
"""
# The user's own module does whatever can happen to a driver; it is imported in the driver's process.
MODULE = """\
import os, signal, time
from pathlib import Path
tries = Path({tries!r})
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
what = {what!r}
if what == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "killed once" and tries.read_text() == "x":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "waits":
    time.sleep(60)
raise ImportError("no photos today")
"""


def supervised(tmp_path: Path, what: str, retries: int) -> subprocess.Popen[str]:
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "my_data.py").write_text(MODULE.format(tries=str(tmp_path / "tries"), what=what))
    job = load(tmp_path / "job.yaml", {"storage": str(tmp_path / "runs")})
    fields, here = {**to_dict(job), "name": "mine"}, str(tmp_path)
    request = Request("mine", fields, here, here, retries=retries, check=False)
    code = (
        "import lehr.submission.supervise as s, lehr.kinds.train as t;"
        "s.BACKOFF_SECONDS = (0.1,);"
        "import sys; sys.argv[1:] = []; s.main()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
        env={**os.environ, **request.runtime_env()["env_vars"]},
    )  # fmt: skip


def tries(tmp_path: Path) -> int:
    path = tmp_path / "tries"
    return len(path.read_text()) if path.exists() else 0


def test_a_killed_driver_is_restarted_as_often_as_requested_and_says_so(tmp_path: Path) -> None:
    process = supervised(tmp_path, "killed", retries=2)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert tries(tmp_path) == 3
    assert "The driver was killed by SIGKILL; retry 1 of 2 in 0 s." in output
    assert output.rstrip().endswith("The driver was killed by SIGKILL 3 times; resume with: lehr resume mine")


def test_a_driver_that_says_why_it_failed_is_not_restarted(tmp_path: Path) -> None:
    process = supervised(tmp_path, "killed once", retries=2)
    output, _ = process.communicate(timeout=120)
    assert tries(tmp_path) == 2
    assert process.returncode in (1, 2)
    assert "no photos today" in output
    assert "ImportError: no photos today at " in output
    assert "my_data.py" in output


def test_a_stop_is_forwarded_and_not_retried(tmp_path: Path) -> None:
    process = supervised(tmp_path, "waits", retries=2)
    deadline = time.monotonic() + 60
    while not tries(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert tries(tmp_path) == 1, output
    assert process.returncode != 0
    assert "retry" not in output


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OSError(errno.EHOSTUNREACH, "No route to host"), True),
        (ConnectionRefusedError(), True),
        (FileNotFoundError(errno.ENOENT, "photos"), False),
    ],
)
def test_an_unreachable_network_is_worth_another_attempt(
    error: OSError, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lehr import kinds
    from lehr.submission import supervise

    def unreachable(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(kinds, "run_job", unreachable)
    code = supervise.run(Request("mine", {"kind": "train"}, "/", "/"))
    assert (code not in supervise.FINAL) is again


def test_ray_s_copy_of_the_package_is_closed_to_others_and_no_other_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lehr.submission import supervise

    for name, mode in (("working_dir_files/_ray_pkg_ab", 0o700), ("elsewhere/project", 0o755)):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name).chmod(0o755)
        monkeypatch.chdir(tmp_path / name)
        supervise.close_package()
        assert (tmp_path / name).stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("attempt", [0, 1])
def test_only_the_first_attempt_starts_over(attempt: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from lehr.submission import supervise

    request = Request("mine", {}, "/", "/", fresh=True)
    for name, value in request.runtime_env()["env_vars"].items():
        monkeypatch.setenv(name, value)
    variables = supervise._environment(attempt)
    assert json.loads(variables["LEHR_SUBMISSION"])["fresh"] is (attempt == 0)


@pytest.mark.parametrize(("level", "code"), [("warning", 0), ("refused", 2)])
def test_the_client_reads_what_the_supervisor_prints_about_the_check(
    level: Level, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lehr.submission import supervise

    result = CheckResult((Finding(level, "it is so", "it matters", "do this"),), 1.5)
    monkeypatch.setattr("lehr.submission.inspection.check_cluster", lambda request: result)
    request = Request("mine", {}, "/", "/", only_check=True)
    assert supervise.supervise(request) == code
    log = capsys.readouterr().out
    assert CheckResult.read(log, request.check_token) == result
    assert log.splitlines()[:2] == [f"{level}: it is so; it matters; do this", "Checked in 1.5 s: 1 finding."]
