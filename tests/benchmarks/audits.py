"""What `lehr data show` finds of planted faults, and what it says of rows that nobody touched.

8,000 rows of CIFAR-10 to train and 2,000 for validation. Planted: 100 validation rows with the pixels of a training
row, 100 more saved again as JPEG of quality 50, 100 made brighter by 15 %; then 5 % of the labels flipped to another
class. Recall and precision, and the alarms on the same rows before.

    python -m tests.benchmarks.audits CIFAR10-TRAIN.parquet [SEED]
    python -m tests.benchmarks.audits digits [SEED]        # the flipped labels alone, of the bundled digits
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageEnhance

from lehr.data.audit import Audit, audit
from lehr.data.load import OpenedSources
from lehr.job import TrainJob, from_dict

TRAIN, VALIDATION, OF_EACH, FLIPPED = 8000, 2000, 100, 0.05


def saved(image: Image.Image, form: str = "PNG", quality: int = 75) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **({"quality": quality} if form == "JPEG" else {}))
    return file.getvalue()


def opened(file: bytes) -> Image.Image:
    return Image.open(io.BytesIO(file)).convert("RGB")


PLANTED = {
    "same pixels": lambda file: saved(opened(file)),
    "JPEG of quality 50": lambda file: saved(opened(file), "JPEG", 50),
    "brighter by 15 %": lambda file: saved(ImageEnhance.Brightness(opened(file)).enhance(1.15)),
}


def looked_at(images: list[Any], labels: np.ndarray, folder: Path) -> tuple[Audit, float]:
    folder.mkdir()
    for name, rows in (("train", slice(0, TRAIN)), ("validation", slice(TRAIN, TRAIN + VALIDATION))):
        pq.write_table(pa.table({"image": images[rows], "label": pa.array(labels[rows])}), folder / f"{name}.parquet")
    job = from_dict({"kind": "train", "data": {"path": str(folder)}})
    assert isinstance(job, TrainJob)
    sources = OpenedSources(job)
    began = time.process_time()
    return audit(sources.sources, sources.wanted), time.process_time() - began


def of_digits(random: np.random.Generator) -> None:
    job = from_dict({"kind": "train"})
    assert isinstance(job, TrainJob)
    decoded = OpenedSources(job).decode()["train"]
    images = [saved(Image.fromarray(each[..., 0])) for each in decoded.pixels]
    flipped = random.choice(len(images), int(FLIPPED * len(images)), replace=False)
    for name, rows in (("clean", flipped[:0]), ("flipped", flipped)):
        labels = np.array(decoded.labels)
        labels[rows] = (labels[rows] + random.integers(1, 10, len(rows))) % 10
        with tempfile.TemporaryDirectory() as folder:
            pq.write_table(pa.table({"image": images, "label": pa.array(labels)}), Path(folder) / "train.parquet")
            opened_ = from_dict({"kind": "train", "data": {"path": folder}})
            assert isinstance(opened_, TrainJob)
            sources = OpenedSources(opened_)
            found = audit(sources.sources, sources.wanted)
        hits = len({doubt.row for doubt in found.doubts} & set(rows.tolist()))
        accuracy = f"{found.model_accuracy or 0:.3f}"
        print(f"digits, {name}: {hits} of {len(rows)} found, {len(found.doubts)} doubted of {len(images)}; {accuracy}")


def main(path: str, seed: str = "0") -> None:
    random = np.random.default_rng(int(seed))
    if path == "digits":
        of_digits(random)
        return
    table = pq.read_table(path).slice(int(seed) * (TRAIN + VALIDATION), TRAIN + VALIDATION)
    images, labels = list[Any](table["image"].to_pylist()), np.array(table["label"].to_pylist())
    with tempfile.TemporaryDirectory() as folder:
        clean, seconds = looked_at(list(images), labels, Path(folder) / "clean")
        pairs = f"{sum(p.exact for p in clean.pairs)} the same, {sum(not p.exact for p in clean.pairs)} nearly"
        print(f"clean: pairs {pairs}; doubted labels {len(clean.doubts)}; {seconds:.0f} s of CPU", flush=True)
        print("  pairs:", [(p.first, p.second, p.other_label) for p in clean.pairs if not p.exact][:20])
        print(f"  linear model right on {clean.model_accuracy or 0:.3f}; {clean.why_not_judged}")
        rows = random.choice(VALIDATION, OF_EACH * len(PLANTED), replace=False)
        from_rows = random.choice(TRAIN, len(rows), replace=False)
        spoilt = list(images)
        kinds = {}
        for at, (row, source) in enumerate(zip(rows.tolist(), from_rows.tolist(), strict=True)):
            kind = list(PLANTED)[at // OF_EACH]
            spoilt[TRAIN + row] = PLANTED[kind](images[source])
            kinds[("validation", row)] = kind
        flipped = random.choice(TRAIN, int(FLIPPED * TRAIN), replace=False)
        changed = labels.copy()
        changed[flipped] = (labels[flipped] + random.integers(1, 10, len(flipped))) % 10
        found, seconds = looked_at(spoilt, changed, Path(folder) / "spoilt")
    leaks = {pair.second for pair in found.pairs if pair.leaks} | {pair.first for pair in found.pairs if pair.leaks}
    for kind in PLANTED:
        count = sum(place in leaks for place, each in kinds.items() if each == kind)
        print(f"planted, {kind}: {count} of {OF_EACH} found")
    wrong = [pair for pair in found.pairs if pair.leaks and pair.second not in kinds and pair.first not in kinds]
    print(f"leaks that were not planted: {len(wrong)}")
    doubted = [doubt.row for doubt in found.doubts if doubt.split == "train"]
    right = set(flipped.tolist())
    for most in (50, 100, 200, 400, len(doubted)):
        hits = len(right & set(doubted[:most]))
        print(f"of the first {min(most, len(doubted))} doubted labels of training rows, {hits} were flipped")
    print(f"flipped {len(right)}; {seconds:.0f} s of CPU; model {found.model_accuracy or 0:.3f} {found.why_not_judged}")


if __name__ == "__main__":
    main(*sys.argv[1:])
