"""Jobs as plain dictionaries: written down, told apart, hashed, and described for editors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from lehr.job.text import show

NOT_DEFINING = ("name", "notes", "storage", "workers")
"""Fields that say where and under which name a job runs, not what it computes."""


def to_dict(job: BaseModel) -> dict[str, Any]:
    """The job as resolved: plain values, every default filled in. `from_dict` reads it back to an equal job."""
    return job.model_dump(mode="json")


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs, by dotted path, as (old, new); None stands for a field that is not there."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found |= {f"{key}.{path}": pair for path, pair in difference(before, after).items()}
        elif before != after:
            found[key] = (before, after)
    return found


def describe_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """`optimizer.lr: 0.1 -> 0.05; schedule.name: constant -> cosine` on one line; empty when nothing differs."""
    pairs = difference(old, new).items()
    return "; ".join(f"{path}: {_bare(before)} -> {_bare(after)}" for path, (before, after) in pairs)


def _bare(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) and value and len(value) <= 60 and value.isprintable() else show(value)


def job_hash(job: BaseModel) -> str:
    """16 hex digits that stay the same as long as what defines the run does; see `NOT_DEFINING`."""
    defining = {key: value for key, value in to_dict(job).items() if key not in NOT_DEFINING}
    text = json.dumps(defining, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
