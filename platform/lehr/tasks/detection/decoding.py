"""From the outputs of the network to boxes: those of the locations that are surest, each thing once.

A box that overlaps one of its class with a higher score is left out: greedy non-maximum suppression, in plain torch and
of fixed shapes, so that it needs no compiled operators, gives the same on every machine, and can be exported.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lehr.tasks.box_precision import MOST_BOXES
from lehr.tasks.detection.network import BEFORE_CLASSES, WHERE

CANDIDATES = 1000
"""Pairs of a location and a class that are looked at, as in FCOS."""
LEAST_SCORE, OVERLAP = 0.05, 0.6
"""Below this score nothing is a box; above this overlap two boxes are one thing. As in FCOS."""
NUMBERS = 6
"""Of a box: score, class, x0, y0, x1, y1."""


def decode(outputs: Tensor, most: int = MOST_BOXES) -> Tensor:
    """[rows, most, 6]: score, class and sides of each box, in pixels, the surest first; 0, −1 and 0 for none.

    The score is √(probability of the class · centre-ness).
    """
    count, width = outputs.shape[1:]
    classes = width - BEFORE_CLASSES
    scores = (outputs[:, :, BEFORE_CLASSES:].sigmoid() * outputs[:, :, WHERE + 4 : WHERE + 5].sigmoid()).sqrt()
    best, at = scores.flatten(1).topk(min(CANDIDATES, count * classes), dim=1)
    label, place = at % classes, at.div(classes, rounding_mode="floor")
    chosen = outputs[:, :, : WHERE + 4].gather(1, place[:, :, None].expand(-1, -1, WHERE + 4))
    point, sides = chosen[:, :, :2], chosen[:, :, WHERE:] * chosen[:, :, 2:WHERE]
    boxes = torch.cat([point - sides[:, :, :2], point + sides[:, :, 2:]], 2)
    return suppress(best, label, boxes, most)


def suppress(scores: Tensor, labels: Tensor, boxes: Tensor, most: int, overlap: float = OVERLAP) -> Tensor:
    """The boxes that are kept, [rows, most, 6] as `decode` gives them.

    Args:
        scores, labels: [rows, candidates]. boxes: [rows, candidates, 4]. overlap: above which two are one thing.
    """
    left = torch.where(scores >= LEAST_SCORE, scores, -torch.inf)
    area = (boxes[:, :, 2:] - boxes[:, :, :2]).clamp(min=0).prod(2)
    each = torch.cat([scores[:, :, None], labels[:, :, None].to(scores.dtype), boxes], 2)
    nothing = each.new_tensor([0.0, -1.0, 0.0, 0.0, 0.0, 0.0]) + torch.zeros_like(scores[:, :1])
    kept: list[Tensor] = []
    while len(kept) < most and scores.shape[1]:
        best, at = left.max(1, keepdim=True)
        there = best.isfinite()
        if not torch.compiler.is_exporting() and not bool(there.any()):
            break
        taken = each.gather(1, at[:, :, None].expand(-1, -1, NUMBERS))
        kept.append(torch.where(there, taken[:, 0], nothing))
        low, high = torch.maximum(boxes[:, :, :2], taken[:, :, 2:4]), torch.minimum(boxes[:, :, 2:], taken[:, :, 4:])
        shared = (high - low).clamp(min=0).prod(2)
        union = (area + area.gather(1, at) - shared).clamp(min=torch.finfo(area.dtype).tiny)
        same = (shared / union > overlap) & (labels == labels.gather(1, at))
        left = left.masked_fill(same, -torch.inf).scatter(1, at, -torch.inf)
    kept += [nothing] * (most - len(kept))
    return torch.stack(kept, 1)
