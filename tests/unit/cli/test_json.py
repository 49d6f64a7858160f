"""What programs read: `--json` of each command that shows something is JSON, and says what the text says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support import TINY, tiny, train_here
from typer.testing import CliRunner

from lehr.cli.main import app
from lehr.cli.options import print_json
from lehr.errors import JobError, RunError
from lehr.job import from_dict
from lehr.kinds import run_job
from lehr.kinds.kept import kept_training
from lehr.runs import Folder, RunFolder


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training and a search."""
    folder = tmp_path_factory.mktemp("runs")
    train_here(tiny(train__epochs=2), folder / "one")
    base = {**TINY, "train": {**TINY["train"], "epochs": 1}}
    search = {"kind": "search", "name": "two", "base": base, "space": {"optimizer.lr": [0.01, 0.1]}}
    run_job(from_dict({**search, "storage": str(folder)}), debug=True)
    return folder


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setenv("LEHR_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("lehr.ray_cluster.local_cluster.running", lambda: None)


def lehr(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def read(*arguments: str) -> Any:
    def constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(lehr(*arguments, "--json"), parse_constant=constant)


def test_show_of_a_run(storage: Path) -> None:
    told = read("show", str(storage / "one"))
    run = RunFolder.open(storage / "one")
    assert (told["name"], told["status"], told["job"]) == ("one", "finished", run.job)
    assert told["epochs"] == run.epochs().to_pylist()
    assert told["best"]["value"] == run.progress().best.value


def test_evaluate_writes_no_picture_and_gives_the_matrix(
    storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = read("evaluate", str(storage / "one"), "digits")
    assert told["rows"] == sum(map(sum, told["confusion"])) == sum(each["rows"] for each in told["classes"].values())
    assert f"{told['accuracy']:.1%}" in lehr("evaluate", str(storage / "one"), "digits", "-o", "matrix.png")
    assert [path.name for path in tmp_path.glob("*.png")] == ["matrix.png"]


def test_evaluate_takes_changes_to_the_job_that_names_the_data(storage: Path, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("kind: train\ndata: {source: digits, split_seed: 7, validation: 0.5}\n")
    asked = ["evaluate", str(storage / "one"), str(file), "data.validation=0.1", "--split", "validation"]
    assert 170 < read(*asked)["rows"] < 190, "a tenth of 1,797"


@pytest.mark.parametrize(
    "wrong", [["no-such-run", "digits"], ["one", "no-such-data"], ["one", "digits", "--split", "x"]]
)
def test_evaluate_says_what_is_wrong_with_its_input_before_that_a_picture_exists(
    wrong: list[str], storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "confusion.png").write_text("mine")
    done = CliRunner().invoke(app, ["evaluate", *wrong, "--storage", str(storage)])
    assert done.exception
    assert "confusion.png" not in str(done.exception)
    assert (tmp_path / "confusion.png").read_text() == "mine"


def test_a_misspelt_split_gets_the_nearest(storage: Path) -> None:
    said = {"evaluate": ["digits"], "predict": ["digits", "out"]}
    for command, data in said.items():
        done = CliRunner().invoke(app, [command, str(storage / "one"), *data, "--split", "valid"])
        assert "did you mean validation? allowed: train" in str(done.exception)


def test_compare_and_best(storage: Path, tmp_path: Path) -> None:
    one, two = read("compare", str(storage / "one"), str(storage / "two"), "--out", str(tmp_path))
    assert list(tmp_path.glob("compare.*")) == []
    best = read("best", str(storage / "two"))
    assert best["best"]["value"] == two["best"]["value"]
    assert best["run"] == kept_training(RunFolder.open(storage / "two")).folder
    assert from_dict(best["job"]).kind == one["job"]["kind"] == "train"


def test_a_comparison_of_a_search_is_of_its_best_trial(storage: Path, tmp_path: Path) -> None:
    lehr("compare", str(storage / "one"), str(storage / "two"), "--out", str(tmp_path))
    assert (tmp_path / "compare.html").exists()


def test_what_keeps_no_single_training_says_so(tmp_path: Path) -> None:
    for kind in ("ensemble", "predict"):
        run = RunFolder.create(Folder.at(tmp_path / kind), {"kind": kind})
        with pytest.raises(RunError, match=f"^{kind} is a run of kind {kind}, which keeps no single training$"):
            kept_training(run)


def job_file(folder: Path, **sections: Any) -> str:
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump({"kind": "train", **TINY, **sections}))
    return str(file)


def test_show_of_a_job_is_the_whole_job_with_its_size(tmp_path: Path) -> None:
    file = job_file(tmp_path)
    text = lehr("show", file, "optimizer.lr=0.2")
    again = from_dict(yaml.safe_load(text))
    assert again.optimizer.lr == 0.2  # type: ignore[attr-defined]
    told = read("show", file, "optimizer.lr=0.2")
    assert told["job"]["optimizer"]["lr"] == 0.2
    network = from_dict(told["job"])
    assert f"# network  {told['training']['parameters']:,} parameters" in text
    assert told["training"]["steps"] == 4 * told["training"]["steps_per_epoch"]
    assert network.kind == "train"


def test_show_of_a_job_whose_data_are_elsewhere_still_shows_the_job(tmp_path: Path) -> None:
    file = job_file(tmp_path, data={"source": "parquet", "path": "s3://nobody/nothing"})
    file = job_file(tmp_path, data={"source": "parquet", "path": "/no/such/folder"})
    assert "# cannot run here: " in lehr("show", file)
    assert "/no/such/folder" in read("show", file)["problem"]


def test_check_without_a_cluster_is_a_rehearsal_here(tmp_path: Path) -> None:
    file = job_file(tmp_path)
    text = lehr("check", file)
    assert "No problems found: the job can run on this machine. Type: lehr run" in text
    assert read("check", file)["training"]["rows"]["training"] == 330
    assert list(tmp_path.iterdir()) == [tmp_path / "job.yaml"], "it starts and writes nothing"


def test_check_without_a_cluster_refuses_what_would_not_run(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="model"):
        lehr("check", job_file(tmp_path, model={"name": "no_such_network"}))
    with pytest.raises(JobError, match="--folder: has no effect beside no cluster"):
        lehr("check", job_file(tmp_path), "--folder", str(tmp_path))


def test_what_is_no_number_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"loss": float("nan"), "rows": [1e400, -1e400, 0.5], "inner": ({"x": float("nan")},)})
    told = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert told == {"loss": None, "rows": [None, None, 0.5], "inner": [{"x": None}]}
