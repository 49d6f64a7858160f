"""Times as the run folder writes them: UTC, ISO 8601 with microseconds and offset."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """This moment, such as `2031-05-01T12:00:00.000000+00:00`."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def seconds_since(moment: str) -> float:
    """Seconds from `moment` to now by this machine's clock; 0 for one in the future."""
    return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
