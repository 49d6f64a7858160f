"""Published weights of torchvision's and timm's networks, and files of weights: nothing in them is executed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lehr.job.sections import WEIGHT_FILES
from lehr.models.vision import torchvision
from lehr.runs.weights import unpack

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def is_file(reference: str) -> bool:
    """Whether `model.weights` names a file."""
    return reference.endswith(WEIGHT_FILES) and not reference.startswith("run:")


def preprocessing(reference: str, name: str) -> dict[str, Any] | None:
    """How the images were prepared that these weights were trained on; None where nobody knows. Downloads nothing.

    Args:
        reference: `pretrained`, `pretrained:NAME` or a file.
        name: the network.

    Returns:
        `height`, `width`, `channels`, and `mean` and `std` per channel on the scale of pixels / 255.

    Raises:
        ValueError: there are no such weights.
    """
    chosen = "" if is_file(reference) else reference.partition(":")[2]
    try:
        known = _timm_config(name) if name.startswith("timm/") else _torchvision_config(_entry(name, chosen), name)
    except ValueError:
        if is_file(reference):
            return None  # of a network of the user's own
        raise
    return known


def read_pretrained(reference: str, name: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights, downloaded once, and the classes they tell apart (empty where nobody knows).

    Raises:
        ValueError: there are no such weights, they cannot be downloaded, or the file is missing or damaged.
    """
    if is_file(reference):
        return read_file(Path(reference)), ()
    if name.startswith("timm/"):
        return _from_timm(name.removeprefix("timm/")), ()
    entry = _entry(name, reference.partition(":")[2])
    file = Path(torch.hub.get_dir()) / "checkpoints" / entry.url.rpartition("/")[2]
    if not file.exists():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(entry.url, str(file), _hash_in(file.name), progress=False)
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"the weights of {name} cannot be downloaded ({_first_line(error)}); get {entry.url} elsewhere and "
                f"put it at {file}, or name the file: model.weights: path/to/{file.name}"
            ) from error
    weights = {_modern(key): value for key, value in read_file(file).items() if not key.lower().startswith("aux")}
    return weights, tuple(entry.meta.get("categories", ()))


def read_file(file: Path) -> dict[str, Tensor]:
    """Tensors by name from a safetensors file or one that `torch.save` wrote. Nothing in it is executed.

    Raises:
        ValueError: it is missing, damaged, or holds something else than tensors by name.
    """
    try:
        if file.suffix == ".safetensors":
            found: Any = unpack(file.read_bytes())
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"there is no file {file}") from None
    except IsADirectoryError:
        raise ValueError(f"{file} is a folder; allowed: a file that ends in {', '.join(WEIGHT_FILES)}") from None
    except Exception as error:  # torch.load raises whatever unpickling damaged bytes comes to
        raise ValueError(f"{file} is damaged or no file of weights ({_first_line(error)}); get it anew") from error
    if isinstance(found, dict):  # as training scripts save them: the weights beside an epoch and an optimizer
        found = next((found[key] for key in ("state_dict", "model") if isinstance(found.get(key), dict)), found)
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{file} does not hold weights; allowed: tensors by name, as model.state_dict() gives them")
    return {str(name).removeprefix("module."): value for name, value in found.items()}


def _entry(name: str, wanted: str) -> Any:
    """torchvision's entry for the weights of a network: by name, or the best."""
    models = torchvision().models
    if name not in models.list_models(module=models):
        allowed = "a network of torchvision (resnet18), timm/NAME, run:NAME or a file of weights"
        raise ValueError(f"there are no published weights of {name}; allowed: {allowed}")
    entries = models.get_model_weights(name)
    known = {str(entry).partition(".")[2]: entry for entry in entries}
    if not known:
        raise ValueError(f"torchvision has no pretrained weights of {name}")
    if wanted and wanted not in known:
        raise ValueError(f'"{wanted}" are no weights of {name}; allowed: {", ".join(known)}')
    return known[wanted] if wanted else entries.DEFAULT


def _torchvision_config(entry: Any, name: str) -> dict[str, Any]:
    transform = entry.transforms()
    size = transform.crop_size[0] if isinstance(transform.crop_size, (list, tuple)) else transform.crop_size
    scale = {"mean": tuple(transform.mean), "std": tuple(transform.std)}
    if name in ("googlenet", "inception_v3"):  # they undo ImageNet's scale inside, when torchvision loads the weights
        scale = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    return {"height": size, "width": size, "channels": 3, **scale}


def _timm_config(name: str) -> dict[str, Any]:
    torchvision()
    try:
        import timm
    except ImportError:
        raise ValueError(f"{name} needs the library timm; install it with: pip install 'lehr[timm]'") from None
    config = timm.get_pretrained_cfg(name.removeprefix("timm/"))
    if config is None:
        raise ValueError(f"there are no published weights of {name}")
    channels, height, width = config.input_size
    return {"height": height, "width": width, "channels": channels, "mean": config.mean, "std": config.std}


def _from_timm(name: str) -> dict[str, Tensor]:
    torchvision()
    import timm

    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # whatever its hub and its many formats raise
        config = timm.get_pretrained_cfg(name)
        place = (config.hf_hub_id and f"https://huggingface.co/{config.hf_hub_id}") or config.url
        raise ValueError(
            f"the weights of timm/{name} cannot be downloaded ({_first_line(error)}); get model.safetensors from "
            f"{place} elsewhere and name the file: model.weights: path/to/model.safetensors"
        ) from error


def _hash_in(file: str) -> str | None:
    found = re.search(r"-([a-f0-9]{8,})\.", file)
    return found[1] if found else None


def _modern(key: str) -> str:
    """Names of layers as they are today; those of densenet were others when its weights were saved."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", key)


def _first_line(error: BaseException) -> str:
    lines = str(getattr(error, "reason", None) or error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
