"""Prediction and ensembles on a real Ray cluster: the same rows as in one process, whichever worker predicts them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.unit.predict.conftest import make_run
from tests.unit.predict.test_rows import LABELS, PIXELS, ROWS, parquet

from lehr import Run
from lehr.data.sources import open_source
from lehr.job import DataSection, WorkersSection
from lehr.predict import EnsembleDescription, EnsembleMember, load_predictor, source_parts
from lehr.predict.source_parts import prepare_source
from lehr.predict.worker import PredictionSpec, predict_locally
from lehr.runs import Folder, RunFolder

pytestmark = pytest.mark.ray


@pytest.mark.usefixtures("ray_cluster")
def test_a_pool_of_actors_writes_the_same_as_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all members in one pass, unreadable rows in their places, and every row once."""
    from lehr.predict.ray_predict import predict_on_ray
    from lehr.ray_cluster.connection import Resources

    monkeypatch.setattr(source_parts, "PART_ROWS", 14)
    run = make_run(tmp_path / "run")
    for number in (1, 2):
        make_run(tmp_path / f"run/members/{number:02}", seed=number)
    members = (EnsembleMember("members/01", 1.0), EnsembleMember("members/02", 3.0))
    EnsembleDescription("probabilities", members, "equal").write(run.folder)
    section = DataSection(source="parquet", path=str(parquet(tmp_path / "data.parquet", bad=(30,))))
    predictor = load_predictor(run.folder)
    source = prepare_source(open_source(section, lambda field, what: AssertionError(what)), predictor)  # type: ignore[arg-type,return-value]
    numbers = list(range(len(source.parts)))

    def spec(out: str) -> PredictionSpec:
        out_folder = Folder.at(tmp_path / out)
        return PredictionSpec(run.folder, out_folder, source, predictor.wanted, True, 8, str(tmp_path), "fingerprint")

    here = list(predict_locally(spec("here"), numbers, 1))
    there = list(predict_on_ray(spec("there"), numbers, WorkersSection(count=2), Resources(2, 0)))
    assert sorted(there, key=lambda result: result.number) == here
    assert sum(result.rows for result in there) == ROWS
    one, other = pq.read_table(tmp_path / "here"), pq.read_table(tmp_path / "there")
    assert other["id"].to_pylist() == list(range(ROWS))
    assert other["label"].to_pylist() == LABELS.tolist()
    assert other["probabilities"].null_count == 1
    for name in ("probabilities", "member 01", "member 02"):
        kept = [row for row in range(ROWS) if row != 30]
        ours, theirs = (np.stack(table[name].to_numpy()[kept].tolist()) for table in (one, other))
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.slow
def test_an_ensemble_trained_on_ray_predicts_on_ray(tmp_path: Path) -> None:
    job = {
        "kind": "ensemble",
        "method": "independent",
        "members": [{"seed": 1}, {"optimizer.lr": 1e20}, {"seed": 2}],
        "compare": False,
        "base": {
            "data": {"source": "digits", "limit": 300},
            "model": {"name": "small_cnn", "width": 8},
            "optimizer": {"lr": 0.05, "momentum": 0.9},
            "train": {"epochs": 3, "batch_size": 64},
            "workers": 1,
        },
    }
    Path("job.yaml").write_text(json.dumps(job))
    parquet(tmp_path / "data.parquet")
    for words in (["run", "job.yaml"], ["predict", "job", "data.parquet", "out", "--members"]):
        done = subprocess.run(
            [sys.executable, "-m", "lehr", *words], capture_output=True, text=True, timeout=250, check=False
        )
        assert done.returncode == 0, done.stderr
    members = RunFolder.open("runs/job").children("members")
    assert [member.status() for member in members] == ["finished", "failed", "finished"]
    table = pq.read_table("out")
    assert [name for name in table.column_names if name.startswith("member")] == ["member 01", "member 03"]
    expected = Run("runs/job").predict(PIXELS[..., None])
    np.testing.assert_allclose(np.stack(table["probabilities"].to_numpy().tolist()), expected, atol=1e-6)


def test_a_cluster_of_one_cpu_predicts(tmp_path: Path) -> None:
    """The one actor holds the CPU, and decoding must not wait for it."""
    code = f"""
import ray
from pathlib import Path
from lehr.data.sources import open_source
from lehr.job import DataSection, WorkersSection
from lehr.predict import load_predictor
from lehr.predict.ray_predict import predict_on_ray
from lehr.predict.source_parts import prepare_source
from lehr.predict.worker import PredictionSpec
from lehr.ray_cluster.connection import Resources
from lehr.runs import Folder

ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
predictor = load_predictor(Folder.at({str(tmp_path / "run")!r}))
section = DataSection(source="parquet", path={str(tmp_path / "data.parquet")!r})
source = prepare_source(open_source(section, None), predictor)
run, out = Folder.at({str(tmp_path / "run")!r}), Folder.at({str(tmp_path / "out")!r})
spec = PredictionSpec(run, out, source, predictor.wanted, False, 8, {str(tmp_path)!r}, "f")
there = Resources(1, 0, ((1.0, 0.0),))
print("rows", sum(part.rows for part in predict_on_ray(spec, range(len(source.parts)), WorkersSection(), there)))
"""
    make_run(tmp_path / "run")
    parquet(tmp_path / "data.parquet")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=False)
    assert f"rows {ROWS}" in done.stdout, done.stderr
