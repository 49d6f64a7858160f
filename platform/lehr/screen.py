"""What a person sees while a job runs: one live view in a terminal, plain lines everywhere else."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from lehr.formatting import format_seconds


class Screen(Protocol):
    """The places where a running job speaks."""

    def status(self, text: str) -> None:
        """What is being done right now, before there is progress to show."""
        ...

    def progress(self, progress: dict[str, Any]) -> None:
        """The newest `progress.json`."""
        ...

    def say(self, text: str) -> None:
        """A line that stays."""
        ...

    def close(self) -> None:
        """No more live view; lines may still follow."""
        ...


def open_screen(file: TextIO) -> Screen:
    """A live view if `file` is a terminal, else plain lines."""
    console = Console(file=file, highlight=False)
    return LiveScreen(console) if console.is_terminal else PlainScreen(console)


@contextmanager
def quiet(log: Path) -> Iterator[TextIO]:
    """Sends everything written to stdout and stderr, by this process and its children, to `log` (appended).

    Yields the screen: a text file on the standard output as it was before.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    screen_fd, error_fd = os.dup(1), os.dup(2)
    log.parent.mkdir(parents=True, exist_ok=True)
    log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    os.close(log_fd)
    screen = os.fdopen(screen_fd, "w", buffering=1, encoding=sys.stdout.encoding or "utf-8", errors="replace")
    try:
        yield screen
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        screen.flush()
        os.dup2(screen.fileno(), 1)
        os.dup2(error_fd, 2)
        os.close(error_fd)
        screen.close()


class PlainScreen:
    """One line per epoch, for files, pipes and CI."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._epoch = 0
        self._found = ""

    def status(self, text: str) -> None:
        self.say(text)

    def progress(self, progress: dict[str, Any]) -> None:
        if "headline" in progress:
            if progress["headline"] != self._found:
                self._found = progress["headline"]
                facts = "  ".join(f"{name} {value}" for name, value in progress["facts"].items())
                self.say(f"{progress['headline']}  {facts}".rstrip())
            return
        epoch = progress["epochs_done"]
        if epoch > self._epoch:
            self._epoch = epoch
            facts = "  ".join(f"{name} {value}" for name, value in facts_of(progress))
            self.say(f"epoch {epoch}/{progress['epochs']}  {facts}")
            found = (progress.get("diagnosis") or {}).get("sentence", "")
            if found and found != self._found:
                self.say(f"  {found}")
            self._found = found

    def say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False)

    def close(self) -> None:
        pass


class LiveScreen:
    """A bar and a row of numbers that stay in place."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._started = time.monotonic()

    def status(self, text: str) -> None:
        self._show(Spinner("dots", Text(f" {text} …", style="dim")))

    def progress(self, progress: dict[str, Any]) -> None:
        self._show(picture(progress))

    def say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False)

    def close(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def _show(self, what: RenderableType) -> None:
        if self._live is None:
            self._live = Live(
                what,
                console=self.console,
                refresh_per_second=8,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,  # what others print is for the log
            )
            self._live.start()
        else:
            self._live.update(what)


def picture(progress: dict[str, Any]) -> Group:
    """A run's `progress.json` as the live view shows it: how far it is, its figures, what its curves say."""
    if "headline" in progress:
        return overview(progress)
    bar = Table.grid(padding=(0, 2))
    bar.add_row(
        Text(f"epoch {min(int(progress['epoch']) + 1, progress['epochs'])}/{progress['epochs']}", style="bold"),
        ProgressBar(total=progress["total_steps"], completed=progress["step"], width=32),
        Text(f"{progress['step'] / progress['total_steps']:4.0%}"),
        Text(_left(progress), style="dim"),
    )
    facts = Table.grid(padding=(0, 3))
    known = facts_of(progress)
    facts.add_row(*(Text(name, style="dim") for name, _ in known))
    facts.add_row(*(Text(value) for _, value in known))
    found = (progress.get("diagnosis") or {}).get("sentence", "")
    return Group(bar, facts, *([Text(found, style="yellow")] if found else []))


def _left(progress: dict[str, Any]) -> str:
    """The time that is left; nothing for a run that is over."""
    left, over = progress.get("seconds_left"), progress.get("status") in ("finished", "failed", "stopped")
    return "" if left is None or over else f"{format_seconds(left)} left"


def overview(progress: dict[str, Any]) -> Group:
    """What a job made of other runs tells of itself: how far it is, its figures, and a table of its runs."""
    bar = Table.grid(padding=(0, 2))
    share = min(max(progress["done"], 0.0), 1.0)
    bar.add_row(
        Text(progress["headline"], style="bold"),
        ProgressBar(total=1.0, completed=share, width=32),
        Text(f"{share:4.0%}"),
        Text(_left(progress), style="dim"),
    )
    facts = Table.grid(padding=(0, 3))
    if progress["facts"]:
        facts.add_row(*(Text(name, style="dim") for name in progress["facts"]))
        facts.add_row(*(Text(value) for value in progress["facts"].values()))
    columns, rows = progress["table"]["columns"], progress["table"]["rows"]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in columns:
        table.add_column(name)
    for row in rows[:10]:
        table.add_row(*map(Text, row))
    return Group(bar, facts, *([table] if rows else []))


def facts_of(progress: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of what matters most, in the order it is shown."""
    metrics = progress.get("metrics", {})
    rows: list[tuple[str, float | None, str]] = [
        ("loss", progress.get("loss"), ".4f"),
        ("validation loss", metrics.get("validation_loss"), ".4f"),
        ("validation accuracy", metrics.get("validation_accuracy"), ".2%"),
        ("learning rate", progress.get("learning_rate"), ".4g"),
        ("examples/s", progress.get("examples_per_second"), ",.0f"),
    ]
    return [(name, format(value, form)) for name, value, form in rows if isinstance(value, (int, float))]
