"""Jobs as plain dictionaries: written down, told apart, hashed, and described for editors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from lehr.job.renamed import with_first_names
from lehr.job.text import show

NOT_DEFINING = ("name", "notes", "notify", "storage", "time_limit", "tracking", "workers")
"""Fields that say where and under which name a job runs, not what it computes."""

MAY_CHANGE = (
    "name",
    "notes",
    "notify",
    "storage",
    "time_limit",
    "tracking",
    "workers",
    "base.workers",
    "budget",
    "train.early_stopping.patience",
    "train.stop_on",
    "recipe.stop_after",
    "compare_scratch",
    "train.checkpoint",
)
"""Fields, with what is in them, that may change under one name: the run stays the same run."""

ADDED: dict[str, dict[str, Any]] = {
    "": {"task": {"name": "classification"}, "metrics": [], "callbacks": []},
    "base": {"task": {"name": "classification"}, "metrics": [], "callbacks": []},
    "data": {
        "columns": {"image": None, "label": None},
        "channels": "auto",
        "pixel_range": None,
        "decode": "full",
        "split": None,
        "group": None,
        "stratify": "auto",
        "fold": None,
        "shards": 16,
    },
    "model": {"preprocessing": None},
    "backbone": {"preprocessing": None},
}
"""By section (the job itself is the empty one), fields that jobs did not have at first: with these values, the hash of
a job stays what it was."""

Changes = dict[str, tuple[Any, Any]]
"""(old, new) by dotted path; None stands for a field that is not there."""


def to_dict(job: BaseModel) -> dict[str, Any]:
    """The job as resolved: plain values, every default filled in. `from_dict` reads it back to an equal job."""
    return job.model_dump(mode="json")


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> Changes:
    """What differs between two jobs."""
    found: Changes = {}
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found |= {f"{key}.{path}": pair for path, pair in difference(before, after).items()}
        elif before != after:
            found[key] = (before, after)
    return found


def describe_changes(changes: Changes) -> str:
    """`optimizer.lr: 0.1 -> 0.05; schedule.name: constant -> cosine` on one line; empty when nothing differs."""
    return "; ".join(f"{path}: {_bare(before)} -> {_bare(after)}" for path, (before, after) in changes.items())


def changes_of_run(old: Mapping[str, Any], new: Mapping[str, Any]) -> Changes:
    """The differences that make `new` another run than `old`: all but those of `MAY_CHANGE`.

    More epochs are among them, as `{"train.epochs": (20, 40)}`. They may change too where the steps already taken keep
    their learning rate, which only somebody who sees the run folder can tell (`lehr.driver.run_folder.keeps_rate`).
    """
    return {
        path: pair
        for path, pair in difference(old, new).items()
        if not any(path == allowed or path.startswith(f"{allowed}.") for allowed in MAY_CHANGE)
    }


def extends(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a finished run of `old` has something left to do for `new`: more epochs, or another budget."""
    epochs = [(each.get("train") or {}).get("epochs") or 0 for each in (old, new)]
    return epochs[1] > epochs[0] or old.get("budget") != new.get("budget")


def _bare(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) and value and len(value) <= 60 and value.isprintable() else show(value)


def job_hash(job: BaseModel) -> str:
    """16 hex digits that stay the same as long as what defines the run does; see `NOT_DEFINING`."""
    defining = {
        key: value
        for key, value in _with_first_fields(with_first_names(to_dict(job))).items()
        if key not in NOT_DEFINING
    }
    text = json.dumps(defining, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _with_first_fields(value: Any, key: str = "") -> Any:
    """The same job without the fields that were added later, where they have their defaults."""
    if not isinstance(value, Mapping):
        return value
    added = ADDED.get(key, {})
    kept = {name: item for name, item in value.items() if name not in added or item != added[name]}
    return {name: _with_first_fields(item, name) for name, item in kept.items()}
