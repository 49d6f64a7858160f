"""`lehr diagnose --probe` as a person types it: what it says, what it refuses, and what it keeps."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.support import tiny, train_here

from lehr.cli.diagnose import diagnose
from lehr.errors import JobError, LehrError, RunError, StorageError
from lehr.job import from_dict, to_dict
from lehr.runs import Folder, RunFolder


@pytest.fixture(scope="module")
def slow_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose rate is far too low."""
    storage = tmp_path_factory.mktemp("storage")
    return train_here(tiny(optimizer__lr=1e-5, train__epochs=6, data__augment=[]), storage / "slow")


def test_without_probes_the_whole_command_is_proposed(slow_run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    uri = str(slow_run.folder.local_path)
    diagnose(uri)
    said = capsys.readouterr().out
    assert f"To find out: lehr diagnose {uri} --probe" in said
    assert "Could also be: " in said


def test_with_probes_the_cause_is_named_and_kept_and_nothing_else_is_written(
    slow_run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = slow_run.folder.local_path
    diagnose(str(folder))
    assert "most of the network is not trained" in capsys.readouterr().out
    before = {path: os.stat(path).st_mtime_ns for path in folder.rglob("*")}
    diagnose(str(folder), probe=True, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["cause"]["cause"] == "rate_too_low", found
    assert found["cause"]["command"].startswith("lehr run JOB optimizer.lr=")
    assert {each["name"] for each in found["probes"]} >= {"rates", "parts"}
    assert {path: os.stat(path).st_mtime_ns for path in before} == before
    assert {*folder.rglob("*")} - {*before} == {folder / "probes.json"}
    diagnose(str(folder))
    said = capsys.readouterr().out
    assert "Probes named the cause: the learning rate is too low." in said
    assert "Ruled out: most of the network is not trained." in said
    assert "most of the network is not trained (probe: weights)" not in said
    assert "To find out" not in said


def test_where_a_run_cannot_be_written_its_probes_are_only_told(
    slow_run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Folder, name: str, value: object) -> None:
        raise StorageError(f"{folder.uri}/{name}: read-only file system")

    monkeypatch.setattr(Folder, "write_json", refuse)
    diagnose(str(slow_run.folder.local_path), probe=True)
    said = capsys.readouterr().out
    assert "The cause: the learning rate is too low." in said
    assert "It is not kept with the run: " in said
    assert "read-only file system." in said


def test_probes_that_do_not_fit_are_named(slow_run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    diagnose(str(slow_run.folder.local_path), probe=True, budget="0.5ep")
    said = capsys.readouterr().out
    assert "rates  Does it learn faster" in said
    assert "Left out. The budget has no room for it." in said
    assert "of 0.5 epochs." in said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"budget": "2ep"}, "--budget: has no effect beside a diagnosis from curves alone; allowed: with --probe"),
        ({"minutes": 2.0}, "--minutes: has no effect beside a diagnosis from curves alone; allowed: with --probe"),
        ({"trust": ["x"]}, "--trust: has no effect beside a diagnosis from curves alone; allowed: with --probe"),
        ({"probe": True, "budget": "5"}, '--budget: "5" is not a duration'),
        ({"probe": True, "budget": "20%"}, "--budget: 20% is no number of epochs; allowed: above 0"),
        ({"probe": True, "budget": "0ep"}, "--budget: 0ep is no number of epochs"),
        ({"probe": True, "minutes": 0.0}, "--minutes: 0 is no time; allowed: above 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(slow_run: RunFolder, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(JobError) as refused:
        diagnose(str(slow_run.folder.local_path), **options)  # type: ignore[arg-type]
    assert str(refused.value).startswith(sentence)
    assert refused.value.exit_code == 2


def test_a_run_that_trains_no_network_of_its_own_is_refused(tmp_path: Path) -> None:
    search = from_dict({"kind": "search", "base": {}, "space": {"optimizer.lr": [0.1, 0.2]}})
    RunFolder.create(Folder.at(tmp_path / "mine"), to_dict(search))
    with pytest.raises(RunError, match="mine is a run of kind search, which has no learning curves of its own"):
        diagnose("mine", probe=True, storage=str(tmp_path))


def test_code_that_a_run_names_does_not_run_unasked(tmp_path: Path) -> None:
    job = to_dict(from_dict({"model": "somebody.nets:Net"}))
    RunFolder.create(Folder.at(tmp_path / "theirs"), job)
    with pytest.raises(LehrError, match="That is code, and somebody else may have written the run"):
        diagnose("theirs", probe=True, storage=str(tmp_path))
