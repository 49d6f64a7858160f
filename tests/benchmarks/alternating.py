"""Interleaved comparison of two sides in one run, because the speed of a shared machine drifts."""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
from collections.abc import Callable, Iterator


def compare(what: str, unit: str, sides: dict[str, Callable[[], float]], rounds: int, expected: str) -> float:
    """Measures each side once per round, prints a table, and returns the ratio of the medians, first / second.

    Args:
        sides: two functions that measure once; ours comes first.
        expected: the expected ratio, printed on the last line.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(sides[name]())
            print(f"  round {number + 1}: {name} {figure(found[name][-1])} {unit}", flush=True)
    print(f"\n{what}\n{'':24}{'median':>12}{'min':>12}{'max':>12}  {unit}")
    for name, values in found.items():
        print(f"{name:24}{figure(statistics.median(values)):>12}{figure(min(values)):>12}{figure(max(values)):>12}")
    ours, theirs = (statistics.median(values) for values in found.values())
    pairs = [a / b for a, b in zip(*found.values(), strict=True)]
    first, second = found
    print(
        f"ratio {first} / {second}: {ours / theirs:.3f} (pairwise {min(pairs):.3f} to {max(pairs):.3f}); "
        f"expected {expected}"
    )
    return ours / theirs


def figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Discards everything printed to standard output; lehr's screen writes to the descriptor itself."""
    sys.stdout.flush()
    screen, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(screen, 1)
        os.close(screen)
        os.close(nowhere)
