"""Time of `lehr --help` as a whole process, against Python's own start-up.

python -m tests.benchmarks.help [rounds]
"""

from __future__ import annotations

import subprocess
import sys
import time

from tests.benchmarks.alternating import compare


def seconds(*arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 11
    seconds("-m", "lehr", "--help")
    sides = {"lehr --help": lambda: seconds("-m", "lehr", "--help"), "python -c ''": lambda: seconds("-c", "")}
    compare("Start-up of the command line", "s", sides, rounds, "lehr --help within 0.3 s")


if __name__ == "__main__":
    main()
