"""The first seconds of a command in a terminal are told, and leave nothing there."""

from __future__ import annotations

import os
import pty
import sys
from pathlib import Path

SCRIPT = """
import sys
from lehr.printing import PrintableStream
sys.stdout = PrintableStream(sys.stdout)
from lehr.cli.options import loading
with loading("PyTorch"):
    pass
print("done")
"""


def test_a_terminal_is_told_what_is_being_loaded_and_the_line_is_gone_afterwards() -> None:
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-c", SCRIPT])
    output = b""
    while chunk := _read(terminal):
        output += chunk
    os.waitpid(process, 0)
    assert output.decode() == "\x1b[2m loading PyTorch …\x1b[0m\r\x1b[2K\rdone\r\n"


def test_a_pipe_is_told_nothing(tmp_path: Path) -> None:
    told = tmp_path / "out.txt"
    assert os.system(f"{sys.executable} -c '{SCRIPT}' > {told}") == 0
    assert told.read_text() == "done\n"


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1000)
    except OSError:  # it was closed
        return b""
