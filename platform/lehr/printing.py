"""Text from run folders, data sets and other programs, made safe to print: whatever could steer a terminal is shown."""

from __future__ import annotations

import codecs
import re
from typing import Any, TextIO

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


class PrintableStream:
    """A text stream through which only printable text passes, and characters that its encoding lacks as escapes.

    Attributes:
        raw: the stream itself, for those who write only escape sequences of their own.
    """

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw

    def write(self, text: str) -> int:
        """Writes the text as `printable` has it; returns the number of characters."""
        encoding = self.raw.encoding or "utf-8"
        return self.raw.write(printable(text).encode(encoding, REPLACED).decode(encoding))

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


def raw(stream: TextIO | PrintableStream) -> TextIO:
    """The stream below a `PrintableStream`; any other stream as it is."""
    return stream.raw if isinstance(stream, PrintableStream) else stream
