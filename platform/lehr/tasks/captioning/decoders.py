"""From what an encoder gives of an image to words: a transformer, or an LSTM.

A decoder reads all words of a sentence at once while it learns (teacher forcing), and one at a time while it makes one:
`start` gives what it remembers of images, `step` reads a word, and `reorder` chooses which rows go on.

Vaswani et al., "Attention is all you need", 2017, with the normalisation before each part. Vinyals et al., "Show and
tell: a neural image caption generator", 2015: the image is the first input of the LSTM.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

State: TypeAlias = list[tuple[Tensor, ...]]
"""What is remembered of a sentence so far, of each layer: tensors [rows, …]."""


class Decoder(nn.Module):
    """Cells of an image [images, cells, width] and words → logits of the next word.

    Args:
        words: how many there are.
        width: of the vectors of words and cells.
    """

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.out = nn.Linear(width, words)

    def forward(self, cells: Tensor, words: Tensor) -> Tensor:
        """[sentences, length, words] from the cells of each sentence and int64 [sentences, length]."""
        raise NotImplementedError

    def start(self, cells: Tensor) -> State:
        """What is remembered before the first word."""
        raise NotImplementedError

    def step(self, words: Tensor, position: int, state: State) -> tuple[Tensor, State]:
        """Logits [rows, words] of what follows these words, int64 [rows], at a position from 0."""
        raise NotImplementedError

    def reorder(self, state: State, rows: Tensor) -> State:
        """What is remembered of these rows, int64, in this order; each of the same image as the row in its place."""
        raise NotImplementedError


class TransformerDecoder(Decoder):
    def __init__(self, words: int, width: int, depth: int, longest: int, heads: int, dropout: float) -> None:
        super().__init__(words, width)
        self.position = nn.Parameter(0.02 * torch.randn(longest + 1, width))
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, cells: Tensor, words: Tensor) -> Tensor:
        found = self.embed(words) + self.position[: words.shape[1]]
        for block in self.blocks:
            found = block(found, block.of_cells(cells))  # type: ignore[operator]
        return self.out(self.norm(found))

    def start(self, cells: Tensor) -> State:
        return [block.of_cells(cells) for block in self.blocks]  # type: ignore[operator]

    def step(self, words: Tensor, position: int, state: State) -> tuple[Tensor, State]:
        found = (self.embed(words) + self.position[position])[:, None]
        after: State = []
        for block, (keys, values, *before) in zip(self.blocks, state, strict=True):
            mine = block.self_attention.keys(block.norm_self(found))  # type: ignore[operator, union-attr]
            own = tuple(torch.cat([old, new], 2) for old, new in zip(before, mine, strict=True)) if before else mine
            found = block(found, (keys, values), own)
            after.append((keys, values, *own))
        return self.out(self.norm(found[:, 0])), after

    def reorder(self, state: State, rows: Tensor) -> State:
        return [(*each[:2], *(own.index_select(0, rows) for own in each[2:])) for each in state]


class Block(nn.Module):
    """What words say of each other, what the image says of each word, and a small network for each word."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_self, self.norm_cells, self.norm_out = (nn.LayerNorm(width) for _ in range(3))
        self.self_attention, self.cell_attention = Attention(width, heads), Attention(width, heads)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def of_cells(self, cells: Tensor) -> tuple[Tensor, ...]:
        """What is looked up of an image, the same for every word."""
        return self.cell_attention.keys(cells)

    def forward(self, words: Tensor, cells: tuple[Tensor, ...], own: tuple[Tensor, ...] | None = None) -> Tensor:
        """The words after this block.

        Args:
            cells: `of_cells` of their images. own: keys and values of the words before and these; by default of these
                words alone, each of which then sees those before it.
        """
        normed = self.norm_self(words)
        said = self.self_attention(normed, own or self.self_attention.keys(normed), causal=own is None)
        words = words + self.dropout(said)
        words = words + self.dropout(self.cell_attention(self.norm_cells(words), cells))
        return words + self.dropout(self.feed(self.norm_out(words)))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.both, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)

    def keys(self, of: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, each [rows, heads, length, width of a head]."""
        keys, values = self.both(of).chunk(2, 2)
        return self._split(keys), self._split(values)

    def forward(self, asked: Tensor, keys: tuple[Tensor, Tensor], *, causal: bool = False) -> Tensor:
        found = F.scaled_dot_product_attention(self._split(self.query(asked)), *keys, is_causal=causal)
        return self.out(found.transpose(1, 2).flatten(2))

    def _split(self, vectors: Tensor) -> Tensor:
        return vectors.unflatten(2, (self.heads, -1)).transpose(1, 2)


class LSTMDecoder(Decoder):
    def __init__(self, words: int, width: int, depth: int, dropout: float) -> None:
        super().__init__(words, width)
        self.lstm = nn.LSTM(width, width, depth, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, cells: Tensor, words: Tensor) -> Tensor:
        inputs = torch.cat([cells.mean(1, keepdim=True), self.dropout(self.embed(words))], 1)
        return self.out(self.dropout(self.lstm(inputs)[0][:, 1:]))

    def start(self, cells: Tensor) -> State:
        return [self.lstm(cells.mean(1, keepdim=True))[1]]

    def step(self, words: Tensor, position: int, state: State) -> tuple[Tensor, State]:
        found, after = self.lstm(self.embed(words)[:, None], state[0])
        return self.out(found[:, 0]), [after]

    def reorder(self, state: State, rows: Tensor) -> State:
        return [tuple(each.index_select(1, rows) for each in state[0])]
