"""TensorBoard's event files, read by TensorBoard's own reader."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lehr.errors import JobError
from lehr.other_tools.recorded import Recorded, curve

PATTERN = "events.out.tfevents*"
SPLITS = ("train", "training", "validation", "val", "test", "eval")  # Keras writes a folder for each split


def is_folder(path: Path) -> bool:
    """Whether event files are in a folder, or in one directly below it."""
    return any(path.glob(PATTERN)) or any(path.glob(f"*/{PATTERN}"))


def read(path: Path) -> list[Recorded]:
    """The scalars of an event file, or of a folder of them: a training for each folder, except folders of splits.

    Raises:
        JobError: TensorBoard is not installed, or there are no scalars.
    """
    folders = _folders(path)
    parts = {name: _scalars(each) for name, each in folders.items()}
    of_splits = {name: tags for name, tags in parts.items() if name in SPLITS}
    merged = {f"{split}/{tag}": points for split, tags in of_splits.items() for tag, points in tags.items()}
    runs = {name: tags for name, tags in parts.items() if name not in SPLITS and tags}
    if merged:
        first = next(iter(runs), "")
        runs = {**runs, first: {**runs.get(first, {}), **merged}}
    several = len(runs) > 1
    return [_recorded(tags, name if several else "") for name, tags in sorted(runs.items())]


def _folders(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {"": path}
    found = {each.name: each for each in sorted(path.iterdir()) if each.is_dir() and any(each.glob(PATTERN))}
    return {"": path, **found} if any(path.glob(PATTERN)) else found


def _scalars(path: Path) -> dict[str, dict[float, float]]:
    reader = _reader()(str(path), size_guidance={"scalars": 0, "tensors": 0})
    try:
        reader.Reload()
    except Exception as error:
        raise JobError(f"{path} cannot be read as TensorBoard's events: {error}") from None
    tags = reader.Tags()
    found = {tag: {float(each.step): float(each.value) for each in reader.Scalars(tag)} for tag in tags["scalars"]}
    for tag in tags["tensors"]:  # scalars of TensorFlow 2
        values = {float(each.step): _number(each.tensor_proto) for each in reader.Tensors(tag)}
        known = {step: value for step, value in values.items() if value is not None}
        found |= {tag: known} if known else {}
    return found


def _number(proto: Any) -> float | None:
    from tensorboard.util import tensor_util

    try:
        value = tensor_util.make_ndarray(proto)
    except TypeError:
        return None
    return float(value) if value.size == 1 and value.dtype.kind == "f" else None


def _reader() -> Any:
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        what = "TensorBoard's event files are read with the package tensorboard, which is not installed"
        raise JobError(f"{what}: pip install 'lehr[tensorboard]'") from None
    return EventAccumulator


def _recorded(tags: dict[str, dict[float, float]], run: str) -> Recorded:
    epochs = next((max(points.values()) + 1 for tag, points in tags.items() if tag == "epoch" and points), math.nan)
    columns = {tag: curve(tag, points) for tag, points in tags.items() if tag != "epoch" and points}
    return Recorded("step", columns, epochs, run, "TensorBoard")
