"""The web application answers each request: with classes, or with a sentence that says what is wrong with it."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image

from lehr.data.pixels import PixelFormat
from lehr.serving import app as application
from lehr.serving.app import MOST_IMAGES, Served, build_app
from lehr.tasks.classification import Classification

SERVED = Served("cells", Classification(("<b>dark</b>", "light")), PixelFormat((4, 4), 1))


def png(value: int, size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size, value).save(buffer, "PNG")
    return buffer.getvalue()


async def brightness(pixels: np.ndarray) -> np.ndarray:
    light = np.float32(pixels.mean() / 255)
    return np.array([1 - light, light])


async def figures() -> str:
    return "ray_serve_num_http_requests 3\n"


@dataclass
class Server:
    """A running application."""

    port: int
    headers: dict[str, str] = field(default_factory=dict)

    def ask(
        self, path: str, body: bytes | None = None, kind: str = "", headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        """The status and the text of the answer."""
        sent = {**({"Content-Type": kind} if kind else {}), **self.headers, **(headers or {})}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, sent)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def predict(self, body: bytes, kind: str = "image/png", query: str = "", **headers: str) -> tuple[int, Any]:
        status, text = self.ask(f"/predict{query}", body, kind, headers)
        return status, json.loads(text)


@contextmanager
def serving(token: str = "") -> Iterator[Server]:
    listening = socket.create_server(("127.0.0.1", 0))
    app = build_app(SERVED, brightness, figures, token=token, threads=2)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield Server(listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def form(*files: tuple[str, bytes]) -> tuple[bytes, str]:
    """A multipart form, as curl -F and browsers send it."""
    parts = [
        f'--limit\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in files
    ]
    return b"".join([*parts, b"--limit--\r\n"]), "multipart/form-data; boundary=limit"


def test_a_file_is_answered_however_it_is_sent(server: Server) -> None:
    image = png(204)
    encoded = base64.b64encode(image).decode()
    ways = {
        "body": server.predict(image),
        "form": server.predict(*form(("0", image))),
        "JSON": server.predict(json.dumps({"image": encoded}).encode(), "application/json"),
        "data URL": server.predict(
            json.dumps({"images": [f"data:image/png;base64,{encoded}"]}).encode(), "application/json"
        ),
        "without a type": server.predict(image, "application/octet-stream"),
    }
    for way, (status, found) in ways.items():
        assert status == 200, (way, found)
        [prediction] = found["predictions"]
        assert prediction["class"] == "light"
        assert prediction["probability"] == pytest.approx(0.8)
        assert [each["class"] for each in prediction["top"]] == ["light", "<b>dark</b>"]


def test_several_files_are_answered_in_their_order_and_one_bad_one_spoils_no_other(server: Server) -> None:
    status, found = server.predict(*form(("a.png", png(0)), ("b.png", b"none"), ("c.png", png(255))), query="?top=1")
    assert status == 200
    first, second, third = found["predictions"]
    assert (first["name"], first["class"], len(first["top"])) == ("a.png", "<b>dark</b>", 1)
    assert second == {"name": "b.png", "error": second["error"]}
    assert "no image of a known format" in second["error"]
    assert third["class"] == "light"


TOO_MANY = json.dumps({"images": ["aGk="] * (MOST_IMAGES + 1)}).encode()


@pytest.mark.parametrize(
    ("body", "kind", "status", "sentence"),
    [
        (b"", "image/png", 400, "there is no image in the request; send a form with files (curl -F"),
        (b"none", "image/png", 400, "0: not readable: no image of a known format"),
        (png(1)[:-30], "image/png", 400, "not readable"),
        (b"{}", "application/json", 400, "there is no image in the request"),
        (b"{", "application/json", 400, "the JSON is not usable: Invalid JSON"),
        (b"[1]", "application/json", 400, "the JSON is not usable"),
        (b'{"image": 3}', "application/json", 400, "image: Input should be a valid string"),
        (b'{"picture": "aGk="}', "application/json", 400, "picture: Extra inputs are not permitted"),
        (b'{"image": "%%"}', "application/json", 400, "an image of the JSON is not base64"),
        (b'{"image": "aGk=", "images": []}', "application/json", 400, "both image and images; give one of them"),
        (b"\xff\xfe", "application/json", 400, "the JSON is not usable"),
        (b"a=b", "application/x-www-form-urlencoded", 415, "is no image; send a form with files"),
        (b"--x--", "multipart/form-data", 400, "boundary"),
        (*form(), 400, "there is no image in the request"),
        (TOO_MANY, "application/json", 413, f"more than {MOST_IMAGES} images"),
    ],
)
def test_what_cannot_be_answered_is_told_in_one_sentence(
    server: Server, body: bytes, kind: str, status: int, sentence: str
) -> None:
    answered, found = server.predict(body, kind)
    assert answered == status
    assert sentence in found["error"]
    assert server.predict(png(255))[0] == 200


def test_a_wrong_option_is_told_by_its_name(server: Server) -> None:
    assert server.predict(png(1), query="?top=0") == (400, {"error": "top: Input should be greater than or equal to 1"})


def test_a_large_body_is_refused_before_it_is_held(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "MOST_BYTES", 1000)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:  # says its size, and sends nothing
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Length: 99999999\r\n\r\n")
        assert b" 413 " in connection.recv(100)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:  # does not say its size
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            connection.sendall(b"258\r\n" + b"x" * 600 + b"\r\n")
        assert b" 413 " in connection.recv(100)


def test_with_a_token_only_health_is_open() -> None:
    with serving("secret") as server:
        assert server.ask("/health") == (200, '{"status":"ok"}')
        for path in ("/", "/model", "/metrics", "/openapi.json"):
            assert server.ask(path)[0] == 401, path
        assert server.predict(png(1))[0] == 401
        assert server.predict(png(1), Authorization="Bearer wrong")[0] == 401
        assert server.predict(png(1), Authorization="Bearer secret")[0] == 200
        assert server.ask("/?token=secret")[0] == 200


def test_a_page_of_another_site_may_not_ask(server: Server) -> None:
    here = {"Origin": f"http://127.0.0.1:{server.port}"}
    assert server.predict(png(1), Origin="https://elsewhere.example")[0] == 403
    assert server.predict(png(1), **here)[0] == 200


def test_the_interface_describes_itself(server: Server) -> None:
    about = json.loads(server.ask("/model")[1])
    assert (about["run"], about["classes"], about["height"]) == ("cells", ["<b>dark</b>", "light"], 4)
    described = json.loads(server.ask("/openapi.json")[1])
    predict = described["paths"]["/predict"]["post"]
    assert {"multipart/form-data", "image/*", "application/json"} == set(predict["requestBody"]["content"])
    assert set(predict["responses"]) >= {"200", "400", "401", "413", "503"}
    assert server.ask("/metrics")[1] == "ray_serve_num_http_requests 3\n"
    page = server.ask("/")[1]
    assert "http" not in page.replace("http-equiv", "")  # nothing is fetched from elsewhere


@pytest.mark.parametrize(
    ("mode", "form_of_file"),
    [("L", "JPEG"), ("CMYK", "JPEG"), ("LA", "PNG"), ("RGBA", "PNG"), ("P", "GIF"), ("I;16", "PNG"), ("1", "PNG")],
)
def test_an_image_of_any_mode_is_answered(server: Server, mode: str, form_of_file: str) -> None:
    """Servers that assume three channels fail at a grey JPEG, or at a PNG with transparency."""
    plain, buffer = Image.new("L", (8, 8), 255), io.BytesIO()
    image = Image.fromarray(np.full((8, 8), 65535, np.uint16)) if mode == "I;16" else plain.convert("RGB").convert(mode)
    image.save(buffer, form_of_file)
    status, found = server.predict(buffer.getvalue(), "application/octet-stream")
    assert status == 200, found
    [prediction] = found["predictions"]
    assert (prediction["class"], round(prediction["probability"], 2)) == ("light", 1.0)
