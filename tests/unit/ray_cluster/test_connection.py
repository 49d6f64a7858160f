"""A Ray that is not there, or no longer, is one sentence that says what to type: within seconds, and without a Ray."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

pytest.importorskip("ray")

from lehr.errors import ClusterError
from lehr.ray_cluster import connection


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts connections and never answers, as a suspended daemon does."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.mark.parametrize("address", ["127.0.0.1:9", "no-such-host.invalid:6379", "SILENT", "head", "head:", ":6379"])
def test_an_address_where_no_cluster_answers_is_named_with_what_to_type(
    address: str, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(connection.ray, "is_initialized", lambda: False)  # other tests of this process share a Ray
    address = address.replace("SILENT", f"127.0.0.1:{silent}")
    monkeypatch.setenv("RAY_ADDRESS", address)
    started = time.monotonic()
    with pytest.raises(ClusterError) as refused, connection.connect(1, 1):
        pass
    assert time.monotonic() - started < 5
    assert str(refused.value).startswith(f"RAY_ADDRESS={address}")
    assert str(refused.value).endswith("to train on this machine instead, type: unset RAY_ADDRESS")
    assert "\n" not in str(refused.value)


def test_a_ray_that_is_lost_ends_what_waits_for_it_even_where_the_error_is_suppressed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "WATCH_SECONDS", 0.1)
    monkeypatch.setattr(connection, "REPEAT_SECONDS", 0.3)
    started, suppressed = time.monotonic(), 0

    def wait() -> None:
        nonlocal suppressed
        with suppress(BaseException):
            threading.Event().wait(30)
        suppressed += 1
        threading.Event().wait(30)

    with pytest.raises(ClusterError, match="the head is gone"), connection._watching(lambda: "the head is gone"):
        wait()
    assert suppressed == 1
    assert time.monotonic() - started < 5


def test_a_cluster_is_given_up_only_after_it_was_silent_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now, answers = 0.0, True
    monkeypatch.setattr(connection.time, "monotonic", lambda: now)
    monkeypatch.setattr(connection, "_speaks", lambda address: answers)
    watched = connection._Answers("head:6379")

    def first_lost(until: float) -> float | None:
        nonlocal now
        while now < until:
            now += 1
            if sentence := watched.lost():
                assert sentence.startswith("RAY_ADDRESS=head:6379: the cluster has not answered for 45 s")
                return now
        return None

    assert first_lost(100) is None
    answers = False
    assert first_lost(130) is None
    answers = True  # the head was restarted
    assert first_lost(200) is None
    answers = False
    lost = first_lost(300)
    assert lost is not None
    assert 235 <= lost <= 255, "Ray itself ends the process after 60 s"


def test_what_rays_processes_are_told_is_not_left_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_GCS_SERVER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with connection._known_by_address():
        port = os.environ["RAY_GCS_SERVER_PORT"]
        assert os.environ["RAY_ADDRESS"] == f"127.0.0.1:{port}", "else they ask the Ray that was started here last"
    assert "RAY_ADDRESS" not in os.environ
    assert "RAY_GCS_SERVER_PORT" not in os.environ
