"""Normalisation: from uint8 pixels to the network's input, the same for training, evaluation and prediction."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from lehr.data.dataset import DataSubset
from lehr.data.pixels import PixelFormat
from lehr.models.recipes import Preprocessing


@dataclass(frozen=True)
class Preprocess:
    """Scales pixels to mean 0 and standard deviation 1 per channel over the training rows.

    Attributes:
        height, width, channels: size of the network's input.
        mean, std: per channel, of pixels / 255.
        pixel_range: the values in image files that become black and white; None: those of their depth.
        resize, interpolation, letterbox, scaled: how an image becomes one of that size; see `PixelFormat`.
    """

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixel_range: tuple[float, float] | None = None
    resize: int | None = None
    interpolation: str = "bilinear"
    letterbox: bool = False
    scaled: bool = False

    @property
    def wanted(self) -> PixelFormat:
        """What an image is decoded to for the network."""
        size, how = (self.height, self.width), (self.resize, self.interpolation, self.letterbox, self.scaled)
        return PixelFormat(size, self.channels, self.pixel_range, *how)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the network's input."""
        return self.channels, self.height, self.width

    @classmethod
    def fit(cls, rows: DataSubset, most: int = 20_000, most_bytes: int = 64 << 20) -> Preprocess:
        """Measures mean and standard deviation over the first rows; a constant channel gets the standard deviation 1.

        Args:
            rows: the training rows.
            most: the most rows to read.
            most_bytes: the most bytes of pixels to read, which limits the rows of large images.
        """
        channels, height, width = rows.shape
        most = min(len(rows), most, max(1, most_bytes // (channels * height * width)))
        pixels = rows.gather(torch.arange(most)).inputs
        count = pixels.numel() / channels
        # Counting the 256 values gives exact sums in a fraction of the memory that a float copy takes.
        values = torch.arange(256, dtype=torch.float64)
        counts = torch.stack([torch.bincount(pixels[:, c].flatten(), minlength=256) for c in range(channels)]).double()
        mean = counts @ values / count
        std = ((counts @ values.square()) / count - mean.square()).clamp(min=0).sqrt()
        safe = torch.where(std > 0, std, torch.full_like(std, 255.0))
        return cls(height, width, channels, tuple((mean / 255).tolist()), tuple((safe / 255).tolist()))

    def __call__(self, pixels: Tensor, dtype: torch.dtype) -> Tensor:
        """Normalised pixels [rows, channels, height, width] of `dtype`, on the same device.

        Greyscale images are repeated to the network's channels; colour images become grey (ITU-R 601) for a network
        of one channel.

        Args:
            pixels: [rows, 1 or 3, height, width], uint8 or floats from 0 to 255.
            dtype: a floating-point type.
        """
        if pixels.shape[1] == 3 and self.channels == 1:
            grey = _per_channel((0.299, 0.587, 0.114), dtype, pixels.device)
            pixels = (pixels.to(dtype) * grey).sum(dim=1, keepdim=True)
        floats = pixels.to(dtype)
        # Channels last: the constants of a whole line, contiguous, make the arithmetic faster.
        wide = 1 if floats.is_contiguous() else floats.shape[3]
        moved, scaled = [-m / s for m, s in zip(self.mean, self.std, strict=True)], [1 / (255 * s) for s in self.std]
        shift, scale = (_per_channel(tuple(each), dtype, pixels.device, wide) for each in (moved, scaled))
        # In place where `floats` is our own copy: for large images, allocating memory takes as long as the arithmetic.
        ours = pixels.dtype == torch.uint8 and floats.shape[1] == self.channels
        return torch.addcmul(shift, floats, scale, out=floats if ours else None)

    def describe(self) -> Preprocessing:
        """As plain values, for `preprocess` in the description of a model."""
        plain = Preprocessing(
            height=self.height, width=self.width, channels=self.channels, mean=self.mean, std=self.std
        )
        if self.pixel_range is not None:
            plain["pixel_range"] = self.pixel_range
        if self.resize is not None:
            plain["resize"] = self.resize
        if self.interpolation != "bilinear":
            plain["interpolation"] = self.interpolation
        if self.letterbox:
            plain["letterbox"] = True
        if self.scaled:
            plain["decode"] = "scaled"
        return plain

    @classmethod
    def from_description(cls, description: Preprocessing) -> Preprocess:
        """The inverse of `describe`."""
        size = description["height"], description["width"], description["channels"]
        limits = description.get("pixel_range")
        return cls(
            *size,
            tuple(description["mean"]),
            tuple(description["std"]),
            (limits[0], limits[1]) if limits else None,
            description.get("resize"),
            description.get("interpolation", "bilinear"),
            description.get("letterbox", False),
            description.get("decode") == "scaled",
        )


@functools.lru_cache(maxsize=64)
def _per_channel(values: tuple[float, ...], dtype: torch.dtype, device: torch.device, wide: int = 1) -> Tensor:
    """[channels, 1, wide], channels last. Cached, since a copy in each step would make a GPU wait for the CPU."""
    with torch.inference_mode(False):  # training uses it too, even if prediction asked first
        return torch.tensor(values, dtype=dtype, device=device).repeat(wide, 1).T[:, None, :]
