"""The web application: images in, classes out. It knows no Ray, and asks a function for the probabilities."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lehr.data.decode import UnreadableImage, decode_image, size_of
from lehr.data.pixels import PixelFormat
from lehr.predict.answers import Answer, answer
from lehr.predict.rows import in_original
from lehr.tasks.base import Task

MOST_BYTES = 32 * 2**20
"""How large the body of a request may be."""
MOST_IMAGES = 64
"""How many images one request may bring."""
OPEN = ("/health",)
"""Paths that need no token: whoever watches over the server asks them."""

Ask = Callable[[np.ndarray], Awaitable[np.ndarray]]
"""From the pixels of one image, uint8 [height, width, channels], to its probabilities, float32 [classes]."""
Measured = Callable[[], Awaitable[str]]
"""The server's figures in Prometheus' text format."""


@dataclass(frozen=True)
class Served:
    """What is served.

    Attributes:
        run: the name of the run.
        task: what it predicts.
        wanted: what images are decoded to.
        members: how many networks answer together: more than one for an ensemble.
    """

    run: str
    task: Task[Any]
    wanted: PixelFormat
    members: int = 1


class Images(BaseModel):
    """A request in JSON. Give `image`, or `images` for several."""

    model_config = ConfigDict(extra="forbid")
    image: str | None = Field(None, description="An image file, encoded in base64.")
    images: list[str] | None = Field(None, description="Several of them.")


class Ranked(BaseModel):
    """A class and its probability, from 0 to 1."""

    model_config = ConfigDict(populate_by_name=True)
    name: str = Field(alias="class")
    probability: float


class Prediction(BaseModel):
    """What the run says of one image; `error` alone where the image cannot be read."""

    model_config = ConfigDict(populate_by_name=True)
    name: str = Field(description="The name of the file, or the number of the image in the request, from 0.")
    best: str | None = Field(None, alias="class")
    probability: float | None = None
    top: list[Ranked] | None = Field(None, description="The most probable classes, as many as `top` asks for.")
    classes: list[str] | None = Field(None, description="The classes that the image has, where it may have several.")
    probabilities: dict[str, float] | None = Field(None, description="Of each class, where it may have several.")
    values: dict[str, float] | None = Field(None, description="The numbers that a run of regression predicts, by name.")
    error: str | None = None


class Predictions(BaseModel):
    """The answer: one prediction for each image, in the order of the request."""

    predictions: list[Prediction]


class Problem(BaseModel):
    """Why there is no answer, in one sentence."""

    error: str


_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "There is no image, or none that can be read."},
    401: {"model": Problem, "description": "The token is missing or wrong."},
    413: {"model": Problem, "description": "Too many bytes or images."},
    503: {"description": "More requests wait than the server takes. Try again."},
}
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            }
        },
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "application/json": {"schema": Images.model_json_schema()},
    },
}


def build_app(served: Served, ask: Ask, measured: Measured, *, token: str = "", threads: int = 1) -> FastAPI:
    """The application.

    Args:
        ask: how the probabilities of an image are found; it is called for all images of a request at once.
        measured: the figures of `GET /metrics`.
        token: what a request must bring, as `Authorization: Bearer TOKEN` or as `?token=TOKEN`; empty for none.
        threads: how many images are decoded at a time.
    """
    # The usual pages about an interface fetch their scripts from elsewhere; the description itself is kept.
    app = FastAPI(title=f"lehr: {served.run}", version="1", docs_url=None, redoc_url=None, summary=_summary(served))
    decoders = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    @app.exception_handler(HTTPException)
    async def _said(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def _unusable(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}"}, 400)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(_page(), headers={"Content-Security-Policy": _POLICY})

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server answers."""
        return {"status": "ok"}

    @app.get("/model")
    async def model() -> dict[str, Any]:
        """What is served: the run, its classes, and the images that it takes."""
        height, width = served.wanted.size or (0, 0)
        about = {"run": served.run, _named(served): served.task.names, "networks": served.members}
        return {**about, "height": height, "width": width, "channels": served.wanted.channels}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        """Figures for Prometheus."""
        return PlainTextResponse(await measured(), media_type="text/plain; version=0.0.4")

    @app.post(
        "/predict",
        response_model=Predictions,
        response_model_exclude_none=True,
        responses=_ERRORS,
        openapi_extra={"requestBody": _BODY},
    )
    async def predict(
        request: Request,
        top: int = Query(3, ge=1, description="How many classes to return for each image."),
    ) -> Response:
        """The class of each image: files in a form, one file as the body, or base64 in JSON."""
        images = await read_images(request)
        found = await asyncio.gather(*(_answer(served, ask, decoders, name, file) for name, file in images))
        if all(each.problem for each in found):
            raise HTTPException(400, "; ".join(f"{each.name}: not readable: {each.problem}" for each in found))
        return JSONResponse({"predictions": [each.to_json(top) for each in found]})

    app.add_middleware(_Guard, token=token)
    return app


