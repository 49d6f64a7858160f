from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.s3 import BUCKET, s3_environment, s3_server

from lehr.runs import Folder


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A real S3 server (moto) on loopback, with one bucket."""
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty folder on the S3 server, reached as a user would: through the environment."""
    for name, value in s3_environment(s3_endpoint).items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{secrets.token_hex(6)}"


@pytest.fixture
def local(tmp_path: Path) -> Folder:
    return Folder.at(tmp_path / "run")


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest) -> Folder:
    if request.param == "local":
        return request.getfixturevalue("local")
    return Folder.at(request.getfixturevalue("s3") + "/run")


@pytest.fixture
def python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python on a script, with pipes for input and output; ends what is left of it after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", script, *map(os.fspath, map(str, arguments))]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
