"""Windows of decoded rows: decoded ahead of training, held while their rows are trained on, and let go."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Protocol

import numpy as np

from lehr.data.decode import Decoded
from lehr.data.labels import Labels, concatenate


@dataclass(frozen=True)
class Wanted:
    """A window that will be needed.

    Attributes:
        number: the window. first, last: the steps between which its rows are needed.
        rows: how many it has.
    """

    number: int
    first: int
    last: int
    rows: int


class Pending(Protocol):
    """Rows that are being decoded."""

    def result(self) -> Decoded: ...


@dataclass(frozen=True)
class _Failed:
    """Rows that cannot be decoded."""

    error: BaseException

    def result(self) -> Decoded:
        raise self.error


class Window:
    """The rows of a window, some of which may still be decoding.

    Attributes:
        ids: int64 [rows], of each row.
        order: int64 [rows], which row is trained on at each place.
    """

    def __init__(self, ids: Sequence[np.ndarray], order: np.ndarray) -> None:
        self.order = order
        self._ids, self._ends = list(ids), np.cumsum([len(each) for each in ids])
        self._decoding: list[Pending] = []
        self._decoded: dict[int, Decoded] = {}

    def add(self, decoding: Pending) -> None:
        self._decoding.append(decoding)

    def take(
        self, places: np.ndarray, pixels: np.ndarray, into: np.ndarray, found: Callable[[int, str], None]
    ) -> tuple[np.ndarray, Labels, np.ndarray, np.ndarray]:
        """Copies the pixels of the rows at these places to `pixels[into]`.

        Args:
            found: called with the id of each row that could not be read, and why, when that is first known.

        Returns:
            For these rows in another order: where they are in `pixels`, their labels, their ids, and which of them
            could not be read.
        """
        rows = self.order[places]
        piece = np.searchsorted(self._ends, rows, side="right")
        where, labels, ids, unreadable = [], [], [], []
        for number in np.unique(piece).tolist():
            decoded, known = self._piece(number, found), self._ids[number]
            chosen = np.flatnonzero(piece == number)
            inside = rows[chosen] - (self._ends[number] - len(known))
            pixels[into[chosen]] = decoded.pixels[inside]
            where.append(into[chosen])
            labels.append(decoded.labels[inside])
            ids.append(known[inside])
            unreadable.append(np.isin(inside, [row for row, _ in decoded.unreadable]))
        return np.concatenate(where), concatenate(labels), np.concatenate(ids), np.concatenate(unreadable)

    def _piece(self, number: int, found: Callable[[int, str], None]) -> Decoded:
        if number not in self._decoded:
            decoded = self._decoded[number] = self._decoding[number].result()
            self._decoding[number] = _Failed(RuntimeError("a piece is resolved once"))  # lets go of what decoded it
            for row, why in decoded.unreadable:
                found(int(self._ids[number][row]), why)
        return self._decoded[number]


class Ahead:
    """Has windows decoded ahead of the step that needs them, in the order in which they are needed.

    A thread submits one piece after the other, at most `at_once` of them unfinished. It stays ahead by some rows.

    Args:
        wanted: the windows.
        open_window: makes a window, and says how to submit each of its pieces.
        at_once: pieces that are decoded at the same time.
        rows: how many rows may be decoded that no step has needed yet; one window may be in any case, and as many
            pieces as are decoded at once while they have at most `most_rows`.
    """

    def __init__(
        self,
        wanted: Sequence[Wanted],
        open_window: Callable[[int], tuple[Window, list[Callable[[], Pending]]]],
        at_once: int,
        rows: int,
        most_rows: int,
    ) -> None:
        self._wanted = deque(sorted(wanted, key=lambda each: (each.first, each.number)))
        self._open, self._at_once, self._rows, self._most_rows = open_window, at_once, rows, most_rows
        self._windows: dict[int, Window] = {}
        self._ahead: dict[int, tuple[Wanted, int]] = {}  # those that no step has needed yet, with their pieces
        self._using: list[Wanted] = []
        self._step = min((each.first for each in wanted), default=0)
        self._changed, self._ended = Condition(), False
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="windows", daemon=True)
        self._thread.start()

    def at(self, step: int) -> None:
        """Tells that training is at this step: windows that it no longer needs are let go."""
        with self._changed:
            self._step = step
            begun = [number for number, (each, _) in self._ahead.items() if each.first <= step]
            self._using += [self._ahead.pop(number)[0] for number in begun]
            for each in [each for each in self._using if each.last < step]:
                self._using.remove(each)
                del self._windows[each.number]
            self._changed.notify_all()

    def window(self, number: int) -> Window:
        """A window that the step needs; waits until it was submitted."""
        with self._changed:
            self._changed.wait_for(lambda: number in self._windows or self._error)
            if self._error:
                raise self._error
            return self._windows[number]

    def end(self) -> None:
        """Submits nothing more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            self._decode()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _decode(self) -> None:
        pending: deque[Pending] = deque()
        while self._wanted:
            wanted = self._wanted.popleft()
            with self._changed:
                self._changed.wait_for(lambda each=wanted: self._ended or self._has_room(each))  # type: ignore[misc]
                if self._ended:
                    return
            window, submits = self._open(wanted.number)
            for submit in submits:
                while len(pending) >= self._at_once:
                    _wait(pending.popleft())
                try:
                    pending.append(submit())
                except BaseException as error:
                    pending.append(_Failed(error))
                window.add(pending[-1])
                if self._ended:
                    return
            with self._changed:
                self._windows[wanted.number] = window
                self._ahead[wanted.number] = wanted, len(submits)
                if wanted.first <= self._step:
                    self._using.append(self._ahead.pop(wanted.number)[0])
                self._changed.notify_all()

    def _has_room(self, wanted: Wanted) -> bool:
        if wanted.first <= self._step or not self._ahead:
            return True
        rows = sum(each.rows for each, _ in self._ahead.values())
        more = sum(count for _, count in self._ahead.values()) < self._at_once
        return rows < self._rows or (more and rows + wanted.rows <= self._most_rows)


def _wait(pending: Pending) -> None:
    """Until it is decoded. What went wrong is raised where the rows are needed."""
    try:
        pending.result()
    except BaseException:
        return