def _summary(served: Served) -> str:
    count = len(served.task.names)
    if served.task.labels == "class":
        return f"Which of {count} classes an image belongs to."
    what = {"classes": f"Which of {count} classes an image has.", "boxes": f"Boxes of {count} classes in an image."}
    what["mask"] = f"Which of {count} classes each pixel of an image belongs to."
    what["captions"] = f"A sentence about an image, of {count} words."
    return what.get(served.task.labels, "Numbers for an image.")


def _named(served: Served) -> str:
    return {"numbers": "numbers", "captions": "words"}.get(served.task.labels, "classes")


async def _answer(served: Served, ask: Ask, decoders: ThreadPoolExecutor, name: str, file: bytes) -> Answer:
    loop = asyncio.get_running_loop()
    try:
        pixels = await loop.run_in_executor(decoders, decode_image, file, served.wanted)
    except UnreadableImage as error:
        return Answer(name, problem=str(error))
    values = (await ask(pixels))[None]
    size = np.array([size_of(file)[::-1]])
    return answer(name, served.task, in_original(served.task, served.wanted, values, size)[0])


async def read_images(request: Request) -> list[tuple[str, bytes]]:
    """The images of a request: (name, content of the file). Raises HTTPException."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        images = _from_json(await request.body())
    elif kind == "multipart/form-data":
        images = await _from_form(request)
    elif kind in ("application/x-www-form-urlencoded", "text/plain"):
        raise HTTPException(415, f"{kind} is no image; {_HOW}")
    else:
        images = [("0", await request.body())]
    images = [(name, file) for name, file in images if file]
    if not images:
        raise HTTPException(400, f"there is no image in the request; {_HOW}")
    return images


_HOW = (
    "send a form with files (curl -F file=@photo.jpg), one file as the body (curl -H 'Content-Type: image/jpeg' "
    '--data-binary @photo.jpg), or JSON: {"image": "BASE64"}'
)


def _from_json(body: bytes) -> list[tuple[str, bytes]]:
    try:
        given = Images.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise HTTPException(400, f"the JSON is not usable: {where + ': ' if where else ''}{first['msg']}") from None
    encoded = [given.image] if given.image is not None else given.images or []
    if given.image is not None and given.images is not None:
        raise HTTPException(400, "the JSON has both image and images; give one of them")
    _not_too_many(len(encoded))
    try:
        # A data URL is what a browser makes of a file.
        files = [
            base64.b64decode(each.partition(",")[2] if each[:5] == "data:" else each, validate=True) for each in encoded
        ]
    except (binascii.Error, ValueError) as error:
        raise HTTPException(400, f"an image of the JSON is not base64: {error}") from None
    return [(str(number), file) for number, file in enumerate(files)]


def _content(text: str) -> str:
    """The base64 of a text, which may be a data URL: that is what a browser makes of a file."""
    return text.partition(",")[2] if text.startswith("data:") else text


async def _from_form(request: Request) -> list[tuple[str, bytes]]:
    async with request.form(max_files=MOST_IMAGES + 1, max_fields=MOST_IMAGES) as form:
        files = [
            each for each in dict.fromkeys(value for _, value in form.multi_items()) if isinstance(each, UploadFile)
        ]
        _not_too_many(len(files))
        return [(each.filename or str(number), await each.read()) for number, each in enumerate(files)]


def _not_too_many(count: int) -> None:
    if count > MOST_IMAGES:
        raise HTTPException(413, f"more than {MOST_IMAGES} images in one request; send several requests")


class _TooLarge(Exception):
    pass


class _Guard:
    """Refuses requests without the token, and bodies that are too large, before anything is read or made of them."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        if self.token and request.url.path not in OPEN and not self._knows(request):
            await JSONResponse(
                {"error": "the token is missing or wrong; send it as Authorization: Bearer TOKEN"},
                401,
                {"WWW-Authenticate": "Bearer"},
            )(scope, receive, send)
            return
        origin = request.headers.get("origin", "").partition("://")[2]
        if origin and origin != request.headers.get("host"):
            await JSONResponse({"error": "pages of other sites may not ask"}, 403)(scope, receive, send)
            return
        length, read, began = request.headers.get("content-length", ""), 0, False

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MOST_BYTES:
                raise _TooLarge
            return message

        async def sent(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            if length.isdecimal() and int(length) > MOST_BYTES:
                raise _TooLarge
            await self.app(scope, counted, sent)
        except _TooLarge:
            if began:
                raise
            what = f"the request is larger than {MOST_BYTES // 2**20} MB; send several requests"
            await JSONResponse({"error": what}, 413, {"Connection": "close"})(scope, receive, send)

    def _knows(self, request: Request) -> bool:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        given = given if kind.lower() == "bearer" else request.query_params.get("token", "")
        return hmac.compare_digest(given.encode(), self.token.encode())


_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src blob: data:; connect-src 'self'"
)


def _page() -> str:
    return Path(__file__).with_name("page.html").read_text("utf-8")
