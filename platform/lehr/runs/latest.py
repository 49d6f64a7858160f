"""Writing without waiting: the newest of many values, written in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")
_NOTHING = object()


class LatestWriter(Generic[Value]):
    """Writes what it is offered, one after the other; a value that is overtaken by a newer one is left out.

    Training offers its progress twice a second and must not wait for a disk's fsync or an object store.
    """

    def __init__(self, write: Callable[[Value], None]) -> None:
        self._write = write
        self._waiting: object = _NOTHING
        self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def offer(self, value: Value) -> None:
        """Has the value written soon. Raises the error of an earlier write that failed."""
        with self._changed:
            if self._error:
                raise self._error
            self._waiting = value
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name="newest")
                self._thread.start()

    def close(self) -> None:
        """Waits until the last value is written. Nothing is written after this."""
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
            except BaseException as error:  # told to whoever offers the next one
                self._error = error
                return
