"""Do images reach a network of timm as timm itself prepares them? Inputs and features, on 50 photographs of odd shapes.

    pip install timm
    python -m tests.benchmarks.preprocessing [FOLDER OF PHOTOGRAPHS]

Prints the largest difference for each network, whose weights are random. Without a folder the photographs are made up.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lehr.data.decode import decode_image
from lehr.data.preprocess import Preprocess
from lehr.models.pretrained import recipe
from lehr.models.vision import torchvision

NETWORKS = [
    "resnet18",
    "efficientnet_lite0",
    "vit_tiny_patch16_224",
    "mobilenetv3_small_100",
    "convnext_atto",
    "mixer_s32_224",
]
PHOTOGRAPHS, BATCH = 50, 10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    torchvision()
    import timm
    from timm.data import create_transform, resolve_data_config

    files = photographs(parser.parse_args().folder)
    torch.manual_seed(0)
    for name in NETWORKS:
        model = timm.create_model(name, pretrained=False, num_classes=0).eval()
        theirs = create_transform(**resolve_data_config(model=model), is_training=False)
        ours = preparation(f"timm/{name}")
        inputs, features = 0.0, 0.0
        for start in range(0, len(files), BATCH):
            some = files[start : start + BATCH]
            expected = torch.stack([theirs(Image.open(io.BytesIO(each)).convert("RGB")) for each in some])
            pixels = torch.stack([torch.from_numpy(decode_image(each, ours.wanted).copy()) for each in some])
            found = ours(pixels.permute(0, 3, 1, 2), torch.float32)
            with torch.inference_mode():
                one, other = model(expected), model(found)
            inputs = max(inputs, float((expected - found).abs().max()))
            features = max(features, float(((one - other).norm(dim=1) / one.norm(dim=1)).max()))
        print(f"{name:24} inputs differ by at most {inputs:.1e}, features by {features:.1e} of their norm", flush=True)


def preparation(network: str) -> Preprocess:
    """What lehr does with the images of a network with published weights."""
    found = recipe("pretrained", network)
    assert found.size is not None
    assert found.channels is not None
    assert found.mean is not None
    assert found.std is not None
    how = {"resize": found.resize, "interpolation": found.interpolation}
    return Preprocess(*found.size, found.channels, found.mean, found.std, **how)  # type: ignore[arg-type]


def photographs(folder: Path | None) -> list[bytes]:
    """Rectangles of random size and place out of photographs, as PNG files."""
    random = np.random.default_rng(26)
    names: Sequence[Path | None] = sorted(folder.rglob("*.jpg"))[:PHOTOGRAPHS] if folder else [None] * PHOTOGRAPHS
    files = []
    for name in names:
        whole = Image.open(name).convert("RGB") if name else Image.fromarray(
            random.integers(0, 256, (480, 640, 3), dtype=np.uint8)
        )  # fmt: skip
        width, height = (int(random.integers(40, side)) for side in whole.size)
        left, top = int(random.integers(0, whole.width - width)), int(random.integers(0, whole.height - height))
        file = io.BytesIO()
        whole.crop((left, top, left + width, top + height)).save(file, "PNG")
        files.append(file.getvalue())
    return files


if __name__ == "__main__":
    main()
