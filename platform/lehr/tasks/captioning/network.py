"""The network of captioning: what any backbone sees of an image, and a decoder that makes words of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lehr.tasks.captioning.beam import search
from lehr.tasks.captioning.decoders import Decoder, LSTMDecoder, TransformerDecoder
from lehr.tasks.feature_maps import Around, feature_maps, kept_maps, without_classifier

MOST_CELLS = 8
"""Cells of a map along each side, at most: larger maps are averaged."""


class Captioner(Around):
    """Images [rows, channels, height, width] → sentences, and, of given ones, logits of their words.

    Called with images alone, it gives [rows, 1 + longest], see `lehr.tasks.captioning.beam`. Called with words too, it
    gives logits [sentences, length, words]; in evaluation a mapping of these, `logits`, and the sentences, `found`.

    Args:
        backbone: a classifier; its coarsest feature map is used, or what its last layer gets, where it has no map.
        shape: (channels, height, width) of the images.
        words: how many words there are.
        options: `decoder`, `width`, `depth`, `heads`, `dropout`, `longest`, `beam`, `length_penalty` of the task.
    """

    def __init__(self, backbone: nn.Module, shape: tuple[int, int, int], words: int, options: dict[str, Any]) -> None:
        super().__init__()
        self.longest, self.beam = options["longest"], options["beam"]
        self.length_penalty = options["length_penalty"]
        images = torch.zeros(2, *shape, device=next(backbone.parameters()).device)
        self.backbone = backbone
        self.layer, self.dropped, example = _encoder(backbone, images)
        grid = tuple(min(side, MOST_CELLS) for side in example.shape[2:]) if example.ndim == 4 else (1, 1)
        self.head = Head((grid[0], grid[1]), _cells(example).shape[2], words, options)

    head: Head

    def forward(self, images: Tensor, words: Tensor | None = None, row_of: Tensor | None = None) -> Any:
        cells = self.head.seen(_cells(self._encode(images)))
        if words is None:
            return cells if self.training else self._said(cells)
        logits = self.head.decoder(cells if row_of is None else cells.index_select(0, row_of), words)
        return logits if self.training else {"logits": logits, "found": self._said(cells)}

    def _encode(self, images: Tensor) -> Tensor:
        if not self.layer:
            return self.backbone(images)
        with kept_maps(self.backbone, [self.layer]) as kept:
            self.backbone(images)
        return kept[self.layer]

    def _said(self, cells: Tensor) -> Tensor:
        return search(self.head.decoder, cells, self.longest, self.beam, self.length_penalty)


class Head(nn.Module):
    """All that is above the backbone.

    Args:
        grid: how many cells there are from top to bottom, and from left to right. channels: of each.
    """

    def __init__(self, grid: tuple[int, int], channels: int, words: int, options: dict[str, Any]) -> None:
        super().__init__()
        width, depth, dropout = options["width"], options["depth"], options["dropout"]
        self.project, self.norm = nn.Linear(channels, width), nn.LayerNorm(width)
        self.place = nn.Parameter(_places(grid, width))
        self.decoder: Decoder
        if options["decoder"] == "lstm":
            self.decoder = LSTMDecoder(words, width, depth, dropout)
        else:
            self.decoder = TransformerDecoder(words, width, depth, options["longest"], options["heads"], dropout)

    def seen(self, cells: Tensor) -> Tensor:
        """Cells [rows, cells, channels] as the decoder takes them, [rows, cells, width]: what they are, and where."""
        return self.norm(self.project(cells.to(self.place.dtype))) + self.place


def _places(grid: tuple[int, int], width: int) -> Tensor:
    """[cells, width]: waves over the rows, then over the columns, from which places are learned. They are as large as
    what is seen: with small random numbers words do not find their places for many epochs."""
    sides = []
    rows_and_columns = torch.meshgrid(*map(torch.arange, grid), indexing="ij")
    for side, size in zip(rows_and_columns, (width // 2, width - width // 2), strict=True):
        wave = torch.pi * 2.0 ** (torch.arange(size) // 2 % 4) / 8
        angle = side.flatten()[:, None] * wave
        sides.append(torch.where(torch.arange(size) % 2 == 0, angle.sin(), angle.cos()))
    return torch.cat(sides, 1)


def _cells(features: Tensor) -> Tensor:
    """[rows, cells, channels] of a map, or of a vector, which is one cell."""
    if features.ndim != 4:
        return features.flatten(1)[:, None]
    height, width = features.shape[2:]
    if max(height, width) > MOST_CELLS:
        features = F.adaptive_avg_pool2d(features, (min(height, MOST_CELLS), min(width, MOST_CELLS)))
    return features.flatten(2).transpose(1, 2)


def _encoder(backbone: nn.Module, images: Tensor) -> tuple[str, str, Tensor]:
    """The layer whose map is used, empty for what the backbone itself gives; the last layer, which is left out, empty
    where it stays; and what the encoder gives of the images."""
    maps = feature_maps(backbone, images)[-1:]
    try:
        dropped = without_classifier(backbone, images, maps) if maps else ""
    except ValueError:  # patches of a transformer: what is seen comes after its map
        maps = []
    with torch.no_grad():
        backbone_mode = backbone.training
        backbone.eval()
        given = images.to(next(backbone.parameters()).dtype)
        if maps:
            with kept_maps(backbone, [maps[0].layer]) as kept:
                backbone(given)
            found = kept[maps[0].layer]
        else:
            dropped = _without_last(backbone, given)
            found = backbone(given)
        backbone.train(backbone_mode)
    return (maps[0].layer if maps else ""), dropped, found


def _without_last(backbone: nn.Module, images: Tensor) -> str:
    """Leaves out the last layer with weights if what it gets is a vector for each image. Returns its name, or empty."""
    name = next((each for each, layer in reversed(list(backbone.named_modules())) if hasattr(layer, "weight")), "")
    if not name:
        return ""
    layer = backbone.get_submodule(name)
    backbone.set_submodule(name, nn.Identity())
    found = backbone(images)
    if isinstance(found, Tensor) and found.ndim == 2:
        return name
    backbone.set_submodule(name, layer)
    return ""
