"""How pretrained weights are fine-tuned: what stays frozen, for how long, and the learning rate of each layer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lehr.durations import Duration
from lehr.job.sections import Section


class FinetuneSection(Section):
    """Fine-tuning of `model.weights`: the head first, then the blocks of the network below it, from the top.

    A frozen block does not change: neither its parameters nor its running statistics, and its dropout is off.

    Rates that fall from block to block (`layer_decay`), and blocks that begin one after the other (`unfreeze`): Howard
    and Ruder, "Universal language model fine-tuning for text classification", 2018. The head first (`head_first`):
    Kumar and others, "Fine-tuning can distort pretrained features", 2022. Running statistics (`batch_norm`): Kornblith
    et al., "Do better ImageNet models transfer better?", 2019, go on with those of the pretraining at a momentum that
    fits the number of steps; small batches measure them worse than the pretraining did.
    """

    head_first: Duration = Field(
        default=Duration(20, "%"), description="How long only the head is trained. A duration; 100%: the whole run."
    )
    lr_factor: float = Field(
        default=0.1, gt=0, le=1, description="Learning rate of the topmost block, as a share of the head's."
    )
    layer_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Factor on the rate from each block to the one below it. 1: the same for all.",
    )
    unfreeze: Duration = Field(
        default=Duration(0, "step"),
        description="After head_first, the time between one block and the next one below. A duration; 0: all at once.",
    )
    frozen: int = Field(default=0, ge=0, description="Blocks from the bottom that are never trained.")
    batch_norm: Literal["frozen", "train"] = Field(
        default="frozen",
        description="Running statistics of batch norm below the head. frozen: those of the pretraining, always; "
        "train: they are updated in the blocks that are trained.",
    )
