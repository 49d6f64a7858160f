"""From uint8 pixels to what the network sees. The same numbers serve training, evaluation and prediction."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lehr.data.dataset import DataSubset


@dataclass(frozen=True)
class Preprocess:
    """Scales pixels to mean 0 and standard deviation 1 per channel, over the training rows.

    Attributes:
        height, width, channels: the image that the network takes.
        mean, std: per channel, on the scale of pixels / 255.
    """

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what the network takes."""
        return self.channels, self.height, self.width

    @classmethod
    def fit(cls, rows: DataSubset, most: int = 20_000, most_bytes: int = 64 << 20) -> Preprocess:
        """Measures mean and standard deviation over the first `most` rows, or fewer of large images."""
        channels, height, width = rows.shape
        most = min(len(rows), most, max(1, most_bytes // (channels * height * width)))
        pixels = rows.gather(torch.arange(most)).inputs
        count = pixels.numel() / channels
        # Counts of the 256 values give exact sums in a fraction of the memory of a float copy.
        values = torch.arange(256, dtype=torch.float64)
        counts = torch.stack([torch.bincount(pixels[:, c].flatten(), minlength=256) for c in range(channels)]).double()
        mean = counts @ values / count
        std = ((counts @ values.square()) / count - mean.square()).clamp(min=0).sqrt()
        safe = torch.where(std > 0, std, torch.full_like(std, 255.0))
        return cls(height, width, channels, tuple((mean / 255).tolist()), tuple((safe / 255).tolist()))

    def __call__(self, pixels: Tensor, dtype: torch.dtype) -> Tensor:
        """Pixels 0 to 255 [rows, 1 or 3, height, width] as normalised floats of `dtype` on the same device.

        Greyscale images come out with all channels that the network takes; coloured ones become grey (ITU-R 601) for
        a network that takes one.
        """
        if pixels.shape[1] == 3 and self.channels == 1:
            grey = _per_channel((0.299, 0.587, 0.114), dtype, pixels.device)
            pixels = (pixels.to(dtype) * grey).sum(dim=1, keepdim=True)
        floats = pixels.to(dtype)
        wide = 1 if floats.is_contiguous() else floats.shape[3]  # channels last: constants for a line, in one stretch
        moved, scaled = [-m / s for m, s in zip(self.mean, self.std, strict=True)], [1 / (255 * s) for s in self.std]
        shift, scale = (_per_channel(tuple(each), dtype, pixels.device, wide) for each in (moved, scaled))
        # In place where they are ours: with large images, asking for fresh memory takes as long as the arithmetic.
        ours = pixels.dtype == torch.uint8 and floats.shape[1] == self.channels
        return torch.addcmul(shift, floats, scale, out=floats if ours else None)

    def describe(self) -> dict[str, Any]:
        """As plain values, for `model/model.json`."""
        return asdict(self)

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> Preprocess:
        return cls(**{**description, "mean": tuple(description["mean"]), "std": tuple(description["std"])})


@functools.lru_cache(maxsize=64)
def _per_channel(values: tuple[float, ...], dtype: torch.dtype, device: torch.device, wide: int = 1) -> Tensor:
    """[channels, 1, wide], channels last. Kept: making it anew in each step would have a GPU wait for the CPU."""
    with torch.inference_mode(False):  # whoever asks first: training takes it too
        return torch.tensor(values, dtype=dtype, device=device).repeat(wide, 1).T[:, None, :]
