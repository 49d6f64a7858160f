"""The sentence that a decoder finds the most probable: beam search, in plain torch; greedy with one beam.

At each word the `beam` best beginnings of each image go on. A finished one stays among them with the probability it
has, so that a shorter sentence can win. Nothing is drawn, and images do not depend on each other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lehr.tasks.captioning.decoders import Decoder
from lehr.tasks.captioning.vocabulary import END, START, UNKNOWN

NEVER = (START, UNKNOWN)
"""What no sentence says."""


def search(decoder: Decoder, cells: Tensor, longest: int, beam: int, length_penalty: float = 0.0) -> Tensor:
    """[images, 1 + longest]: the natural logarithm of each sentence's probability, its end included, then its words;
    0 after them.

    Args:
        cells: of the images, [images, cells, width].
        length_penalty: sentences are compared by log probability / length ** penalty, with their end counted as a
            word: 0 for the most probable one, 1 for the mean over its words, which favours longer ones.
    """
    images, device = cells.shape[0], cells.device  # len() would fix it in an export
    state = decoder.start(cells.repeat_interleave(beam, 0))
    first = torch.arange(images, device=device)[:, None] * beam
    total = cells.new_zeros(images, beam).index_fill(1, torch.arange(1, beam, device=device), -torch.inf)
    words = torch.zeros(images, beam, longest + 1, dtype=torch.int64, device=device)
    length = torch.zeros(images, beam, dtype=torch.int64, device=device)
    ended = torch.zeros(images, beam, dtype=torch.bool, device=device)
    last = torch.full((images * beam,), START, dtype=torch.int64, device=device)
    for position in range(longest + 1):
        logits, state = decoder.step(last, position, state)
        each = _allowed(logits, only_end=position == longest).log_softmax(1).reshape(images, beam, -1)
        each = torch.where(ended[:, :, None], _stays(each), each)
        length = length + (~ended).to(torch.int64)
        sums = total[:, :, None] + each
        ranked = sums / length[:, :, None].to(sums.dtype) ** length_penalty if length_penalty else sums
        at = ranked.flatten(1).topk(beam, dim=1).indices
        origin, word = at.div(each.shape[2], rounding_mode="floor"), at % each.shape[2]
        total = sums.flatten(1).gather(1, at)
        words = words.gather(1, origin[:, :, None].expand_as(words))
        words = torch.cat([words[:, :, :position], word[:, :, None], words[:, :, position + 1 :]], 2)
        length, ended = length.gather(1, origin), ended.gather(1, origin) | (word == END)
        state = decoder.reorder(state, (first + origin).flatten())
        last = word.flatten()
        if not torch.compiler.is_exporting() and not ended.is_meta and bool(ended.all()):
            break
    return torch.cat([total[:, :1], words[:, 0, :longest].to(total.dtype)], 1)


def _allowed(logits: Tensor, *, only_end: bool) -> Tensor:
    """Logits without what no sentence says; where there is room for no further word, of the end alone."""
    number = torch.arange(logits.shape[1], device=logits.device)
    never = number != END if only_end else (number == NEVER[0]) | (number == NEVER[1])
    return logits.masked_fill(never, -torch.inf)


def _stays(log_shares: Tensor) -> Tensor:
    """Of a sentence that has ended: nothing follows, and its probability stays."""
    end = torch.arange(log_shares.shape[2], device=log_shares.device) == END
    return torch.where(end, 0.0, -torch.inf).to(log_shares.dtype)
