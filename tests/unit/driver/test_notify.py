"""`notify`: an address learns how a job ended, once, whatever the ending; nothing it does changes the ending."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lehr import trust
from lehr.driver import Interrupted
from lehr.driver.notify import post
from lehr.errors import JobError, LehrError
from lehr.job import from_dict, job_hash, to_dict
from lehr.kinds import run_job
from lehr.runs import RunFolder
from lehr.trust import Untrusted

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"source": "digits", "limit": 60},
    "model": {"name": "small_cnn", "width": 8},
    "train": {"epochs": 1, "batch_size": 30},
}
KINDS: dict[str, dict[str, Any]] = {
    "train": TINY,
    "search": {"kind": "search", "base": TINY, "space": {"optimizer.lr": [0.05, 0.1]}, "method": "grid"},
    "ensemble": {"kind": "ensemble", "method": "independent", "members": 2, "base": TINY},
    "predict": {"kind": "predict", "run": "run:tiny", "data": {"source": "digits"}},
}


class Listener(ThreadingHTTPServer):
    """A server that keeps what it is sent, and answers with `status` after `delay` seconds."""

    daemon_threads = True

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.status, self.delay, self.location = 200, 0.0, ""
        super().__init__(("127.0.0.1", 0), Answer)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/topic-nobody-should-see"


class Answer(BaseHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "application/json"
        self.server.heard.append(json.loads(body))
        time.sleep(self.server.delay)
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    monkeypatch.chdir(tmp_path)
    server = Listener()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def run(job: dict[str, Any], notify: str) -> RunFolder:
    """Runs a job that the user gives."""
    given = from_dict({**job, "notify": notify})
    trust.give(to_dict(given))
    return run_job(given, debug=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_tells_its_end_once_and_its_children_tell_nothing(kind: str, listener: Listener) -> None:
    if kind == "predict":
        run_job(from_dict(TINY), debug=True)
    found = run({**KINDS[kind], "name": kind if kind != "train" else "tiny"}, listener.address)
    assert len(listener.heard) == 1
    heard = listener.heard[0]
    assert (heard["run"], heard["kind"], heard["state"]) == (found.name, kind, "finished")
    assert heard["seconds"] > 0
    assert heard["user"]
    assert heard["host"]
    assert heard["text"] == heard["content"]
    assert heard["text"].startswith(f"{found.name} finished after ")
    best = (found.outcome() or found.progress()).best
    assert (heard["metric"], heard["value"]) == (best.metric or None, best.value)


def test_a_job_that_fails_tells_why(listener: Listener) -> None:
    with pytest.raises(LehrError, match="became"):
        run({**TINY, "optimizer": {"lr": 1e30}, "train": {"epochs": 3}}, listener.address)
    [heard] = listener.heard
    assert heard["state"] == "failed"
    assert "became" in heard["reason"]


def test_a_job_that_is_asked_to_stop_tells_that(listener: Listener) -> None:
    class Stop(threading.Thread):
        def run(self) -> None:
            while not Path("runs/tiny/job.yaml").exists():
                time.sleep(0.005)
            RunFolder.open("runs/tiny").request_stop("somebody asked")

    Stop(daemon=True).start()
    with pytest.raises(Interrupted):
        run({**TINY, "train": {"epochs": 2000, "batch_size": 30}}, listener.address)
    [heard] = listener.heard
    assert heard["state"] == "stopped"


TROUBLE = {
    "it answers 404": (404, 0.0, "answered 404"),
    "it answers 500": (500, 0.0, "answered 500"),
    "it hangs": (200, 3.0, "did not answer within 0.3 s"),
}


@pytest.mark.parametrize("what", TROUBLE)
def test_what_went_wrong_is_said_without_the_address(what: str, listener: Listener) -> None:
    listener.status, listener.delay, told = TROUBLE[what]
    problem = post(listener.address, {}, seconds=0.3)
    assert problem.startswith(told)
    assert "topic-nobody" not in problem


def test_an_address_that_hangs_is_told_in_one_line_and_changes_nothing(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listener.delay = 3
    monkeypatch.setattr("lehr.driver.notify.post.__defaults__", (0.3,))
    assert run(TINY, listener.address).status() == "finished"
    [line] = [line for line in capsys.readouterr().out.splitlines() if "notify" in line]
    where = f"http://127.0.0.1:{listener.server_port}"
    assert line == f"notify: {where} did not answer within 0.3 s; the run is not affected."


def test_nobody_there_is_told_in_one_line(listener: Listener, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert run(TINY, f"http://127.0.0.1:{port}").status() == "finished"
    assert f"notify: http://127.0.0.1:{port} cannot be reached (Connection refused)" in capsys.readouterr().out


def test_a_server_that_trickles_cannot_hold_a_job_up(listener: Listener) -> None:
    def trickle(server: socket.socket) -> None:
        connection, _ = server.accept()
        with suppress(OSError):
            for _ in range(100):  # each byte in time, the answer never
                connection.sendall(b"H")
                time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=trickle, args=(server,), daemon=True).start()
        began = time.monotonic()
        assert post(f"http://127.0.0.1:{server.getsockname()[1]}", {}, seconds=0.4) == "did not answer within 0.4 s"
        assert time.monotonic() - began < 2


def test_a_redirect_sends_nothing_anywhere_else(listener: Listener) -> None:
    elsewhere = Listener()
    listener.status, listener.location = 307, elsewhere.address
    threading.Thread(target=elsewhere.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    assert post(listener.address, {"run": "x"}).startswith("answered 307")
    assert len(listener.heard) == 1
    assert not elsewhere.heard
    elsewhere.shutdown()
    elsewhere.server_close()


def test_what_a_server_answers_is_neither_obeyed_nor_repeated_at_length() -> None:
    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 400 \x1b[31m" + b"x" * 5000 + b"\r\n\r\n" + b"y" * 5000)
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=(server,), daemon=True).start()
        told = post(f"http://127.0.0.1:{server.getsockname()[1]}", {})
    assert told.startswith("answered 400")
    assert "\x1b" not in told
    assert len(told) < 100


SECRETS = [
    "https://hooks.slack.com/services/T000/B000/XXXXsecret",
    "https://discord.com/api/webhooks/123/secret",
    "https://canary.discord.com/api/v10/webhooks/123/secret",
    "https://api.telegram.org/bot123:secret/sendMessage?chat_id=1",
    "https://me:secret@example.org/hook",
    "https://me:x@hooks.slack.com/services/T000/B000/secret",
    "https://example.org/hook?token=secret",
]


@pytest.mark.parametrize("address", SECRETS)
def test_an_address_that_is_a_secret_is_not_written_into_a_run(address: str, listener: Listener) -> None:
    with pytest.raises(JobError, match=r"notify: .*type notify=env:NOTIFY_URL, after: export NOTIFY_URL=") as refused:
        from_dict({**TINY, "notify": address})
    assert "secret" not in str(refused.value).replace("is a secret", "")
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("wrong", ["slack", "ftp://host/x", "https://", "https://a b/c", "env:", "env:9", "http://h:x"])
def test_what_is_no_address_is_refused_with_what_is_allowed(wrong: str, listener: Listener) -> None:
    with pytest.raises(JobError, match=r"no address to tell; allowed: an address \(https://…\), or env:NAME"):
        from_dict({**TINY, "notify": wrong})


def test_an_address_from_the_environment_is_in_no_file_and_no_line(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_HOOK", listener.address)
    listener.status = 403
    run(TINY, "env:MY_HOOK")
    assert len(listener.heard) == 1
    written = [path for path in Path("runs").rglob("*") if path.is_file() and b"topic-nobody" in path.read_bytes()]
    assert not written
    assert "topic-nobody" not in capsys.readouterr().out


def test_a_variable_that_is_not_set_is_refused_before_anything_is_written(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_HOOK", raising=False)
    with pytest.raises(JobError, match="MY_HOOK is not set here; first type: export MY_HOOK=https://"):
        run(TINY, "env:MY_HOOK")
    monkeypatch.setenv("MY_HOOK", "hunter2")
    with pytest.raises(JobError, match="holds no address") as refused:
        run(TINY, "env:MY_HOOK")
    assert "hunter2" not in str(refused.value)
    assert not os.path.exists("runs")


def test_the_run_of_somebody_else_tells_its_address_nothing_unless_it_is_trusted(listener: Listener) -> None:
    foreign = from_dict({**TINY, "notify": listener.address})
    trust._granted.clear()
    with pytest.raises(Untrusted, match=r"names http://127.0.0.1:\d+ as its notification. It would learn") as refused:
        run_job(foreign, debug=True)
    assert refused.value.exit_code == 2
    assert not listener.heard
    assert not os.path.exists("runs")


def test_where_the_end_is_told_does_not_make_another_run(listener: Listener) -> None:
    other = from_dict({**TINY, "notify": "https://example.org"})
    assert job_hash(from_dict(TINY)) == job_hash(other)
    run(TINY, listener.address)
    trust.give(to_dict(other))
    assert run_job(other, debug=True).name == "tiny"
    assert len(listener.heard) == 1  # the second time it was finished already, and nothing ended
