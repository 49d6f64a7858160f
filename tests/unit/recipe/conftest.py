"""Recipes at tiny scale, in this process and without Ray."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from lehr.data.load import OpenedSources
from lehr.job import TrainJob, from_dict, load
from lehr.kinds import run_job
from lehr.runs import RunFolder

BASE: dict[str, Any] = {
    "data": {"source": "digits"},
    "model": {"name": "small_cnn", "width": 8},
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    "train": {"epochs": 2, "batch_size": 64, "evaluated_training_rows": 100},
}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tiny layers are slower on several threads, above all when other processes use the cores."""
    before = torch.get_num_threads()
    monkeypatch.setattr("lehr.trials.local.cores", lambda: 1)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def cook(tmp_path: Path) -> Callable[..., RunFolder]:
    """Runs a recipe of the tiny base with dotted overrides of the job, in this process, and returns its run folder."""

    def run(**overrides: Any) -> RunFolder:
        shutil.copy(Path(__file__).with_name("broken.py"), tmp_path)
        (tmp_path / "job.yaml").write_text(yaml.safe_dump({"kind": "recipe", "name": "job", "base": BASE}))
        changes = {path.replace("__", "."): value for path, value in overrides.items()}
        return run_job(load(tmp_path / "job.yaml", {"storage": str(tmp_path / "runs"), **changes}), debug=True)

    return run


@pytest.fixture
def shuffled_labels(tmp_path: Path) -> Path:
    """The digits with labels that are unrelated to them, as a Parquet file."""
    job = from_dict({"data": BASE["data"]})
    assert isinstance(job, TrainJob)
    digits = OpenedSources(job).decode()["train"]
    labels = np.random.default_rng(0).permutation(digits.labels)
    images = [bytes(pixels) for pixels in png(digits.pixels)]
    table = pa.table({"image": images, "label": labels.tolist()}).replace_schema_metadata(
        {"classes": ",".join(digits.classes)}
    )
    pq.write_table(table, tmp_path / "shuffled.parquet")
    return tmp_path / "shuffled.parquet"


def png(pixels: np.ndarray) -> list[bytes]:
    """Each image as a PNG file."""
    import io

    from PIL import Image

    found = []
    for image in pixels:
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer := io.BytesIO(), format="png")
        found.append(buffer.getvalue())
    return found
