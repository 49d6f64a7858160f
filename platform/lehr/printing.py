"""Text from run folders, data sets and other programs, made safe to print: whatever could steer a terminal is shown."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator
from typing import Any, TextIO
from unicodedata import east_asian_width

# Control characters but newline and tab; marks that change the direction of text or are invisible; bytes that are no
# text (surrogates); separators that some terminals take for the end of a line.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]")
_LAYOUT = re.compile("[\n\t]")
_SHORT = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}


def printable(text: str) -> str:
    """The text with every character that could steer a terminal as a visible escape, such as `\\x1b` and `\\u202e`.

    Lines and tabs stay. A byte of a file name that is no UTF-8 is shown as `\\xff`.
    """
    return _STEERING.sub(_visible, text)


def one_line(text: str) -> str:
    """As `printable`, with newlines and tabs shown as well: for names."""
    return _LAYOUT.sub(_visible, printable(text))


def printable_tree(value: Any) -> Any:
    """A tree of lists and dictionaries with every text in it printable, keys included."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable_tree(key): printable_tree(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [printable_tree(each) for each in value]
    return value


def _visible(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte that is no UTF-8
        code -= 0xDC00
    if character in _SHORT:
        return _SHORT[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_PLAIN = str.maketrans(
    {"…": "...", "·": ".", "×": "x", "±": "+-", "→": "->", "←": "<-", "─": "-", "━": "-", "│": "|", "•": "*", "–": "-"}
    | {"—": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "≥": ">=", "≤": "<=", "µ": "u", "²": "2", "Δ": "d", "█": "#"}
)


def _in_its_encoding(error: UnicodeError) -> tuple[str, int]:
    """Replaces what a terminal's encoding lacks: by a plain character that looks alike, or an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end


REPLACED = "lehr.replaced"
"""The name of this way to handle characters that an encoding lacks, as the `errors` of a text stream."""
codecs.register_error(REPLACED, _in_its_encoding)


def blanks(line: str, width: int) -> Iterator[tuple[int, int]]:
    """Where a terminal of this width would break a word of a line: (the word's place, blanks that fill the row).

    With blanks, and no new line, the row ends before the word, and a command that is copied from two rows is still one.
    Only words that are longer than a row, such as a path, are broken.
    """
    column = end = 0
    for word in re.finditer(r"\S+", line):
        column += word.start() - end
        cells, end = _cells(word[0]), word.end()
        needed = cells + (end < len(line))  # the blank after it would begin the next row
        if column % width and cells <= width < column % width + needed:
            yield word.start(), width - column % width
            column += width - column % width
        column += cells


def _cells(word: str) -> int:
    """Columns of a terminal that a word takes."""
    return len(word) if word.isascii() else sum(2 if east_asian_width(each) in "WF" else 1 for each in word)


def in_rows(text: str, width: int) -> str:
    """Lines with rows that end between words; JSON as it is."""
    return "\n".join(_in_rows(line, width) for line in text.split("\n"))


def _in_rows(line: str, width: int) -> str:
    if len(line) * 2 <= width or line.lstrip()[:1] in ('"', "{", "["):
        return line
    found, start = "", 0
    for at, count in blanks(line, width):
        found, start = found + line[start:at] + " " * count, at
    return found + line[start:]


def columns_of(terminal: TextIO) -> int:
    """How many columns a terminal has; 80 where it does not say."""
    try:
        return os.get_terminal_size(terminal.fileno()).columns or 80
    except OSError:
        return 80


class PrintableStream:
    """A text stream through which only printable text passes, and characters that its encoding lacks as escapes.

    In a terminal, rows end between words.

    Attributes:
        raw: the stream itself, for those who write only escape sequences of their own.
    """

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw
        self._begins = True  # whether a line begins with what is written next

    def write(self, text: str) -> int:
        """Writes the text as `printable` has it; returns the number of characters."""
        encoding = self.raw.encoding or "utf-8"
        shown = printable(text)
        if self._begins and self.raw.isatty():
            shown = in_rows(shown, columns_of(self.raw))
        self._begins = shown.endswith("\n")
        return self.raw.write(shown.encode(encoding, REPLACED).decode(encoding))

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


def raw(stream: TextIO | PrintableStream) -> TextIO:
    """The stream below a `PrintableStream`; any other stream as it is."""
    return stream.raw if isinstance(stream, PrintableStream) else stream
