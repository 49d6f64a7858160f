"""`lehr show --parameters` says of every parameter what trains it, at which rate and with which decay."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lehr.cli.main import app
from lehr.errors import LehrError
from lehr.job import from_dict, to_dict
from lehr.runs import Folder, RunFolder

JOB: dict[str, Any] = {
    "kind": "train",
    "data": {"source": "digits"},
    "model": {"name": "small_cnn", "width": 8, "norm": "batch"},
    "optimizer": {"name": "muon", "lr": 0.02, "weight_decay": 0.01},
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("mine.yaml").write_text(yaml.safe_dump(JOB))


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    app(["show", *words], standalone_mode=False, prog_name="lehr")
    return capsys.readouterr().out


def test_of_a_job_and_of_its_run(capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(capsys, "mine.yaml", "--parameters")
    titles = re.findall(r"trained by (\w+): (\d+) parameters .*rate × (\S+) = \S+, weight decay (\S+)", found)
    assert titles == [("Muon", "2", "1", "0.01"), ("AdamW", "2", "0.05", "0.01"), ("AdamW", "7", "0.05", "0")]
    assert re.search(r"features\.3\.weight +16 × 8 × 3 × 3", found)
    RunFolder.create(Folder.at("runs/mine"), to_dict(from_dict({**JOB, "name": "mine"})))
    assert shown(capsys, "mine", "--parameters") == found


def test_with_changes_and_of_the_base_of_another_kind(capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(
        capsys,
        "mine.yaml",
        "optimizer.name=sgd",
        "optimizer.decay_norms=true",
        "optimizer.weight_decay=0.01",
        "--parameters",
    )
    assert "trained by SGD: 11 parameters" in found
    Path("search.yaml").write_text(yaml.safe_dump({"kind": "search", "base": JOB, "space": {"seed": [1, 2]}}))
    assert "trained by Muon: 2 parameters" in shown(capsys, "search.yaml", "--parameters")


def test_what_has_no_effect_or_no_network_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    RunFolder.create(Folder.at("runs/mine"), to_dict(from_dict({**JOB, "name": "mine"})))
    with pytest.raises(LehrError, match=r"seed=2 has no effect on what is shown of a run; allowed: with --parameters"):
        shown(capsys, "mine", "seed=2")
    Path("predict.yaml").write_text("kind: predict\nrun: run:mine\ndata: {source: digits}\n")
    with pytest.raises(LehrError, match="a job of kind predict trains no network of its own; allowed: kind: train"):
        shown(capsys, "predict.yaml", "--parameters")
