"""Writing without waiting: the latest of many values, written in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")
_NOTHING = object()


class LatestWriter(Generic[Value]):
    """Writes the values it is offered, one after the other; skips a value when a newer one is there.

    Training offers its progress twice a second and must not wait for the fsync of a disk or for an object store.
    """

    def __init__(self, write: Callable[[Value], None]) -> None:
        self._write = write
        self._waiting: object = _NOTHING
        self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def offer(self, value: Value) -> None:
        """Writes the value soon. Raises the error of an earlier write, if one failed."""
        with self._changed:
            if self._error:
                raise self._error
            self._waiting = value
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name="latest-writer")
                self._thread.start()

    def close(self) -> None:
        """Waits until the last value is written. Writes nothing after that."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting is not _NOTHING)
                value, self._waiting = self._waiting, _NOTHING
            if value is _NOTHING:
                return
            try:
                self._write(value)  # type: ignore[arg-type]
            except BaseException as error:  # raised when the next value is offered
                self._error = error
                return
