"""`lehr ui`: what it shows, who may look, and that it changes nothing."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import CookieJar, web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from lehr.job import from_dict, to_dict
from lehr.kinds import run_job
from lehr.runs import Folder, Progress, RunFolder, TrainingProgress
from lehr.ui import kept
from lehr.ui.app import make_app
from lehr.ui.index import Index, row_of

TINY = {
    "kind": "train",
    "name": "tiny",
    "data": {"source": "digits", "limit": 60},
    "model": {"name": "small_cnn", "width": 8},
    "train": {"epochs": 1, "batch_size": 30},
}
HERE = frozenset({"127.0.0.1", "localhost"})


def made(storage: Path, name: str, **progress: Any) -> RunFolder:
    """A run whose progress says this."""
    run = RunFolder.create(Folder.at(storage / name), to_dict(from_dict({"kind": "train"})))
    if progress:
        run.write_progress(Progress(**progress))
    return run


def asked(storage: Path, do: Callable[[TestClient[Any, Any]], Awaitable[None]], token: str = "right") -> None:
    """Calls `do` with a client of the server, which knows the token."""

    async def run() -> None:
        app: web.Application = make_app(Folder.at(storage), "right", HERE)
        async with TestClient(TestServer(app), cookie_jar=CookieJar(unsafe=True)) as client:
            if token:
                await client.get(f"/?token={token}")
            await do(client)

    asyncio.run(run())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ── who may look ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/", "/runs", "/run/a", "/run/a/report", "/run/a/log", "/compare?runs=a,b"])
def test_nobody_sees_anything_without_the_token(path: str, tmp_path: Path) -> None:
    made(tmp_path, "a")

    async def do(client: TestClient[Any, Any]) -> None:
        for address in (path, f"{path}{'&' if '?' in path else '?'}token=wrong"):
            answer = await client.get(address)
            assert answer.status == 403
            assert await answer.text() == "open the address that `lehr ui` has printed: it brings a token"

    asked(tmp_path, do, token="")


def test_the_token_leaves_the_address_for_a_cookie_that_scripts_cannot_read(tmp_path: Path) -> None:
    async def do(client: TestClient[Any, Any]) -> None:
        answer = await client.get("/compare?runs=a,b&token=right", allow_redirects=False)
        assert (answer.status, answer.headers["Location"]) == (303, "/compare?runs=a%2Cb")
        assert "HttpOnly" in answer.headers["Set-Cookie"]
        assert "SameSite=Strict" in answer.headers["Set-Cookie"]
        assert (await client.get("/runs")).status == 200

    asked(tmp_path, do, token="")


def test_a_page_elsewhere_cannot_reach_it_under_a_name_of_its_own(tmp_path: Path) -> None:
    async def do(client: TestClient[Any, Any]) -> None:
        answer = await client.get("/runs", headers={"Host": "evil.example:8090"})
        assert answer.status == 421

    asked(tmp_path, do)


@pytest.mark.parametrize("name", ["%2e%2e", "..%2fa", "%2e%2e%2f%2e%2e%2fetc", ".hidden", "nothing", "a%5c..%5cb"])
def test_only_runs_of_the_storage_are_shown(name: str, tmp_path: Path) -> None:
    made(tmp_path, "outside")
    made(tmp_path / "storage", "a")

    async def do(client: TestClient[Any, Any]) -> None:
        answer = await client.get(URL(f"/run/{name}", encoded=True))  # as it is, for a browser would tidy it up
        assert answer.status == 404

    asked(tmp_path / "storage", do)


def test_a_hostile_name_is_only_text(tmp_path: Path) -> None:
    made(tmp_path, "a", status="failed", message="</script><script>alert(1)</script>")

    async def do(client: TestClient[Any, Any]) -> None:
        page = await (await client.get("/run/a")).text()
        assert "<script>alert(1)" not in page
        policy = (await client.get("/run/a")).headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe-inline" not in policy.partition("style-src")[0]

    asked(tmp_path, do)


# ── what it shows ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_table_has_every_run_and_only_what_changed_is_sent_again(tmp_path: Path) -> None:
    made(tmp_path, "a", status="finished", message="All epochs done.")
    made(tmp_path, "b")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "job.yaml").write_text("{")
    (tmp_path / "photos").mkdir()
    index = Index(Folder.at(tmp_path))
    index.refresh()
    first = index.since(0)
    assert {row["name"]: row["state"] for row in first["rows"]} == {"a": "finished", "b": "new", "broken": "unreadable"}
    assert first["total"] == 3
    assert {row["kind"] for row in first["rows"] if row["name"] != "broken"} == {"train"}

    index.refresh()
    assert index.since(first["version"])["rows"] == []
    training = TrainingProgress(attempt=1, workers=1, step=5, total_steps=20, epoch=1.0, epochs=4, epochs_done=1)
    RunFolder.open(tmp_path / "b").write_progress(Progress(status="running", training=training))
    shutil.rmtree(tmp_path / "a")
    index.refresh()
    later = index.since(first["version"])
    (row,) = later["rows"]
    assert (row["name"], row["epoch"], row["done"]) == ("b", "1/4", 0.25)
    assert later["gone"] == ["a"]


def test_a_second_server_shows_what_the_first_one_read_and_reads_only_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEHR_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(kept, "FEWEST", 2)
    storage = tmp_path / "runs"
    for name in "abcd":
        made(storage, name, status="finished", message="All epochs done.")
    made(storage, "still").begin_attempt(workers=1)
    first = Index(Folder.at(storage))
    first.refresh()

    (storage / "a" / "diagnosis.json").write_text('{"findings": [{"title": "Overfitting"}]}')
    shutil.rmtree(storage / "b")
    made(storage, "new")
    second, opened = Index(Folder.at(storage)), list[str]()

    def noted(run: RunFolder) -> dict[str, Any]:
        opened.append(run.name)
        return row_of(run)

    monkeypatch.setattr("lehr.ui.index.row_of", noted)
    second.recall()
    assert set(second.rows) == {"a", "b", "c", "d"}, "one that has not ended is not kept"
    second.refresh()
    assert sorted(opened) == ["a", "new", "still"]
    rows = {row["name"]: row for row in second.since(0)["rows"]}
    assert set(rows) == {"a", "c", "d", "new", "still"}
    assert rows["a"]["verdict"] == "Overfitting"
    third = Index(Folder.at(storage))
    third.refresh()
    plain = {row["name"]: {**row, "version": 0} for row in third.since(0)["rows"]}
    assert plain == {name: {**row, "version": 0} for name, row in rows.items()}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"form": 1, "uri": "elsewhere", "rows": {}}', b"\xff" * 9])
def test_a_damaged_file_of_kept_rows_is_as_none(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEHR_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(kept, "FEWEST", 1)
    kept.write("here", {"a": ((1, 2), {"name": "a"})})
    assert kept.read("here") == {"a": ((1, 2), {"name": "a", "version": 0})}
    kept.file_of("here").write_bytes(content)
    assert kept.read("here") == {}


def test_a_storage_that_is_not_there_yet_is_told(tmp_path: Path) -> None:
    index = Index(Folder.at(tmp_path / "runs"))
    index.refresh()
    assert index.since(0)["problem"].endswith("runs is not there yet")
    made(tmp_path / "runs", "a")
    index.refresh()
    assert (index.since(0)["problem"], len(index.since(0)["rows"])) == ("", 1)


def test_a_finished_run_shows_its_own_report_and_any_other_one_of_its_record_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = run_job(from_dict(TINY), debug=True)
    own = run.folder.read("report.html").decode()
    (tmp_path / "runs" / "going on").mkdir()
    shutil.copytree(tmp_path / "runs" / "tiny", tmp_path / "runs" / "going on", dirs_exist_ok=True)
    (tmp_path / "runs" / "going on" / "report.html").unlink()

    def without_commands(page: str) -> str:  # which hold the run's path
        return re.sub(r"lehr best .*?(?=</)", "", page)

    before = contents(tmp_path / "runs")

    async def do(client: TestClient[Any, Any]) -> None:
        assert '"name": "tiny"' in await (await client.get("/run/tiny")).text()
        assert await (await client.get("/run/tiny/report")).text() == own
        answer = await client.get("/run/going%20on/report")
        drawn = await answer.text()
        assert answer.status == 200, drawn
        assert without_commands(drawn.replace("going on", "tiny")) == without_commands(own)
        both = await (await client.get("/compare?runs=tiny,going%20on")).text()
        assert "Comparison of 2 runs" in both

    asked(tmp_path / "runs", do)
    assert contents(tmp_path / "runs") == before


def test_what_cannot_be_shown_is_said_in_a_sentence(tmp_path: Path) -> None:
    made(tmp_path, "a")

    async def do(client: TestClient[Any, Any]) -> None:
        for path, status, words in (
            ("/compare?runs=a", 400, "1 runs; allowed: 2 to 12"),
            ("/run/a/log", 404, "this run has no log here"),
            ("/nothing", 404, "Not Found"),
        ):
            answer = await client.get(path)
            assert (answer.status, await answer.text()) == (status, words)
        assert (await client.post("/runs")).status == 405

    asked(tmp_path, do)


def test_nothing_is_asked_of_anybody_else() -> None:
    for name in ("table.html", "run.html", "style.css"):
        text = (Path(__file__).parents[3] / "platform/lehr/ui" / name).read_text()
        assert "://" not in text
        assert "@import" not in text


def test_health_needs_no_token(tmp_path: Path) -> None:
    async def do(client: TestClient[Any, Any]) -> None:
        assert (await client.get("/health")).status == 200

    asked(tmp_path, do, token="")
