"""Which location of the network learns which box, and the loss of that.

A location learns the smallest of the boxes around it that are of the size of its level and whose centre is near: FCOS
with centre sampling (Tian et al., 2020). Boxes around many things are learned by none, and locations inside them that
learn no other are left out of the loss. The loss of a row is divided by its own locations that learn a box, as Lin et
al., "Focal loss for dense object detection", 2017, do it: so it does not depend on the rows it is together with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lehr.tasks.detection.network import BEFORE_CLASSES, WHERE

RADIUS = 1.5
"""In strides, how far from the centre of its box a location may be."""
ALPHA, GAMMA = 0.25, 2.0
"""Of the focal loss, as in its paper and in FCOS."""


@dataclass(frozen=True)
class Assigned:
    """What each location learns.

    Attributes:
        label: int64 [rows, locations]: the class, −1 for none.
        sides: [rows, locations, 4]: the distances to the left, top, right and bottom side, in pixels.
        counts: bool [rows, locations]: whether it is in the loss of the classes.
    """

    label: Tensor
    sides: Tensor
    counts: Tensor


def assign(where: Tensor, targets: Any, dtype: torch.dtype) -> Assigned:
    """What each location learns.

    Args:
        where: [locations, 3], x, y and stride. targets: `RaggedTensor`, rows of [boxes, 6].
    """
    rows, most = len(targets), max(1, int(targets.lengths.max())) if len(targets) else 1
    device, row_of = where.device, targets.row_of
    place = torch.arange(len(row_of), device=device) - targets.starts[row_of]
    boxes = torch.zeros(rows, most, 6, dtype=dtype, device=device)
    boxes[:, :, 0] = -1
    boxes[row_of, place] = targets.values.reshape(-1, 6).to(dtype)
    label, corners, crowd = boxes[:, :, 0], boxes[:, :, 1:5], boxes[:, :, 5] > 0
    point, stride = where[:, None, :2].to(dtype), where[:, 2].to(dtype)
    # [rows, locations, boxes, 4]: positive where the location is inside
    sides = torch.cat([point - corners[:, None, :, :2], corners[:, None, :, 2:] - point], 3)
    inside = sides.amin(3) > 0
    centre = (corners[:, None, :, :2] + corners[:, None, :, 2:]) / 2
    near = (point - centre).abs().amax(3) < RADIUS * stride[:, None]
    low, high = _sizes(stride)
    reach = sides.amax(3)
    fits = (reach > low[:, None]) & (reach <= high[:, None])
    real = (label >= 0)[:, None]
    learns = inside & near & fits & real & ~crowd[:, None]
    area = (corners[:, :, 2:] - corners[:, :, :2]).prod(2)[:, None].expand_as(reach)
    least, chosen = area.masked_fill(~learns, torch.inf).min(2)
    found = least.isfinite()
    of = label.gather(1, chosen.flatten(1)).reshape(chosen.shape).long() if rows else chosen
    taken = sides.gather(2, chosen[:, :, None, None].expand(-1, -1, 1, 4))[:, :, 0]
    hidden = (inside & crowd[:, None] & real).any(2)
    return Assigned(torch.where(found, of, -1), taken, found | ~hidden)


def _sizes(stride: Tensor) -> tuple[Tensor, Tensor]:
    """The longest distance from a location to a side of its box: above four and up to eight strides; of the finest
    level from 0, of the coarsest without an end."""
    low = torch.where(stride == stride.min(), 0.0, 4 * stride)
    return low, torch.where(stride == stride.max(), torch.inf, 8 * stride)


def losses(outputs: Tensor, targets: Any) -> Tensor:
    """[rows]: the loss of each row; 0 for one whose image could not be read.

    Args:
        outputs: [rows, locations, 8 + classes], as the network gives them. targets: `RaggedTensor`, rows of [boxes, 6].
    """
    where = outputs[0, :, :WHERE].detach() if len(outputs) else outputs.new_zeros(0, WHERE)
    if not len(outputs):
        return outputs.sum(dim=(1, 2))
    learned = assign(where, targets, outputs.dtype)
    positive = learned.label >= 0
    count = positive.sum(1).clamp(min=1)
    wanted = learned.sides.clamp(min=0)
    logits = outputs[:, :, BEFORE_CLASSES:]
    there = F.one_hot(learned.label.clamp(min=0), logits.shape[2]).to(outputs.dtype) * positive[:, :, None]
    classes = (_focal(logits, there).sum(2) * learned.counts).sum(1) / count
    centre = centreness(wanted) * positive
    sides = outputs[:, :, WHERE : WHERE + 4] * where[:, 2:]
    overlap = (1 - giou(sides, torch.where(positive[:, :, None], wanted, 1.0))) * centre
    told = F.binary_cross_entropy_with_logits(outputs[:, :, WHERE + 4], centre, reduction="none") * positive
    whole = classes + overlap.sum(1) / centre.sum(1).clamp(min=1e-6) + told.sum(1) / count
    return torch.where(targets.known, whole, 0.0)


def centreness(sides: Tensor) -> Tensor:
    """√(min(l, r) / max(l, r) · min(t, b) / max(t, b)): 1 in the middle of a box, 0 at its sides.

    Args:
        sides: [..., 4], distances to the left, top, right and bottom side.
    """
    across, down = sides[..., [0, 2]], sides[..., [1, 3]]
    tiny = torch.finfo(sides.dtype).tiny
    return (across.amin(-1) / across.amax(-1).clamp(min=tiny) * down.amin(-1) / down.amax(-1).clamp(min=tiny)).sqrt()


def giou(sides: Tensor, others: Tensor) -> Tensor:
    """Overlap less the share of the smallest box around both that neither fills: Rezatofighi et al., "Generalized
    intersection over union", 2019.

    Args:
        sides, others: [..., 4], of two boxes the distances from one location inside both to their sides.
    """
    shared = _area(torch.minimum(sides, others))
    union = _area(sides) + _area(others) - shared
    around = _area(torch.maximum(sides, others))
    tiny = torch.finfo(sides.dtype).tiny
    return shared / union.clamp(min=tiny) - (around - union) / around.clamp(min=tiny)


def _area(sides: Tensor) -> Tensor:
    return (sides[..., 0] + sides[..., 2]) * (sides[..., 1] + sides[..., 3])


def _focal(logits: Tensor, there: Tensor) -> Tensor:
    """−α (1 − p)^γ log p, with p the probability of what is true: what is told well counts less."""
    cross = F.binary_cross_entropy_with_logits(logits, there, reduction="none")
    p = logits.sigmoid()
    missed = p + there - 2 * p * there
    return (ALPHA * there + (1 - ALPHA) * (1 - there)) * missed**GAMMA * cross
