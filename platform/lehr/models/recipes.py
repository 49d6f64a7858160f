"""How images are prepared for a network: what its weights were made with, and what the job says instead.

Weights know this of themselves: torchvision's by their entry, timm's by their `pretrained_cfg`, a run's by its
description, and a file by its own metadata or a `config.json` beside it, as timm saves one. Of any other file it can
only be guessed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NotRequired, Protocol, TypedDict

from lehr.job import not_a_choice
from lehr.job.sections import PreprocessingSection
from lehr.runs.weights import metadata


class Preprocessing(TypedDict):
    """How images are prepared for a network, as plain values: its input size, and mean and std per channel.

    `mean` and `std` are those of pixels / 255; `pixel_range` has the values in image files that become black and white,
    if they are not those of the images' depth; `resize` the pixels of the shorter side, if the middle is cut out of an
    image; `interpolation` how it is resized, if not bilinear; `letterbox` whether it keeps its proportions, with grey
    beside it; `decode`, `scaled`, if large JPEG files are not decoded whole. The description of a run's model contains
    one as `preprocess`.
    """

    height: int
    width: int
    channels: int
    mean: Sequence[float]
    std: Sequence[float]
    pixel_range: NotRequired[Sequence[float]]
    resize: NotRequired[int]
    interpolation: NotRequired[str]
    letterbox: NotRequired[bool]
    decode: NotRequired[str]


class Preset(Protocol):
    """torchvision's `ImageClassification`."""

    crop_size: int | Sequence[int]
    resize_size: int | Sequence[int]
    interpolation: Any
    mean: Sequence[float]
    std: Sequence[float]


INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
_CROP_SHARE = 0.875  # timm's own default: the share of the resized side that is kept


@dataclass(frozen=True)
class Recipe:
    """How images become the input of a network. What is None is not known.

    Attributes:
        channels: 1, 3 or 4.
        mean, std: per channel, of pixels / 255.
        size: (height, width) of the input.
        resize: pixels of the shorter side, of which the middle is cut out; None: both sides become `size`.
        interpolation: one of `INTERPOLATIONS`.
        source: whose weights say so, as a person would name it; empty where the job says it all.
        guessed: whether the weights do not say so themselves.
        letterbox: whether an image keeps its proportions, with grey beside it.
    """

    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: tuple[int, int] | None = None
    resize: int | None = None
    interpolation: str = "bilinear"
    source: str = ""
    guessed: bool = False
    letterbox: bool = False

    def letterboxed(self, given: PreprocessingSection | None) -> Recipe:
        """The same for labels that are places: whole images, in a letterbox. Raises ValueError where the job says
        otherwise."""
        if given is not None and (given.crop is not None or given.resize is not None):
            name = "crop" if given.crop is not None else "resize"
            what = f"{name} has no effect on images whose labels are boxes or masks"
            what += ", which are letterboxed into data.image_size"
            raise ValueError(f"{what}; remove it, and type data.image_size=320")
        return replace(self, resize=None, letterbox=True)

    def with_size(self, size: tuple[int, int] | None) -> Recipe:
        """The same for another size of input: as large a share of the image is cut off."""
        if size is None or size == self.size:
            return self
        resize = self.resize
        if resize is not None and self.size is not None:
            resize = max(min(size), math.floor(resize * min(size) / min(self.size)))
        return replace(self, size=size, resize=resize)

    @property
    def fields(self) -> dict[str, Any]:
        """The same as a job would say it, in `model.preprocessing`."""
        said: dict[str, Any] = {}
        if self.mean is not None and self.std is not None:
            said |= {"mean": list(self.mean), "std": list(self.std)}
        if self.size is not None:
            said |= {"resize": self.resize or "squash", "crop": list(self.size), "interpolation": self.interpolation}
        return said

    def sentence(self, field: str) -> str:
        """What is done with images and who says so; where it is guessed, also what to type. Without a full stop.

        Args:
            field: of the job, that holds the preprocessing: `model.preprocessing`.
        """
        whose = f" of {self.source}" if self.source else ""
        what = f"pixels as (x - mean)/std{whose}" if self.mean else "pixels as (x - mean)/std of these training images"
        if self.size is not None:
            height, width = self.size
            to = f"{width} × {height}"
            fitted = f"letterboxed into {to}" if self.letterbox else f"resized to {to}"
            how = f"the shorter side resized to {self.resize}, and {to} cut out" if self.resize else fitted
            what += f"; {how} ({self.interpolation})"
        if not self.guessed:
            return what
        said = replace(self, mean=self.mean or (0.5,), std=self.std or (0.5,)).fields
        typed = " ".join(f"{field}.{key}={_short(value)}" for key, value in said.items())
        return (
            f"{what}: guessed, since the weights do not say how they were made; if not so, type other values in {typed}"
        )


def _short(value: Any) -> str:
    return "[" + ",".join(f"{each:g}" for each in value) + "]" if isinstance(value, list) else str(value)


