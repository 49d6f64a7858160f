"""`lehr ui` in a real browser: the pages as a person uses them, by mouse and keyboard, while a run trains."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.browser import CHROMIUM, NO_CHROMIUM, Page, browser
from tests.support import tiny, train_here
from tests.unit.ui.test_ui import HERE, made

from lehr.runs import Folder, RunFolder
from lehr.training.train_step import TrainStep
from lehr.ui.app import make_app

pytestmark = pytest.mark.skipif(not CHROMIUM, reason=NO_CHROMIUM)

ROWS = "[...document.querySelectorAll('#rows tr:not(.group) .name')].map(each => each.textContent)"


def shown(storage: Path, do: Callable[[Page, str], Awaitable[None]]) -> Page:
    """Calls `do` with a page of a browser that has opened the table; it may ask nobody else and must not complain."""

    async def run() -> Page:
        runner = web.AppRunner(make_app(Folder.at(storage), "right", HERE))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert runner.addresses
        here = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            async with browser() as page:
                await page.open(f"{here}/?token=right")
                await do(page, here)
                elsewhere = [each for each in page.requested if not each.startswith((here, "data:", "blob:", "about:"))]
                assert elsewhere == []
                assert page.console == []
                return page
        finally:
            await runner.cleanup()

    return asyncio.run(run())


STEPS = 6  # in an epoch of the tiny job


class Held:
    """Holds a training after its second epoch until a file is there."""

    def __init__(self, go: Path) -> None:
        self.go = go

    def __call__(self) -> None:
        take = TrainStep.__call__

        def held(self_: TrainStep, batch: Any, rows: int, step: int) -> Any:
            while step >= 2 * STEPS and not self.go.exists():
                time.sleep(0.05)
            return take(self_, batch, rows, step)

        TrainStep.__call__ = held  # type: ignore[assignment, method-assign]


def train(folder: Path) -> None:
    train_here(tiny(train__epochs=5), folder, prepare=Held(folder.parent.parent / "go"))


def test_a_run_is_watched_while_it_trains_and_then_shows_its_report(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "digits"
    made(tmp_path / "runs", "other", status="finished")
    process = multiprocessing.get_context("spawn").Process(target=train, args=[folder])

    async def do(page: Page, here: str) -> None:
        process.start()
        await page.until(f"{ROWS}.includes('digits')", 60)
        await page.open(f"{here}/run/digits")
        epoch = "document.getElementById('epoch').textContent"
        await page.until(f"{epoch} === 'epoch 2/5'", 60)
        drawn = "document.querySelector('iframe:not(.new)')?.contentDocument?.querySelector('svg, canvas') !== null"
        await page.until(f"document.querySelector('iframe:not(.new)') !== null && {drawn}", 60)
        first = await page.value("document.querySelector('iframe:not(.new)').contentDocument.body.innerText")
        assert "2 of 5" in first
        (tmp_path / "go").touch()
        await page.until(f"{epoch} === 'epoch 5/5'", 60)
        await page.until("document.getElementById('state').textContent === 'finished'", 120)
        text = "document.querySelector('iframe:not(.new)').contentDocument.body.innerText"
        await page.until(f"{text} !== {first!r} && document.querySelectorAll('iframe').length === 1", 60)
        assert await page.value("document.getElementById('left').textContent") == ""
        told = await page.until(f"{text}.includes('finished') && {text}", 60)
        assert "5 of 5" in told

    shown(tmp_path / "runs", do)
    process.join(60)
    assert RunFolder.open(folder).status() == "finished"


def test_the_table_is_used_by_keyboard_on_a_phone_and_in_the_dark(tmp_path: Path) -> None:
    for name in ("alpha", "beta", "gamma"):
        made(tmp_path, name, status="finished", message="All epochs done.")
    made(tmp_path, "<img src=x onerror=alert(1)>", status="failed", message="<script>alert(2)</script>")

    async def do(page: Page, here: str) -> None:
        await page.until(f"{ROWS}.length === 4")
        assert await page.value("document.querySelectorAll('#rows img, #rows script').length") == 0
        await page.press("/")
        for letter in "bet":
            await page.press(letter)
        await page.until(f"{ROWS}.join() === 'beta'")
        await page.press("Escape")
        await page.until(f"{ROWS}.length === 4")
        await page.value("document.querySelector('#head button').focus()")
        await page.press("Enter")
        await page.until(f"{ROWS}.slice(-3).join() === 'alpha,beta,gamma'")
        for width, dark in ((390, False), (390, True), (1300, True)):
            await page.look(width, 800, dark=dark)
            assert await page.value("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
            background = await page.value("getComputedStyle(document.body).backgroundColor")
            light = sum(map(int, background.removeprefix("rgb(").rstrip(")").split(",")[:3])) > 3 * 128
            assert light != dark, background

    shown(tmp_path, do)


def test_a_wrong_token_shows_nothing(tmp_path: Path) -> None:
    made(tmp_path, "secret", status="finished")

    async def do(page: Page, here: str) -> None:
        await page.call("Network.clearBrowserCookies")
        await page.open(f"{here}/?token=wrong")
        text = await page.value("document.body.innerText")
        assert "it brings a token" in text
        assert "secret" not in text
        assert all("403" in line for line in page.console)
        page.console.clear()

    shown(tmp_path, do)
