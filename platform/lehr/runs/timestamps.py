"""Time as the run folder writes it: UTC, ISO 8601 with microseconds and offset (`2031-05-01T12:00:00.000000+00:00`)."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def seconds_since(moment: str) -> float:
    """Seconds from `moment` to now by this machine's clock; 0 for one in the future."""
    return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
