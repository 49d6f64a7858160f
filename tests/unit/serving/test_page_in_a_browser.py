"""The page of `lehr serve` in a real browser: a picture is dropped on it, and the answer stands there."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from tests.browser import CHROMIUM, NO_CHROMIUM, browser
from tests.unit.serving.test_app import png, serving

pytestmark = pytest.mark.skipif(not CHROMIUM, reason=NO_CHROMIUM)

DROP = """
(name, kind, encoded) => {
  const bytes = Uint8Array.from(atob(encoded), letter => letter.charCodeAt(0));
  const dropped = new DataTransfer();
  dropped.items.add(new File([bytes], name, {type: kind}));
  dispatchEvent(new DragEvent("drop", {dataTransfer: dropped, bubbles: true, cancelable: true}));
}
"""


def test_a_picture_that_is_dropped_on_the_page_is_answered_there() -> None:
    async def story() -> None:
        with serving() as server:
            async with browser() as page:
                await page.open(f"http://127.0.0.1:{server.port}/")
                await page.until("document.title === 'cells'")
                for number, (name, content) in enumerate({"light.png": png(204), "no.png": b"no image"}.items(), 1):
                    given = json.dumps([name, "image/png", base64.b64encode(content).decode()])
                    await page.value(f"({DROP})(...{given})")
                    await page.until(f"document.querySelectorAll('article').length === {number}")
                    await page.until("!document.querySelector('article').innerText.includes('…')")
                answers = await page.value("[...document.querySelectorAll('article')].map(each => each.innerText)")
                assert "light.png" in answers[1], answers
                assert answers[1].find("light") < answers[1].find("80.0 %") < answers[1].find("<b>dark</b>"), answers
                assert "no.png" in answers[0]
                assert "not readable: no image of a known format" in answers[0]
                assert not await page.value("document.querySelectorAll('article b').length"), "a name became markup"
                asked = {address.split("/")[2] for address in page.requested if address.startswith("http")}
                assert asked == {f"127.0.0.1:{server.port}"}

    asyncio.run(story())
