"""`lehr serve`: a run answers on a port as it does in Python, and the server ends cleanly."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.unit.serving.test_app import png
from typer.testing import CliRunner

import lehr
from lehr.cli.main import app
from lehr.errors import RunError
from lehr.predict import load_predictor
from lehr.runs import Folder, RunFolder

JOB = {
    "kind": "train",
    "name": "served",
    "data": {"source": "digits", "limit": 100},
    "model": "small_cnn",
    "train": {"epochs": 1},
}


def test_a_port_that_is_taken_is_refused_with_another_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(app, ["serve", "any", "--port", str(port)])
    assert str(result.exception).startswith(f"--port: {port} cannot be listened on (Address already in use)")
    assert result.exception.exit_code == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_refused_by_its_option(host: str) -> None:
    result = CliRunner().invoke(app, ["serve", "any", "--host", host])
    assert str(result.exception) == f'--host: "{host}" is no address of this machine; allowed: 127.0.0.1, 0.0.0.0'


def test_a_search_has_no_model_and_names_a_training_that_may(tmp_path: Path) -> None:
    RunFolder.create(Folder.at(tmp_path / "many"), {"kind": "search"})
    RunFolder.create(Folder.at(tmp_path / "many/trials/0003"), {"kind": "train"})
    with pytest.raises(
        RunError, match=r"holds no finished model.*its trainings may have one, such as .*many/trials/0003$"
    ):
        load_predictor(Folder.at(tmp_path / "many"))


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_is_served_as_it_predicts_and_ends_when_asked(tmp_path: Path) -> None:
    run = lehr.run({**JOB, "storage": str(tmp_path / "runs")}, debug=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "lehr", "serve", "served", "--storage", "runs", "--port", str(port)]
    server = subprocess.Popen([*command, "--replicas", "2"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        said: list[str] = []
        while "Stop with" not in "".join(said[-1:]):
            said.append(server.stdout.readline())
            assert said[-1], said

        def ask(value: int) -> dict[str, float]:
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/predict?top=10", png(value), {"Content-Type": "image/png"}
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                [found] = json.load(answer)["predictions"]
            return {each["class"]: each["probability"] for each in found["top"]}

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(ask, range(0, 250, 5)))
        expected = run.predict([png(value) for value in range(0, 250, 5)])
        for found, shares in zip(answers, expected, strict=True):
            assert found == pytest.approx(dict(zip(run.classes, shares.tolist(), strict=True)), abs=1e-5)
    finally:
        server.send_signal(signal.SIGINT)
        code = server.wait(60)
    assert code == 0
    assert "Stopping" in server.stdout.read()
