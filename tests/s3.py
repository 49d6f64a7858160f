"""An S3 server (moto) on loopback, and a proxy in front of it that fails as real servers do."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

BUCKET = "lehr-tests"


@contextmanager
def s3_server() -> Iterator[str]:
    """The address of an S3 server with one bucket."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert server.poll() is None, "the S3 server ended"
                assert time.monotonic() < deadline, "the S3 server did not start"
                time.sleep(0.05)
        import boto3

        endpoint = f"http://127.0.0.1:{port}"
        client = boto3.client(
            "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
        )
        client.create_bucket(Bucket=BUCKET)
        yield endpoint
    finally:
        server.terminate()
        server.wait(10)


def s3_environment(endpoint: str) -> dict[str, str]:
    """Environment variables with which a user reaches the server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@dataclass
class Trouble:
    """An outage: its kind, the number of requests before it begins, and its length in seconds.

    Attributes:
        kind: `500`, `503`, `slow` (half a second per answer), `gone` (closes every connection without an answer), or
            `silent` (accepts the request and never answers).
    """

    kind: str
    after: int
    seconds: float
    began: float | None = None


# Codes and format of the answers: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
ANSWERS = {
    "500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "503": (503, "SlowDown", "Please reduce your request rate."),
}


class Proxy:
    """A proxy in front of an S3 server; its `troubles` happen one after the other."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.troubles: list[Trouble] = []
        self.requests, self.refused, self.lock = 0, 0, threading.Lock()
        self.over = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                proxy.answer(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()

    def trouble_now(self) -> str:
        """The kind of trouble for this request; empty: none."""
        with self.lock:
            self.requests += 1
            while self.troubles:
                trouble = self.troubles[0]
                if trouble.began is None:
                    trouble.after -= 1
                    if trouble.after > 0:
                        return ""
                    trouble.began = time.monotonic()
                if time.monotonic() - trouble.began < trouble.seconds:
                    self.refused += 1
                    return trouble.kind
                self.troubles.pop(0)
            return ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wrong = self.trouble_now()
        body = _body(request)
        if wrong == "gone":
            request.close_connection = True
            return
        if wrong == "silent":
            self.over.wait(30)
            request.close_connection = True
            return
        if wrong == "slow":
            time.sleep(0.5)
        if wrong in ANSWERS:
            status, code, message = ANSWERS[wrong]
            data = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
            headers = [("Content-Type", "application/xml")]
        else:
            connection = http.client.HTTPConnection(self.upstream.hostname or "", self.upstream.port, timeout=30)
            skipped = ("expect", "transfer-encoding", "content-length")
            asked = {name: value for name, value in request.headers.items() if name.lower() not in skipped}
            connection.request(request.command, request.path, body, asked | {"Content-Length": str(len(body))})
            answer = connection.getresponse()
            data, status = answer.read(), answer.status
            skip = {"transfer-encoding", "connection", "server", "date"}
            skip |= set() if request.command == "HEAD" else {"content-length"}
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in skip]
            connection.close()
        request.send_response(status)
        for name, value in headers:
            request.send_header(name, value)
        if request.command != "HEAD":
            request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(data)


def _body(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("Transfer-Encoding", "").lower() != "chunked":
        return request.rfile.read(int(request.headers.get("Content-Length") or 0))
    body = b""
    while size := int(request.rfile.readline().split(b";")[0], 16):
        body += request.rfile.read(size)
        request.rfile.readline()
    while request.rfile.readline().strip():  # trailers
        pass
    return body
