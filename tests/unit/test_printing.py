"""Nothing that others wrote steers a terminal, whichever way it is printed."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

import lehr
from lehr.printing import REPLACED, PrintableStream, blanks, one_line, printable, printable_tree, raw
from lehr.runs import Folder, Overview, Progress, RunFolder
from lehr.screen import LiveScreen, PlainScreen, console, overview

STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
HOSTILE = "a\x1b]0;title\x07b\x9b31mc\u202ed\x00e\rf\udcffg [red]h[/red] [/x] :smile:"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ä 猫 🐈 \u200d", "plain ä 猫 🐈 \u200d"),
        ("two\n\tlines", "two\n\tlines"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b2J", r"\x9b2J"),
        ("a\rb\x08", r"a\rb\x08"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\udcff", r"\xff"),
        ("\ud800\u2028\U000e0041", r"\ud800\u2028\U000e0041"),
    ],
)
def test_what_could_steer_a_terminal_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert one_line(text) == shown.replace("\n", r"\n").replace("\t", r"\t")
    assert printable_tree({text: [text, 3, {"a": (text,)}]}) == {shown: [shown, 3, {"a": [shown]}]}


def test_a_stream_shows_what_its_encoding_lacks() -> None:
    binary = io.BytesIO()
    stream = PrintableStream(io.TextIOWrapper(binary, encoding="ascii"))
    print("ä\x1b", file=stream)
    stream.flush()
    assert binary.getvalue() == b"\\xe4\\x1b\n"
    assert raw(stream) is stream.raw


def table_of(text: str) -> Table:
    table = Table("name")
    table.add_row(text)
    table.add_row(Text(text))
    return table


WAYS: list[Callable[[io.StringIO], None]] = [
    lambda file: console(file).print(HOSTILE),
    lambda file: console(file).print(Text(HOSTILE)),
    lambda file: console(file).print(table_of(HOSTILE)),
    lambda file: console(file).print(overview(Progress(), Overview(headline=HOSTILE, facts={HOSTILE: HOSTILE}))),
    lambda file: PlainScreen(console(file)).say(HOSTILE),
    lambda file: PlainScreen(console(file)).progress(Progress(overview=Overview(headline=HOSTILE))),
]


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_the_screen_shows_control_characters_and_interprets_no_markup(
    way: Callable[[io.StringIO], None],
) -> None:
    file = io.StringIO()
    way(file)
    assert not STEERING.search(file.getvalue())
    joined = "".join(file.getvalue().split())
    assert r"a\x1b]0;title" in joined
    assert "[red]h[/red]" in joined
    assert ":smile:" in joined


def test_a_live_view_sends_only_sequences_of_its_own() -> None:
    file = io.StringIO()
    live = LiveScreen(console(file, force_terminal=True, width=200))
    live.progress(Progress(overview=Overview(headline=HOSTILE)))
    live.say(HOSTILE)
    live.close()
    own = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", file.getvalue())
    assert not STEERING.search(own)
    assert "\x1b]0;" not in file.getvalue()


def test_every_console_of_lehr_is_the_printable_one() -> None:
    source = Path(lehr.__file__).parent
    made = [path for path in source.rglob("*.py") if re.search(r"(?<![A-Za-z])Console\(", path.read_text())]
    assert not made  # `lehr.screen.console` makes the one that is derived from it


def test_a_sentence_of_an_error_cannot_steer_the_terminal() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lehr", "show", "./a\x1b]0;title\x07\u202e"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert r"a\x1b]0;title\x07\u202e" in done.stderr
    assert not STEERING.search(done.stderr)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_terminal_shows_what_it_can(encoding: str) -> None:
    text = "done … 3 × 4 ± 1 → ok ─ ⠋ 写"
    shown = text.encode(encoding, REPLACED).decode(encoding)
    assert shown.encode(encoding)
    assert shown == "done ... 3 x 4 +- 1 -> ok - \\u280b \\u5199" if encoding == "ascii" else "done" in shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("command", [["runs"], ["show", "é"], ["--help"], ["rm", "nothing…"]])
def test_commands_print_in_a_terminal_without_unicode(command: list[str], encoding: str, tmp_path: Path) -> None:
    run = RunFolder.create(Folder.at(tmp_path / "runs" / "é"), {"kind": "train", "notes": "…"})
    run.write_progress(Progress("finished", "alles fertig … ✓"))
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-m", "lehr", *command], capture_output=True, env=environment, check=False)
    assert done.returncode == (1 if command[0] == "rm" else 0), done.stderr
    assert b"internal error" not in done.stderr


def test_what_a_command_prints_in_a_terminal_breaks_between_words(tmp_path: Path) -> None:
    """Sentences of commands were broken in the middle of a word, or with a new line in the middle of a command."""
    said = "Train the best trial longer: lehr best search-epochs-6 best.yaml && lehr run best.yaml train.epochs=18"
    for line, whole in ((said, False), (f"Also:      {said}", False), (f'  "message": "{said}"', True)):
        file = io.StringIO()
        file.isatty = lambda: True  # type: ignore[method-assign]
        stream = PrintableStream(file)
        print(line, file=stream)
        print(end="", file=stream)
        shown = file.getvalue()
        assert shown.split() == line.split()
        assert shown.count("\n") == 1
        assert (shown == f"{line}\n") == whole
        if not whole:
            rows = [shown[at : at + 80] for at in range(0, len(shown), 80)]
            assert all(word in line.split() for row in rows for word in row.split())


def test_wide_characters_take_two_columns_of_a_row() -> None:
    assert list(blanks("写真 abc", 6)) == [(3, 1)]
    assert list(blanks("ab abc", 6)) == []


def test_a_line_that_is_no_terminals_is_written_as_it_is() -> None:
    file = io.StringIO()
    print("word " * 50, file=PrintableStream(file))
    assert file.getvalue() == "word " * 50 + "\n"
