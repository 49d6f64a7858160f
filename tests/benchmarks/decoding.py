"""Images decoded per second of one core: lehr against the decoders alone, in alternating rounds.

Each side makes uint8 arrays of encoded images in memory: `decode` of lehr from a table of a part, with and without
simplejpeg; simplejpeg, Pillow (with `draft` where images are decoded smaller), torchvision's `decode_jpeg` and OpenCV,
where they can be imported. Images are photographs of a folder if one is named, else generated; resized by Pillow.

    python -m tests.benchmarks.decoding [ROUNDS] [FOLDER]
"""

from __future__ import annotations

import functools
import io
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from lehr.data import jpeg
from lehr.data.decode import decode
from lehr.data.pixels import PixelFormat

SECONDS = 0.4  # of each side in each round


def pictures(side: int, form: str, count: int, folder: str = "") -> list[bytes]:
    """Encoded photographs of one size."""
    found = []
    names = sorted(Path(folder).rglob("*.jpg"))[:count] if folder else []
    for number in range(count):
        if names:
            image = Image.open(names[number % len(names)]).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        else:
            of = np.random.default_rng(number)
            rough = Image.fromarray(of.integers(0, 256, (max(2, side // 8),) * 2 + (3,), np.uint8))
            smooth = np.asarray(rough.resize((side, side), Image.Resampling.BICUBIC)).astype(int)
            image = Image.fromarray(np.clip(smooth + of.integers(-8, 9, smooth.shape), 0, 255).astype(np.uint8))
        file = io.BytesIO()
        image.save(file, form, **({"quality": 90} if form == "JPEG" else {}))
        found.append(file.getvalue())
    return found


def _resized(image: Image.Image, to: int) -> np.ndarray:
    return np.asarray(image if image.width == to else image.resize((to, to), Image.Resampling.BILINEAR))


def by_pillow(to: int, scaled: bool) -> Callable[[bytes], np.ndarray]:
    def one(file: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(file)) as image:
            if scaled:
                image.draft("RGB", (to, to))
            return _resized(image.convert("RGB"), to)

    return one


def by_simplejpeg(to: int, scaled: bool) -> Callable[[bytes], np.ndarray]:
    def one(file: bytes) -> np.ndarray:
        least = {"min_height": to, "min_width": to, "min_factor": 2} if scaled else {}
        found: np.ndarray = jpeg.simplejpeg.decode_jpeg(file, **least)
        return found if found.shape[0] == to else _resized(Image.fromarray(found), to)

    return one


def by_torchvision(to: int) -> Callable[[bytes], Any] | None:
    """torchvision's operator, where its compiled part fits this torch."""
    try:
        import torch
        from torchvision.io import decode_jpeg

        decode_jpeg(torch.frombuffer(bytearray(pictures(32, "JPEG", 1)[0]), dtype=torch.uint8))
    except (ImportError, RuntimeError, OSError):
        return None

    def one(file: bytes) -> Any:
        found = decode_jpeg(torch.frombuffer(file, dtype=torch.uint8)).permute(1, 2, 0).numpy()
        return found if found.shape[0] == to else _resized(Image.fromarray(found), to)

    return one


def by_opencv(to: int) -> Callable[[bytes], Any] | None:
    try:
        import cv2  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    cv2.setNumThreads(1)

    def one(file: bytes) -> Any:
        found = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR_RGB)
        return found if found.shape[0] == to else cv2.resize(found, (to, to), interpolation=cv2.INTER_AREA)

    return one


def rate(work: Callable[[], int]) -> float:
    """Images per second of this process's CPU time."""
    done, began = 0, time.process_time()
    while time.process_time() - began < SECONDS:
        done += work()
    return done / (time.process_time() - began)


def all_of(one: Callable[[bytes], Any], files: list[bytes]) -> int:
    return len([one(file) for file in files])


def by_lehr(files: list[bytes], wanted: PixelFormat, *, fast: bool) -> Callable[[], int]:
    table = pa.table({"image": pa.array(files, pa.large_binary()), "label": [0] * len(files)})
    pixels = jpeg.pixels

    def work() -> int:
        jpeg.pixels = pixels if fast else lambda *arguments: None
        try:
            return len(decode(table, wanted).pixels)
        finally:
            jpeg.pixels = pixels

    return work


def measure(name: str, files: list[bytes], to: int, rounds: int, *, scaled: bool = False) -> None:
    wanted = PixelFormat((to, to), 3, scaled=scaled)
    alone: dict[str, Callable[[bytes], Any] | None] = {"Pillow": by_pillow(to, scaled)}
    if files[0][:2] == b"\xff\xd8":
        alone["simplejpeg"] = by_simplejpeg(to, scaled) if jpeg.simplejpeg else None
        alone["torchvision"] = None if scaled else by_torchvision(to)
    alone["OpenCV"] = None if scaled else by_opencv(to)
    sides = {"lehr": by_lehr(files, wanted, fast=True), "lehr, Pillow": by_lehr(files, wanted, fast=False)}
    for each, one in alone.items():
        if one is not None:
            sides[each] = functools.partial(all_of, one, files)
    found: dict[str, list[float]] = {each: [] for each in sides}
    for number in range(rounds):
        for each in list(sides)[:: 1 if number % 2 == 0 else -1]:
            found[each].append(rate(sides[each]))
    ours = statistics.median(found["lehr"])
    for each, rates in found.items():
        middle = statistics.median(rates)
        span = f"({min(rates):,.0f} to {max(rates):,.0f})"
        print(f"{name:24} {each:14} {middle:10,.0f} /s  {span:20} lehr × {ours / middle:.2f}")


def main(rounds: str = "5", folder: str = "") -> None:
    small, middle, large = (pictures(side, "JPEG", 64, folder) for side in (32, 256, 500))
    measure("32 px PNG", pictures(32, "PNG", 64, folder), 32, int(rounds))
    measure("32 px JPEG", small, 32, int(rounds))
    measure("256 px JPEG", middle, 256, int(rounds))
    measure("500 → 224 px JPEG", large, 224, int(rounds))
    measure("500 → 224 px, scaled", large, 224, int(rounds), scaled=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
