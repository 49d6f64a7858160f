"""The network on a worker's device, ready to train: synchronised batch norm, memory layout, compilation."""

from __future__ import annotations

import os
import shutil

import torch
from torch import nn

from lehr.models.lightning import Trainer, attach
from lehr.training.group import Group
from lehr.training.setup import Plan
from lehr.training.single_rows import refuse_single_rows
from lehr.training.sync_norm import has_batch_norm, synchronise_batch_norm


def prepare_model(plan: Plan, group: Group) -> nn.Module:
    """The job's network with its starting weights on this worker's device, ready to train with the other workers.

    Raises:
        JobError: the network refuses an option or the images, or is to be compiled and there is no compiler; or a
            batch norm would get a single row.
        LehrError: a batch norm that cannot be synchronised over several workers.
    """
    if plan.job.train.compile:
        _require_compiler(plan, group.device)
    if group.device.type == "cuda":
        _tune_gpu(plan.job.train.precision)
    model = plan.build_model()
    _refuse_unused_layout(plan, model)
    if has_batch_norm(model):
        refuse_single_rows(plan, model, group.size)
    if plan.lightning:
        attach(model, Trainer(plan.length, group.rank, group.size))
    if group.size > 1 and plan.job.train.sync_batch_norm and has_batch_norm(model):
        model = synchronise_batch_norm(model, group.device)
    model = model.to(group.device, memory_format=plan.memory_format)  # type: ignore[call-overload]
    if chosen := plan.job.train.compile:
        # In place, so that the names in the state dict stay. Compiled again for each of the few batch sizes, since
        # kernels for any size are slower; torch's limit on recompilation would stop that.
        import torch._dynamo.config as dynamo  # takes a second, and is needed here alone

        dynamo.recompile_limit = max(64, dynamo.recompile_limit)
        model.compile(dynamic=False, mode=None if chosen is True else chosen)
    return model


def _refuse_unused_layout(plan: Plan, model: nn.Module) -> None:
    """Raises JobError where a layout is asked for and the network has nothing that is laid out."""
    if plan.job.train.channels_last is True and not any(p.ndim in (4, 5) for p in model.parameters()):
        what = f"has no effect on {plan.job.model.name}, which has no convolution; write train.channels_last=auto"
        raise plan.job.error("train.channels_last", what)


def _tune_gpu(precision: str) -> None:
    """Sets torch's process-wide options for this job."""
    # There are few shapes, each used often: search for the fastest kernel of each. The choice may differ from start to
    # start, so a resumed run equals an uninterrupted one only up to rounding error.
    torch.backends.cudnn.benchmark = True
    # Evaluation is in fp32 on weights that were trained in half precision: its products may be rounded as much.
    torch.set_float32_matmul_precision("high" if precision in ("bf16", "fp16") else "highest")


def _require_compiler(plan: Plan, device: torch.device) -> None:
    """Raises JobError where torch.compile, which writes C++ for CPUs and C around a GPU's kernels, would fail later."""
    variable, compilers = ("CC", ("gcc", "clang")) if device.type == "cuda" else ("CXX", ("g++", "clang++"))
    if not os.environ.get(variable) and not any(map(shutil.which, compilers)):
        what = f"{str(plan.job.train.compile).lower()} needs {compilers[0]} on every worker, and this one has none"
        raise plan.job.error("train.compile", f"{what}; allowed: false, or an image with it")
