"""Values offered faster than they can be written: the latest is never lost, nobody waits, errors are raised."""

from __future__ import annotations

import threading

import pytest

from lehr.runs.latest import LatestWriter


def test_values_may_be_skipped_but_the_last_one_is_always_written() -> None:
    written: list[int] = []
    first_is_being_written, go_on = threading.Event(), threading.Event()

    def slow(value: int) -> None:
        first_is_being_written.set()
        assert go_on.wait(10)
        written.append(value)

    newest = LatestWriter(slow)
    newest.offer(1)
    assert first_is_being_written.wait(10)
    for value in (2, 3, 4):
        newest.offer(value)  # returns although the first is not written yet
    go_on.set()
    newest.close()
    assert written == [1, 4]


def test_a_failed_write_is_raised_at_the_next_offer() -> None:
    failed = threading.Event()

    def broken(value: int) -> None:
        failed.set()
        raise OSError("disk full")

    newest = LatestWriter(broken)
    newest.offer(1)
    assert failed.wait(10)
    newest.close()
    with pytest.raises(OSError, match="disk full"):
        newest.offer(2)


def test_closing_what_was_never_used_is_fine() -> None:
    LatestWriter(print).close()
