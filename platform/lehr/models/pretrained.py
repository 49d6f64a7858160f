"""Published weights of torchvision's and timm's networks, and weights files. No code in them is executed."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lehr.extras import install
from lehr.job.sections import WEIGHT_FILES
from lehr.job.text import nearest
from lehr.models.lite import SIDES, lite_file, lite_recipe, to_install
from lehr.models.recipes import Preset, Recipe, of_file, of_timm, of_torchvision
from lehr.models.vision import torchvision
from lehr.runs.weights import unpack

DOWNLOAD_SECONDS = 15.0  # without an answer, until a download is given up
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class PublishedWeights(Protocol):
    """A member of torchvision's `WeightsEnum`."""

    @property
    def url(self) -> str: ...

    @property
    def meta(self) -> Mapping[str, Any]: ...

    def transforms(self) -> Preset: ...


class NotDownloaded(ValueError):
    """Published weights cannot be had; says what to type instead.

    Attributes:
        problem: what cannot be had, and why.
        remedy: what to do, and the whole assignment to type.
    """

    def __init__(self, name: str, error: Exception, remedy: str) -> None:
        verb = "found" if isinstance(error, ImportError) else "downloaded"
        self.problem = f"the weights of {name} cannot be {verb} ({_first_line(error)})"
        self.remedy = remedy
        super().__init__(f"{self.problem}; {remedy}")


def is_file(reference: str) -> bool:
    """Whether `model.weights` names a file."""
    return reference.endswith(WEIGHT_FILES) and not reference.startswith("run:")


def needs_download(reference: str, name: str) -> bool:
    """Whether the published weights of a torchvision network would be downloaded; False for what is no such network."""
    if is_file(reference) or not reference.startswith("pretrained") or name.startswith("timm/"):
        return False
    try:
        return not _kept(_entry(name, reference.partition(":")[2])).exists()
    except ValueError:
        return False


def _kept(entry: PublishedWeights) -> Path:
    """Where torch keeps weights that it has downloaded."""
    return Path(torch.hub.get_dir()) / "checkpoints" / entry.url.rpartition("/")[2]


def recipe(reference: str, name: str) -> Recipe:
    """How the images were prepared that these weights were trained on. Downloads nothing.

    A file that does not say so is taken for one of the published weights of its network, if there are any.

    Args:
        reference: `pretrained`, `pretrained:NAME` or a file.
        name: the network.

    Raises:
        ValueError: there are no such weights, or what the file says of itself is damaged.
    """
    from_file = is_file(reference)
    if from_file and (said := of_file(Path(reference))):
        return said
    try:
        if name.startswith("timm/"):
            found = _timm_recipe(name)
        elif name in SIDES:
            found = lite_recipe(name, f"the package of {name}")
        else:
            entry = _entry(name, "" if from_file else reference.partition(":")[2])
            found = of_torchvision(entry.transforms(), name, str(entry))
    except ValueError:
        if from_file:
            return Recipe(guessed=True)  # a file for a network that has no published weights
        raise
    return replace(found, guessed=True) if from_file else found


