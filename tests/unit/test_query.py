"""SQL over all runs: what it finds equals what the runs say, and it reads nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support import TINY, tiny, train_here
from typer.testing import CliRunner

import lehr
from lehr.cli.main import app
from lehr.errors import LehrError
from lehr.query import ask, tables
from lehr.runs import Folder, RunFolder

pytest.importorskip("duckdb", reason="DuckDB is part of the test extra")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("runs")
    train_here(tiny(train__epochs=2), place / "one")
    base = {**TINY, "train": {**TINY["train"], "epochs": 1}}
    space = {"optimizer.lr": [0.05, 0.0001]}
    search = {"kind": "search", "name": "s", "method": "grid", "base": base, "space": space, "storage": str(place)}
    lehr.run(search, debug=True)
    RunFolder.create(Folder.at(place / "new"), {"kind": "train"})
    return str(place)


def test_runs_and_their_trainings_are_tables(storage: str) -> None:
    found = ask("select run, kind, state, metric, best, epochs from runs order by run", storage)
    assert found.columns == ("run", "kind", "state", "metric", "best", "epochs")
    one = lehr.Run(f"{storage}/one")
    assert [row[:3] for row in found.rows] == [
        ("new", "train", "new"),
        ("one", "train", "finished"),
        ("s", "search", "finished"),
    ]
    assert found.rows[1][3:] == ("validation_accuracy", one.best["value"], 2)
    assert ask("select run from trainings order by run", storage).rows == [("s/trials/0000",), ("s/trials/0001",)]
    best = ask("select job->>'$.optimizer.lr' as lr, best from trainings order by best desc limit 1", storage)
    assert best.rows == [("0.05", lehr.Run(f"{storage}/s").best["value"])]


def test_epochs_steps_and_events_equal_the_records(storage: str) -> None:
    one = RunFolder.open(f"{storage}/one")
    found = ask("select epoch, validation_loss from epochs where run = 'one' order by epoch", storage)
    assert found.rows == [(row["epoch"], row["validation_loss"]) for row in one.epochs().to_pylist()]
    found = ask("select step, loss from steps where run = 'one' order by step", storage)
    assert found.rows == [(row["step"], row["loss"]) for row in one.steps().to_pylist()]
    found = ask("select kind from events where run = 'one' order by time", storage)
    assert [kind for (kind,) in found.rows] == [event["kind"] for event in one.events()]
    assert ask("select count(distinct run) from epochs", storage).rows == [(3,)]


def test_a_query_reaches_nothing_but_the_tables(storage: str, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    for sql in (
        f"select * from read_csv('{tmp_path}/secret.csv')",
        f"select * from '{tmp_path}/secret.csv'",
        f"copy (select 1) to '{tmp_path}/out.csv'",
        f"attach '{tmp_path}/new.db'",
        "install httpfs",
        "set enable_external_access = true",
    ):
        with pytest.raises(LehrError, match="DuckDB"):
            ask(sql, storage)
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


def test_a_mistake_in_a_query_is_one_error_that_lists_the_tables(storage: str) -> None:
    answer = CliRunner().invoke(app, ["query", "select best from rums", "--storage", storage])
    assert answer.exit_code == 1
    with pytest.raises(LehrError, match=r"rums(.|\n)*Tables: runs, trainings, epochs, steps, events"):
        ask("select best from rums", storage)


def test_columns_of_the_same_name_stay_apart(storage: str) -> None:
    assert ask("select 1 as a, 2 as a, 3 as a", storage).columns == ("a", "a_2", "a_3")


def test_a_query_is_printed_as_a_table_as_csv_and_as_json(storage: str) -> None:
    def printed(*options: str) -> str:
        answer = CliRunner().invoke(app, ["query", *options, "--storage", storage])
        assert answer.exit_code == 0, answer.output
        return answer.stdout

    sql = "select run, best_epoch from runs where kind = 'search'"
    assert printed(sql, "--csv").splitlines()[0] == "run,best_epoch"
    assert json.loads(printed(sql, "--json"))[0]["run"] == "s"
    assert printed(sql).split()[:2] == ["run", "best_epoch"]
    assert "and 50 more rows" in printed("select * from range(150)")
    described = printed()
    assert all(f"{name}: " in described for name in tables())


def test_of_an_empty_storage_every_table_is_empty(tmp_path: Path) -> None:
    for name in tables():
        assert ask(f"select count(*) from {name}", str(tmp_path)).rows == [(0,)]
