"""What a person sees while a job runs: one live view in a terminal, plain lines everywhere else."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO, cast

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from lehr.errors import StorageError
from lehr.formatting import format_figure, format_left, format_metric, format_seconds
from lehr.printing import REPLACED, blanks, printable, raw
from lehr.runs import ENDED, Overview, Progress, TrainingProgress
from lehr.runs.columns import listed

WRAPPED = 24  # characters of a cell in a table from which on it may wrap
GAP = 2  # cells between two columns
LONG_SECONDS = 3.0  # of waiting, after which it is said how long it has been
MOST_METRICS = 3  # of those that the job itself lists


class Screen(Protocol):
    """Where a running job shows what it does."""

    def status(self, text: str) -> None:
        """What the job is doing right now, before there is progress to show."""
        ...

    def progress(self, progress: Progress) -> None:
        """How far the job is."""
        ...

    def say(self, text: str) -> None:
        """A line that stays."""
        ...

    def close(self) -> None:
        """Ends the live view; lines may still follow."""
        ...


class PrintableConsole(Console):
    """A console for text that others wrote: it interprets no markup and no emoji codes, and shows control characters.

    What is to look different is said by `style` and `rich.text.Text`. Everything that rich draws comes through here.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)

    def print(self, *objects: Any, soft_wrap: bool | None = None, **options: Any) -> None:
        soft = self.soft_wrap if soft_wrap is None else soft_wrap
        if soft and self.is_terminal and len(objects) == 1 and isinstance(objects[0], str | Text):
            text = objects[0] if isinstance(objects[0], Text) else Text(printable(objects[0]))
            objects = (filled(text, self.width),)
        super().print(*objects, soft_wrap=soft, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def filled(text: Text, width: int) -> Text:
    """The text with blanks where a terminal would break a word; see `lehr.printing.blanks`."""
    lines: list[Text] = []
    for line in text.split("\n", allow_blank=True):
        start, parts = 0, []
        for at, count in blanks(line.plain, width):
            parts += [line[start:at], Text(" " * count)]
            start = at
        lines.append(Text.assemble(*parts, line[start:]))
    joined = Text("\n").join(lines)
    joined.style = text.style
    return joined


def console(file: TextIO | None = None, **options: Any) -> Console:
    """The one console of commands and of the live view, on `file` (by default the standard output)."""
    return PrintableConsole(file=raw(file or sys.stdout), markup=False, emoji=False, highlight=False, **options)


def open_screen(file: TextIO) -> Screen:
    """A live view if `file` is a terminal, else plain lines."""
    shown = console(file)
    return LiveScreen(shown) if shown.is_terminal else PlainScreen(shown)


def open_log(log: Path) -> int:
    """A descriptor that appends to a log file, whose mode follows the umask.

    Raises OSError for a link, and for what is no regular file: somebody else may have put it there.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return descriptor


@contextmanager
def quiet(log: Path) -> Iterator[TextIO]:
    """Sends everything written to stdout and stderr, by this process and its children, to `log` (appended).

    Python's own `sys.stdout` and `sys.stderr` too where they write elsewhere, as those of a notebook do.

    Yields the screen: a text file on the standard output as it was before. Raises StorageError for a log that cannot be
    written.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log_fd = open_log(log)
    except OSError as error:
        raise StorageError(f"{log}: cannot be written: {error.strerror}") from error
    screen_fd, error_fd = os.dup(1), os.dup(2)
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    os.close(log_fd)
    screen = cast(TextIO, _Unbuffered(screen_fd, sys.stdout.encoding or "utf-8"))
    replaced = (sys.stdout, sys.stderr)
    try:
        if sys.stdout is not sys.__stdout__:  # as in a notebook
            # Never closed: whoever logs to it from now on may do so later, and then means the standard output.
            sys.stdout = sys.stderr = open(1, "w", buffering=1, errors=REPLACED, closefd=False)  # noqa: SIM115
        yield screen
    finally:
        print(end="", flush=True)
        print(end="", flush=True, file=sys.stderr)
        sys.stdout, sys.stderr = replaced
        screen.flush()
        os.dup2(screen.fileno(), 1)
        os.dup2(error_fd, 2)
        os.close(error_fd)
        screen.close()


class _Unbuffered(io.TextIOBase):
    """Text to a terminal that may close, or a pipe whose reader may leave: what nobody sees any more is no error.

    Python's own text files cannot be entered again by a signal's handler that has something to say.
    """

    def __init__(self, descriptor: int, encoding: str) -> None:
        self._descriptor, self._encoding = descriptor, encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def write(self, text: str) -> int:
        left = text.encode(self._encoding, REPLACED)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EPIPE):
                raise
        return len(text)

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._descriptor)


class PlainScreen:
    """One line per epoch, for files, pipes and CI."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._epoch = 0
        self._last = ""  # the headline or the diagnosis that was said last

    def status(self, text: str) -> None:
        self.say(text)

    def progress(self, progress: Progress) -> None:
        if overview := progress.overview:
            if overview.headline != self._last:
                self._last = overview.headline
                facts = "  ".join(f"{name} {value}" for name, value in overview.facts.items())
                self.say(f"{overview.headline}  {facts}".rstrip())
        elif (training := progress.training) and training.epochs_done > self._epoch:
            self._epoch = training.epochs_done
            facts = "  ".join(f"{name} {value}" for name, value in facts_of(progress, of_epoch=True))
            self.say(f"epoch {self._epoch}/{training.epochs}  {facts}")
            found = training.diagnosis.sentence
            if found and found != self._last:
                self.say(f"  {found}")
            self._last = found

    def say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False)

    def close(self) -> None:
        pass


class Waiting:
    """What is being waited for, and for how long already."""

    def __init__(self, text: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.text, self._clock, self._began = text, clock, clock()
        self._spinner = Spinner("dots", style="dim")

    def __rich__(self) -> Spinner:
        waited = self._clock() - self._began
        long = f" {format_seconds(waited)}" if waited >= LONG_SECONDS else ""
        self._spinner.update(text=Text(printable(f" {self.text} …{long}"), "dim"))
        return self._spinner


class LiveScreen:
    """A bar and a row of numbers that stay in place."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._waiting: Waiting | None = None

    def status(self, text: str) -> None:
        if self._waiting is None or self._waiting.text != text:
            self._waiting = Waiting(text)
            self._show(self._waiting)

    def progress(self, progress: Progress) -> None:
        self._waiting = None
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