def resolve(theirs: Recipe | None, given: PreprocessingSection | None, size: tuple[int, int] | None) -> Recipe:
    """What the weights say, with what the job says instead.

    Args:
        theirs: of the weights; None where nothing is known of them, or there are none.
        given: what the job says of it.
        size: (height, width) that the job wants its images to have.

    Raises:
        ValueError: the job contradicts itself.
    """
    known = theirs or Recipe()
    if given is None:
        # The images of a run that resized them whatever their proportions had any size: those here keep their own.
        return known.with_size(size) if size or known.resize is not None else replace(known, size=None)
    crop = None if given.crop is None else _pair(given.crop)
    if crop and size and crop != size:
        what = f"crop {list(crop)} contradicts data.image_size {list(size)}; remove one of them"
        raise ValueError(what)
    wanted = crop or size
    keeps = not wanted and (known.resize is None or given.resize == "squash")
    recipe = replace(known, size=None) if keeps else known.with_size(wanted)
    if isinstance(given.resize, int):
        if recipe.size is None:
            raise ValueError(f"resize {given.resize} needs crop beside it, such as crop: {given.resize}")
        recipe = replace(recipe, resize=given.resize)
    elif given.resize == "squash":
        recipe = replace(recipe, resize=None)
    elif crop and known.resize is None:
        recipe = replace(recipe, resize=min(crop))
    if recipe.resize is not None and recipe.size is not None and recipe.resize < min(recipe.size):
        raise ValueError(
            f"resize {recipe.resize} is less than the {min(recipe.size)} pixels that are cut out; allowed: as many or "
            "more, or squash"
        )
    if given.interpolation:
        if recipe.size is None:
            raise ValueError("interpolation has no effect on images that keep their size; set crop too, or remove it")
        recipe = replace(recipe, interpolation=given.interpolation)
    if given.mean is not None and given.std is not None:
        recipe = _with_scale(recipe, given.mean, given.std, given.range or (0.0, 1.0))
    if given.mean is None:
        return recipe
    if given.crop is not None or recipe.size is None:
        return replace(recipe, source="", guessed=False)
    return replace(recipe, source=f"the job, and the size of {recipe.source}" if recipe.source else "")


def _with_scale(recipe: Recipe, mean: list[float], std: list[float], ends: tuple[float, float]) -> Recipe:
    """With mean and std of pixels / 255, from those in the unit in which black and white are `ends`."""
    low, high = ends
    count = max(len(mean), len(std), recipe.channels or 1)
    means, stds = (each * count if len(each) == 1 else each for each in (mean, std))
    return replace(
        recipe,
        channels=recipe.channels if count == 1 else count,
        mean=tuple((each - low) / (high - low) for each in means),
        std=tuple(each / (high - low) for each in stds),
    )


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


# ── what weights say of themselves ────────────────────────────────────────────────────────────────────────────────


def of_run(described: Preprocessing, name: str) -> Recipe:
    """Of a run's model, from its description."""
    return Recipe(
        channels=described["channels"],
        mean=tuple(described["mean"]),
        std=tuple(described["std"]),
        size=(described["height"], described["width"]),
        resize=described.get("resize"),
        interpolation=described.get("interpolation", "bilinear"),
        source=name,
    )


def of_torchvision(preset: Preset, name: str, entry: str) -> Recipe:
    """Of torchvision's published weights.

    Args:
        name: of the network.
        entry: the weights, as torchvision names them.
    """
    crop, resize = (each if isinstance(each, int) else each[0] for each in (preset.crop_size, preset.resize_size))
    mean, std = tuple(preset.mean), tuple(preset.std)
    if name in ("googlenet", "inception_v3"):  # with published weights, torchvision makes them undo ImageNet's scaling
        mean, std = (0.5,) * 3, (0.5,) * 3
    return Recipe(3, mean, std, (crop, crop), resize, preset.interpolation.value, f"torchvision's {entry}")


def of_timm(config: Mapping[str, Any], source: str) -> Recipe:
    """Of a timm configuration, as its `create_transform` would prepare images for evaluation.

    Raises:
        ValueError: it is damaged, or says what lehr does not do.
    """
    try:
        channels, height, width = (int(side) for side in config["input_size"])
        mean, std = (tuple(float(each) for each in config[key]) for key in ("mean", "std"))
        share = float(config.get("crop_pct") or _CROP_SHARE)
        interpolation = config.get("interpolation") or "bilinear"
        if min(height, width) < 1 or len(mean) != len(std) or len(mean) != channels or min(std) <= 0:
            raise ValueError("its sizes do not fit together")
        resize: int | None = math.floor(min(height, width) / share)
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"how the weights of {source} were made cannot be read: {error!r}") from None
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"{source}: {not_a_choice(interpolation, 'interpolation', INTERPOLATIONS)}")
    mode = config.get("crop_mode") or "center"
    exact = mode == "center" or (mode == "squash" and share == 1)
    if mode == "squash":
        resize = None
    return Recipe(channels, mean, std, (height, width), resize, interpolation, source, guessed=not exact)


def of_file(file: Path) -> Recipe | None:
    """Of a weights file, from its own metadata or `config.json` beside it: timm's `pretrained_cfg`. None without one.

    Raises:
        ValueError: what is there is damaged.
    """
    own = metadata(file).get("pretrained_cfg") if file.suffix == ".safetensors" else None
    beside = file.with_name("config.json")
    try:
        if own is not None:
            return of_timm(_mapping(json.loads(own)), str(file))
        found = _mapping(json.loads(beside.read_text("utf-8"))).get("pretrained_cfg") if beside.is_file() else None
        return None if found is None else of_timm(_mapping(found), str(beside))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file if own is not None else beside} cannot be read ({error})") from None


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("how the weights were made is not a mapping, as timm's pretrained_cfg is")
    return value