def read_pretrained(
    reference: str, name: str, field: str = "model.weights"
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights, downloaded once, and the classes they distinguish (empty if unknown).

    Args:
        reference: `pretrained`, `pretrained:NAME` or a file.
        name: the network.
        field: of the job that says so, for what to type where they cannot be had.

    Raises:
        NotDownloaded: they cannot be downloaded, or are not installed.
        ValueError: there are no such weights, or the file is missing or damaged.
    """
    if is_file(reference):
        return read_file(Path(reference)), ()
    if name.startswith("timm/"):
        return _from_timm(name.removeprefix("timm/"), field), ()
    if name in SIDES:
        if file := lite_file(name):
            return read_file(file), ()
        raise NotDownloaded(name, ImportError("no package has them"), f"type: {to_install(name)}")
    entry = _entry(name, reference.partition(":")[2])
    file = _kept(entry)
    if not file.exists():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with _patience(DOWNLOAD_SECONDS):
                torch.hub.download_url_to_file(entry.url, str(file), _hash_in(file.name), progress=False)
        except (OSError, RuntimeError) as error:
            remedy = f"download {entry.url} elsewhere and save it as {file}, or type {field}=path/to/{file.name}"
            raise NotDownloaded(name, error, remedy) from error
    weights = {_current_name(key): value for key, value in read_file(file).items() if not key.lower().startswith("aux")}
    return weights, tuple(entry.meta.get("categories", ()))


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """How long a connection may stand still: torch waits for a network that drops packets for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def read_file(file: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, from a file in safetensors' or torch's format. No code in it is executed.

    Raises:
        ValueError: the file is missing, damaged, or contains something other than tensors by name.
    """
    try:
        if file.suffix == ".safetensors":
            found: object = unpack(file.read_bytes())
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        near = nearest(file.name, _weight_files(file.parent))
        other = f"did you mean {file.with_name(near)}?" if near else "name one that is there"
        raise ValueError(f"there is no file {file}; {other}") from None
    except IsADirectoryError:
        raise ValueError(f"{file} is a folder; allowed: a file that ends in {', '.join(WEIGHT_FILES)}") from None
    except Exception as error:  # damaged bytes make torch.load raise errors of any type
        raise ValueError(_not_weights(file, error)) from error
    if isinstance(found, dict):  # training scripts save the weights beside the epoch and the optimizer
        found = next((found[key] for key in ("state_dict", "model") if isinstance(found.get(key), dict)), found)
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        what = f"{file} does not contain weights"
        raise ValueError(f"{what}; allowed: tensors by name, as model.state_dict() returns them")
    return {str(name).removeprefix("module."): value for name, value in found.items()}


def _weight_files(folder: Path) -> list[str]:
    """The names of the weights files in a folder; none where it cannot be read."""
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(WEIGHT_FILES))
    except OSError:
        return []


def _not_weights(file: Path, error: Exception) -> str:
    """What a file is that cannot be read as weights, and what to do."""
    try:
        start = file.open("rb").read(64).lstrip()
    except OSError as problem:
        return f"{file} cannot be read ({problem.strerror or problem})"
    if not start:
        return f"{file} is empty; download or save it again"
    if start.startswith(b"version https://git-lfs"):
        what = "only points to a file that Git LFS holds"
        return f"{file} {what}; type git lfs pull in its folder, or download the file itself"
    if start[:1] == b"<":
        return f"{file} is a web page, not weights; download it again by the address of the file itself"
    if start[:1] == b"\x80" and "weights_only" in str(error):
        what = "holds Python objects beside its tensors, which may run code when they are read"
        return f"{file} {what}; save only the weights: torch.save(model.state_dict(), {str(file)!r})"
    why = _first_line(error).partition(". ")[0]
    return f"{file} is damaged or is not a weights file ({why}); download or save it again"


def _entry(name: str, wanted: str) -> PublishedWeights:
    """torchvision's entry for the weights of a network, by name; without one, the best."""
    models = torchvision().models
    if name not in models.list_models(module=models):
        allowed = "a network of torchvision (resnet18), timm/NAME, run:NAME or a weights file"
        raise ValueError(f"there are no published weights of {name}; allowed: {allowed}")
    entries = models.get_model_weights(name)
    known: dict[str, PublishedWeights] = {str(entry).partition(".")[2]: entry for entry in entries}
    if not known:
        raise ValueError(f"torchvision has no pretrained weights of {name}")
    if wanted and wanted not in known:
        raise ValueError(f"{name} has no weights named {wanted}; allowed: {', '.join(known)}")
    best: PublishedWeights = entries.DEFAULT
    return known[wanted] if wanted else best


def _timm_recipe(name: str) -> Recipe:
    torchvision()
    try:
        import timm
    except ImportError:
        raise ValueError(f"{name} needs the library timm; install it with: {install('timm')}") from None
    config = timm.get_pretrained_cfg(name.removeprefix("timm/"))
    if config is None:
        raise ValueError(f"there are no published weights of {name}")
    return of_timm(config.to_dict(), f"timm's {config.architecture or name}{config.tag and f'.{config.tag}'}")


def _from_timm(name: str, field: str) -> dict[str, Tensor]:
    torchvision()
    import timm

    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # its hub and its many formats raise errors of any type
        config = timm.get_pretrained_cfg(name)
        url = (config.hf_hub_id and f"https://huggingface.co/{config.hf_hub_id}") or config.url
        remedy = f"download model.safetensors from {url} elsewhere and type {field}=path/to/model.safetensors"
        raise NotDownloaded(f"timm/{name}", error, remedy) from error


def _hash_in(file: str) -> str | None:
    found = re.search(r"-([a-f0-9]{8,})\.", file)
    return found[1] if found else None


def _current_name(key: str) -> str:
    """The current name of a layer: densenet's weights were saved with other names than its layers have now."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", key)


def _first_line(error: BaseException) -> str:
    why = getattr(error, "reason", None) or error
    lines = str(getattr(why, "strerror", None) or why).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
