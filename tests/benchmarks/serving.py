"""Serving a run: requests per second and latency at 1, 8 and 64 clients, against the plain forward pass.

    python -m tests.benchmarks.serving [--seconds 10] [--many 10000]

It trains a small network on digits, serves it on loopback, and measures, one after the other: the forward pass alone on
batches of 1 and 32; 1, 8 and 64 clients that each send one image after the other; and many requests, every tenth of
which is malformed, while the memory of the replica is read. The last line is the ratio of images per second at 64
clients to the forward pass at a batch of 32.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

from lehr.machine import cores
from lehr.predict import load_predictor
from lehr.predict.rows import predict
from lehr.runs import Folder

PORT = 8765
JOB = """
kind: train
name: served
data: {source: digits}
model: small_cnn
train: {epochs: 2}
"""
MALFORMED = (b"", b"no image", b'{"image": 3}')


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10, help="how long each number of clients is measured")
    parser.add_argument("--many", type=int, default=10_000, help="requests of the last measurement")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("job.yaml").write_text(JOB)
        lehr = [sys.executable, "-m", "lehr"]
        subprocess.run([*lehr, "run", "job.yaml", "--debug"], check=True, stdout=subprocess.DEVNULL)
        alone = {size: forward(size, options.seconds / 2) for size in (1, 32)}
        for size, rate in alone.items():
            print(f"forward pass, batches of {size}: {rate:,.0f} images/s")
        server = subprocess.Popen([*lehr, "serve", "served", "--port", str(PORT)], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout
            while "Stop with" not in (line := server.stdout.readline()):
                assert line, "the server ended"
            print("| clients | images/s | median ms | 99 % ms | images per pass |\n|---|---|---|---|---|")
            rates = {clients: measure(clients, options.seconds) for clients in (1, 8, 64)}
            malformed(options.many)
        finally:
            server.send_signal(signal.SIGINT)
            began = time.monotonic()
            code = server.wait(60)
            print(f"stopped in {time.monotonic() - began:.1f} s with exit code {code}")
        print(f"ratio {rates[64] / alone[32]:.3f}")


def forward(size: int, seconds: float) -> float:
    """Images per second of the model alone."""
    torch.set_num_threads(cores())
    predictor = load_predictor(Folder.at("runs/served"))
    pixels = np.zeros((size, *predictor.size, predictor.channels), np.uint8)
    predict(predictor, pixels)
    began, count = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        predict(predictor, pixels)
        count += size
    return count / (time.monotonic() - began)


def png(seed: int) -> bytes:
    """An image file."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def in_threads(clients: int, work: Callable[[int, http.client.HTTPConnection], None]) -> None:
    """Runs `work` in each of several threads, each with a connection of its own."""

    def one(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
        work(number, connection)
        connection.close()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def post(connection: http.client.HTTPConnection, body: bytes, kind: str = "image/png") -> int:
    """The status of the answer."""
    connection.request("POST", "/predict", body, {"Content-Type": kind})
    answer = connection.getresponse()
    json.loads(answer.read())
    return answer.status


def measure(clients: int, seconds: float) -> float:
    """Prints a row; returns images per second."""
    times: list[float] = []
    before, began = passes(), time.monotonic()

    def work(number: int, connection: http.client.HTTPConnection) -> None:
        body = png(number)
        while time.monotonic() - began < seconds:
            start = time.monotonic()
            assert post(connection, body) == 200
            times.append(time.monotonic() - start)

    in_threads(clients, work)
    rate = len(times) / (time.monotonic() - began)
    time.sleep(6)  # Ray reports its figures every five seconds
    after = passes()
    size = len(times) / (after - before) if after > before else float("nan")
    median, worst = statistics.median(times), sorted(times)[int(0.99 * len(times))]
    print(f"| {clients} | {rate:,.0f} | {1000 * median:.1f} | {1000 * worst:.1f} | {size:.1f} |")
    return rate


def passes() -> float:
    """Forward passes so far, by the server's own figures. Its sum of their images is one of middles of buckets: Ray
    passes a histogram on so, and a pass of one image counts as half of one."""
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return sum(map(float, re.findall(r"^ray_serve_actual_batch_size_count\{.*\} (\S+)", text, re.MULTILINE)))


def malformed(count: int) -> None:
    """Sends many requests, every tenth of which is malformed: each gets its answer, and memory stays as it was."""
    [replica] = [
        each for each in psutil.process_iter(["cmdline"]) if "ServeReplica" in " ".join(each.info["cmdline"] or ())
    ]
    seen: Counter[tuple[str, int]] = Counter()
    memory = [replica.memory_info().rss]

    def work(number: int, connection: http.client.HTTPConnection) -> None:
        for turn in range(number, count, 16):
            if turn % 10:
                seen["image", post(connection, png(turn))] += 1
            else:
                bad = MALFORMED[turn // 10 % 3]
                kind = "application/json" if bad.startswith(b"{") else "image/png"
                seen["malformed", post(connection, bad, kind)] += 1
            if number == 0 and turn % 1600 == 0:
                memory.append(replica.memory_info().rss)

    in_threads(16, work)
    memory.append(replica.memory_info().rss)
    print(
        f"{sum(seen.values()):,} requests: "
        + ", ".join(f"{what} {status}: {n:,}" for (what, status), n in seen.items())
    )
    print("memory of the replica, MB: " + " ".join(f"{each / 2**20:.0f}" for each in memory))


if __name__ == "__main__":
    main()
