"""What an agent reads of runs and starts, through a real client of the Model Context Protocol."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

import lehr
from lehr.agent import Budget, Tools
from lehr.agent.server import make_server

pytest.importorskip("mcp.server.mcpserver", reason="the mcp package is not installed")
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

JOB: dict[str, Any] = {
    "kind": "train",
    "data": {"source": "digits", "limit": 100, "validation": 0.2},
    "model": {"name": "small_cnn", "width": 8},
    "train": {"epochs": 2, "batch_size": 50},
}
READING = {
    "list_runs", "show_run", "diagnose_run", "compare_runs", "best_job", "query", "job_schema", "check_job",
}  # fmt: skip
WORKING = {"start_run", "stop_run", "show_budget"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LEHR_STATE", str(tmp_path / "state"))


@pytest.fixture
def run() -> str:
    """A finished training."""
    return lehr.run({**JOB, "name": "digits"}, debug=True).name


def tools(hours: float = 0.0) -> Tools:
    storage = str(Path("runs").absolute())
    return Tools(storage, Budget(hours, storage))


def call(made: Tools, tool: str, **given: Any) -> tuple[bool, Any]:
    """(whether it was refused, what was answered)."""

    async def asked() -> tuple[bool, Any]:
        async with Client(make_server(made)) as client:
            answer = await client.call_tool(tool, given)
            text = "".join(each.text for each in answer.content if hasattr(each, "text"))
            found = answer.structured_content
            if answer.is_error or found is None:
                return bool(answer.is_error), text
            return False, found.get("result", found)

    return anyio.run(asked)


def listed(made: Tools) -> dict[str, bool]:
    """The tools, and whether each says that it only reads."""

    async def asked() -> dict[str, bool]:
        async with Client(make_server(made)) as client:
            return {
                tool.name: bool(tool.annotations and tool.annotations.read_only_hint)
                for tool in (await client.list_tools()).tools
            }

    return anyio.run(asked)


def test_without_a_budget_nothing_can_be_started() -> None:
    assert listed(tools()) == dict.fromkeys(READING, True)
    assert listed(tools(hours=1)) == {**dict.fromkeys(READING, True), **dict.fromkeys(WORKING, False)}


def test_it_reads_what_the_commands_tell(run: str) -> None:
    made = tools()
    _, rows = call(made, "list_runs")
    assert not rows[0]["problem"]
    assert [(row["name"], row["status"], row["epochs_done"]) for row in rows] == [("digits", "finished", 2)]
    _, shown = call(made, "show_run", run=run)
    assert (len(shown["epochs"]), shown["job"]["train"]["epochs"]) == (2, 2)
    _, diagnosis = call(made, "diagnose_run", run=run)
    assert diagnosis["findings"]
    _, both = call(made, "compare_runs", runs=[run, run])
    assert both[0]["best"]["value"] == rows[0]["best"]
    _, found = call(made, "query", select="select run, best_epoch from runs")
    assert found["columns"] == ["run", "best_epoch"]
    assert found["rows"][0][0] == "digits"
    assert "epochs" in call(made, "query")[1]
    _, schema = call(made, "job_schema", kind="search")
    assert "Budget" in str(schema["$defs"].keys())
    assert "width: 8" in call(made, "best_job", run=run)[1]


@pytest.mark.parametrize(
    ("tool", "given", "sentence"),
    [
        ("show_run", {"run": "digit"}, 'no run "digit" in '),
        ("show_run", {"run": "../../etc"}, "../../etc is not the name of a run"),
        ("show_run", {"run": "/etc"}, "/etc is not the name of a run"),
        ("show_run", {"run": "file:///etc"}, "file:///etc is not the name of a run"),
        ("query", {"select": "select * from read_text('/etc/passwd')"}, "disabled"),
        ("job_schema", {"kind": "predict"}, "predict is not a kind that may be started; allowed: train, "),
        ("check_job", {"job": {"kind": "train", "optimizer": {"lr": -1}}}, "optimizer.lr: "),
        ("check_job", {"job": {"storage": "/tmp"}}, "storage: is for the person to decide; leave it out"),
        ("check_job", {"job": {"notify": "https://example.org"}}, "notify: is for the person to decide"),
        ("check_job", {"job": {"kind": "predict"}}, "kind: predict is not started by an agent"),
        ("check_job", {"job": {"model": "os:system"}}, "names os:system"),
    ],
)
def test_what_it_may_not_is_refused_in_a_sentence(tool: str, given: dict[str, Any], sentence: str, run: str) -> None:
    refused, told = call(tools(), tool, **given)
    assert refused
    assert sentence in told
    assert "Traceback" not in told


def test_a_budget_is_taken_when_a_job_starts_and_given_back_when_it_has_ended() -> None:
    budget = tools(hours=1).budget
    entry = budget.take("one", 3000)
    refused, told = call(tools(hours=1), "start_run", job=JOB, name="two", minutes=20)
    assert refused
    assert "two would take up to 20 min 00 s, and 10 min 00 s of 1 hours in 24 are left; ask for less" in told
    assert not Path("runs").exists(), "what is over the budget began"
    from dataclasses import replace

    budget.note(entry, replace(entry, used=60.0))
    assert budget.left == 3540
    assert tools(hours=1).budget.left == 3540, "another server of the same folder does not know"
    old = replace(entry, started=time.time() - 86401)
    budget.note(replace(entry, used=60.0), old)
    assert budget.left == 3600


def test_a_process_that_is_gone_gives_its_time_back() -> None:
    from dataclasses import replace

    budget = tools(hours=1).budget
    entry = budget.take("gone", 3600)
    budget.note(entry, replace(entry, process=2**22 - 1, process_began=1.0, started=entry.started - 30))
    assert 3560 < budget.left < 3580


def test_a_job_without_time_or_with_a_mistake_takes_nothing() -> None:
    made = tools(hours=1)
    assert "0 minutes are too few; allowed: 0.5 or more" in call(made, "start_run", job=JOB, name="x", minutes=0)[1]
    wrong = {**JOB, "optimizer": {"name": "lionn"}}
    assert 'optimizer.name: "lionn" is not an optimizer' in call(made, "start_run", job=wrong, name="x", minutes=1)[1]
    assert "x/y" in call(made, "start_run", job=JOB, name="x/y", minutes=1)[1]
    assert made.budget.left == 3600


@pytest.mark.slow  # starts a command and Ray
@pytest.mark.ray
def test_a_job_is_started_limited_and_stopped(tmp_path: Path) -> None:
    """By the command itself, over standard input and output."""
    words = ["-m", "lehr", "mcp", "--storage", "runs", "--hours-a-day", "1"]

    server = StdioServerParameters(command=sys.executable, args=words, env=dict(os.environ))

    async def story() -> None:
        async with Client(stdio_client(server)) as client:

            async def answered(tool: str, given: dict[str, Any]) -> dict[str, Any]:
                answer = await client.call_tool(tool, given)
                assert not answer.is_error, answer.content
                found = answer.structured_content
                assert found is not None
                return found

            long = {**JOB, "train": {"epochs": 100_000, "batch_size": 50}}
            told = await answered("start_run", {"job": long, "name": "long", "minutes": 10})
            assert told["hours_left"] == pytest.approx(1 - 10 / 60, abs=1e-3)
            assert "run folder: " in told["told"]
            with anyio.fail_after(120):
                while not (await answered("show_run", {"run": "long"}))["epochs"]:
                    await anyio.sleep(0.5)
                await answered("stop_run", {"run": "long"})
                while not (left := await answered("show_budget", {}))["started"][0]["ended"]:
                    await anyio.sleep(0.5)
            assert left["hours_left"] > 1 - 10 / 60
            shown = await answered("show_run", {"run": "long"})
            assert (shown["status"], shown["job"]["time_limit"]) == ("stopped", "600s")
            assert "stopped by an agent" in str(shown["events"])

    anyio.run(story)