def picture(progress: Progress) -> Group:
    """How far a run is, as the live view shows it: a bar, its figures, and what its curves say or its parts."""
    if progress.overview:
        return overview(progress, progress.overview)
    return _training(progress, progress.training or TrainingProgress())


def _training(progress: Progress, training: TrainingProgress) -> Group:
    bar = Table.grid(padding=(0, 2))
    bar.add_row(
        _text(f"epoch {min(int(training.epoch) + 1, training.epochs)}/{training.epochs}", style="bold"),
        ProgressBar(total=max(1, training.total_steps), completed=training.step, width=32),
        _text(f"{progress.share_done:4.0%}"),
        _text(_left(progress), style="dim"),
    )
    facts = Table.grid(padding=(0, 3))
    known = facts_of(progress)
    facts.add_row(*(_text(name, style="dim") for name, _ in known))
    facts.add_row(*(_text(value) for _, value in known))
    found = training.diagnosis.sentence
    return Group(bar, facts, *([_text(found, style="yellow")] if found else []))


def _text(text: str, style: str = "") -> Text:
    """Text as wide as it will be printed."""
    return Text(printable(text), style)


def _left(progress: Progress) -> str:
    """The time that is left; nothing for a run that has ended."""
    if progress.status in ENDED:
        return ""
    return format_left(progress.seconds_left, progress.seconds_left_least, progress.seconds_left_most)


def overview(progress: Progress, told: Overview) -> Group:
    """How far a job without steps of its own is: a bar, its figures, and a table of its parts."""
    bar = Table.grid(padding=(0, 2))
    share = min(max(told.done, 0.0), 1.0)
    bar.add_row(
        _text(told.headline, style="bold"),
        ProgressBar(total=1.0, completed=share, width=32),
        _text(f"{share:4.0%}"),
        _text(_left(progress), style="dim"),
    )
    facts = Table.grid(padding=(0, 3))
    if told.facts:
        facts.add_row(*(_text(name, style="dim") for name in told.facts))
        facts.add_row(*(_text(value) for value in told.facts.values()))
    return Group(bar, facts, *([FittingTable(told.table.columns, told.table.rows[:10])] if told.table.rows else []))


class FittingTable:
    """A table whose figures never wrap: on a narrow terminal the last columns are left out, and named below it."""

    def __init__(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.columns, self.rows = columns, rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        widths = [self._width(number) for number in range(len(self.columns))]
        count = len(widths)
        while count > 1 and sum(widths[:count]) + GAP * (count - 1) > options.max_width:
            count -= 1
        yield self._table(count)
        if left_out := self.columns[count:]:
            yield _text(f"no room here for {', '.join(left_out)}; the report has all", style="dim")

    def _wraps(self, number: int) -> bool:
        return any(len(row[number]) > WRAPPED for row in self.rows)

    def _width(self, number: int) -> int:
        """Cells of the terminal that a column must have."""
        cells = [self.columns[number], *(row[number] for row in self.rows)]
        return WRAPPED if self._wraps(number) else max(cell_len(printable(cell)) for cell in cells)

    def _table(self, count: int) -> Table:
        """The first `count` columns. Only sentences wrap."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        for number, name in enumerate(self.columns[:count]):
            table.add_column(name, no_wrap=not self._wraps(number))
        for row in self.rows:
            table.add_row(*map(_text, row[:count]))
        return table


def _own_metrics(progress: Progress) -> list[str]:
    """The metrics of the job's own list that there is room for, that which chooses the model before all others."""
    names = listed(progress.metrics, "validation")
    return sorted(names, key=lambda name: name != progress.best.metric)[:MOST_METRICS]


def facts_of(progress: Progress, *, of_epoch: bool = False) -> list[tuple[str, str]]:
    """(name, value) of what matters most in a training, in the order it is shown.

    Args:
        of_epoch: the training loss is the mean over the last whole epoch, as in the record, not that of the newest
            steps. So it is where training is between two epochs.
    """
    training, metrics = progress.training or TrainingProgress(), progress.metrics
    between = of_epoch or training.epoch == training.epochs_done
    mean = metrics.get("train_loss") if between else None
    rows: list[tuple[str, float | None, str]] = [
        ("loss of the last steps", training.loss, ".4f") if mean is None else ("training loss", mean, ".4f"),
        ("validation loss", metrics.get("validation_loss"), ".4f"),
        ("validation accuracy", metrics.get("validation_accuracy"), ".2%"),
        *((name.replace("_", " "), metrics[name], ".4f") for name in _own_metrics(progress)),
        ("learning rate", training.learning_rate, ".4g"),
        ("examples/s", training.examples_per_second, ",.0f"),
    ]
    known = [(name, format_figure(value, form)) for name, value, form in rows if value is not None]
    return [(name, _accuracy(progress) if name == "validation accuracy" else value) for name, value in known]


def _accuracy(progress: Progress) -> str:
    return format_metric(progress.metrics["validation_accuracy"] or 0.0, "validation_accuracy", progress.measured_rows)
