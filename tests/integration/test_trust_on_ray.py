"""What a job may call, every process that Ray starts for it may call, without anything that this machine remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lehr
from lehr import trust

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

CODE = """
import ray
from lehr.models.small_cnn import SmallCNN

class Net(SmallCNN):
    def __init__(self, channels, outputs, width=8):
        super().__init__(channels, outputs, width=width)

def photos(path):
    return ray.data.read_parquet(path, columns=["image", "label"])
"""


def test_the_code_of_a_job_runs_in_every_process_of_it(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("mine_on_ray.py").write_text(CODE)
    Path("file").write_text("")
    monkeypatch.setenv("LEHR_STATE", "file/state")  # nothing can be remembered
    digits = Path(lehr.__file__).parent / "data/digits.parquet"
    base: dict[str, Any] = {
        "data": {"source": "mine_on_ray:photos", "path": str(digits), "limit": 200},
        "model": {"name": "mine_on_ray:Net", "width": 8},
        "train": {"epochs": 1, "batch_size": 64},
        "workers": 1,
    }
    trained = lehr.run({**base, "name": "trained", "workers": {"count": 2}})  # Ray Train's workers
    space = {"model.width": [8, 16]}
    searched = lehr.run(
        {"kind": "search", "name": "search", "method": "grid", "base": base, "space": space}
    )  # the trials' processes
    combined = lehr.run({"kind": "ensemble", "name": "both", "method": "independent", "members": ["run:trained"] * 2})
    features = {key: base[key] for key in ("data", "train", "workers")}
    transfer = {"kind": "transfer", "name": "transfer", "backbone": "run:trained", "strategy": "features"}
    transferred = lehr.run({**transfer, "base": features})  # the replicas
    data = {"source": "parquet", "path": str(digits)}
    predicted = lehr.run({"kind": "predict", "name": "predicted", "run": "run:both", "data": data})  # the actors
    for run in (trained, searched, combined, transferred, predicted):
        assert run.status == "finished"
        assert all(child.status() == "finished" for child in run.record.children("trials"))
    trust._granted.clear()
    with pytest.raises(trust.Untrusted):
        lehr.run({**transfer, "name": "theirs", "base": {**features, "data": {"source": "digits"}}})
