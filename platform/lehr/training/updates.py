"""One optimizer step: forward and backward over the parts of a batch, in the job's precision, and the update."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lehr.data.dataset import Batch
from lehr.data.randomness import key
from lehr.training.group import Group
from lehr.training.optimizers import build_optimizer
from lehr.training.setup import Plan
from lehr.training.sync_norm import has_batch_norm, synchronised

MEASURE_EVERY = 10  # steps between measurements of the relative update size, which costs a copy of the weights


def network(plan: Plan, group: Group) -> nn.Module:
    """The job's network with its starting weights on this worker's device, ready to train with the others.

    Raises:
        JobError: the network refuses an option, or the images; or is to be compiled where there is no compiler.
        LehrError: a batch norm that cannot be taken over several workers.
    """
    if plan.job.train.compile:
        _need_a_compiler(plan, group.device)
    if group.device.type == "cuda":
        _tune_gpu(plan.job.train.precision)
    model = plan.build_model()
    if group.size > 1 and plan.job.train.sync_batch_norm and has_batch_norm(model):
        model = synchronised(model, group.device)
    model = model.to(group.device, memory_format=plan.memory_format)  # type: ignore[call-overload]
    if chosen := plan.job.train.compile:
        # In place, so that the names in the state dict stay as they are; and anew for each of the few batch sizes there
        # are, since kernels for any size are slower. Beyond torch's limit on how often, it would no longer compile.
        import torch._dynamo.config as dynamo  # takes a second, and is needed here alone

        dynamo.recompile_limit = max(64, dynamo.recompile_limit)
        model.compile(dynamic=False, mode=None if chosen is True else chosen)
    return model


def _tune_gpu(precision: str) -> None:
    """Sets what torch knows per process, for this job."""
    # Few shapes come, and often: the fastest kernels for each. Which ones those are may differ from start to start, so
    # that a resumed run is the undisturbed one but for rounding.
    torch.backends.cudnn.benchmark = True
    # Evaluation is in fp32, of weights that were trained in half of that: products may round as convolutions do.
    torch.set_float32_matmul_precision("high" if precision in ("bf16", "fp16") else "highest")


def _need_a_compiler(plan: Plan, device: torch.device) -> None:
    """Raises JobError where torch.compile, which writes C++ for CPUs and C around a GPU's kernels, would fail later."""
    variable, compilers = ("CC", ("gcc", "clang")) if device.type == "cuda" else ("CXX", ("g++", "clang++"))
    if not os.environ.get(variable) and not any(map(shutil.which, compilers)):
        what = f"{str(plan.job.train.compile).lower()} needs {compilers[0]} on every worker, and this one has none"
        raise plan.job.error("train.compile", f"{what}; allowed: false, or an image with it")


class Updates:
    """Updates the weights of a model, step by step.

    Attributes:
        optimizer: with its state; the learning rate is set anew for every step.
        scaler: of the loss in fp16; does nothing in the other precisions.
    """

    def __init__(self, plan: Plan, model: nn.Module, group: Group) -> None:
        section = plan.job.train
        self._plan, self._model, self._group = plan, model, group
        # Without synchronisation each worker has running statistics of its own; those of the first one count.
        self._own_buffers = group.size > 1 and not section.sync_batch_norm and has_batch_norm(model)
        self._freezing = plan.freezing(model)
        self.optimizer = build_optimizer(plan.job, model, self._freezing.rates() if self._freezing else None)
        self.scaler = torch.amp.GradScaler(group.device.type, enabled=section.precision == "fp16")
        if not self._freezing:
            self._begin()

    def take(self, batch: Batch, rows: int, step: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Updates the weights by this worker's part of a global batch of `rows` rows.

        Returns:
            This worker's part of the loss, and of all workers the gradient's norm and, in some steps, |Δw| / |w|.
        """
        if self._freezing and self._freezing.apply(self._model, step):
            self._begin()
        # Dropout and the like draw from torch's own generator: seeded by the step, it has no state to restore.
        torch.manual_seed(key(self._plan.job.seed, "step", step, self._group.rank))
        for settings in self.optimizer.param_groups:
            settings["lr"] = self._plan.rate(step) * settings.get("share", 1.0)  # none in an old checkpoint
        loss = torch.zeros((), dtype=self._plan.dtype, device=self._group.device)
        for part, context in self._parts(batch, rows):
            with context:
                loss += self._backward(part, rows)
        self.scaler.unscale_(self.optimizer)
        norm = self._clip()
        before = [p.detach().clone() for p in self._parameters] if step % MEASURE_EVERY == 0 else None
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return loss, norm, None if before is None else self._change(before)

    def communication(self) -> float | None:
        """Seconds in which gradients travelled while none was computed, in the newest step that DDP measured: one in a
        hundred. None for one worker, and before the first."""
        if not isinstance(self._parallel, DistributedDataParallel):
            return None
        told = self._parallel._get_ddp_logging_data()
        if "backward_comm_time" not in told:
            return None
        return max(0.0, told["backward_comm_time"] - told["backward_compute_comm_overlap_time"]) / 1e9

    def settle(self) -> None:
        """Gives all workers the running statistics of the first one, where they are not the same already."""
        if self._own_buffers:
            self._group.share_buffers(self._model)

    def _parts(self, batch: Batch, rows: int) -> Iterator[tuple[Batch, AbstractContextManager[None]]]:
        """The parts of the batch, one after the other; gradients go to the other workers with the last one.

        Part k is rows k × rows / parts … of the global batch, whatever the number of workers: of worker r of n, whose
        rows are r, r + n, …, that is one stretch, which may be empty.
        """
        parts = min(self._plan.job.train.accumulate, rows)
        rank, size = self._group.rank, self._group.size
        for k in range(parts):
            first, end = (max(0, -(-(part * rows // parts - rank) // size)) for part in (k, k + 1))
            held = k < parts - 1 and isinstance(self._parallel, DistributedDataParallel)
            context = cast(DistributedDataParallel, self._parallel).no_sync() if held else nullcontext()
            yield Batch(batch.inputs[first:end], batch.targets[first:end], batch.ids[first:end]), context

    def _backward(self, batch: Batch, rows: int) -> Tensor:
        """Adds the gradient of this worker's share of the mean loss over `rows` rows; returns that share."""
        precision = self._plan.job.train.precision
        half = torch.float16 if precision == "fp16" else torch.bfloat16
        with torch.autocast(self._group.device.type, half, enabled=precision in ("bf16", "fp16")):
            outputs = self._parallel(*self._plan.arguments(batch))
        loss = self._plan.loss(outputs, batch.targets) / rows
        # DDP averages gradients over the workers; each worker's loss is its part of a sum, so scale back.
        self.scaler.scale(loss * self._group.size).backward()
        return loss.detach()

    def _clip(self) -> Tensor:
        """The norm of the whole gradient; scales it down to `train.clip` if it is longer."""
        norm = nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        if self._plan.job.train.clip is not None:
            nn.utils.clip_grads_with_norm_(self._parameters, self._plan.job.train.clip, norm)
        return norm

    def _change(self, before: list[Tensor]) -> Tensor:
        """|Δw| / |w| over all weights together."""
        change = torch._foreach_sub([p.detach() for p in self._parameters], before)
        return nn.utils.get_total_norm(change) / nn.utils.get_total_norm(before)

    def _begin(self) -> None:
        """Takes up the parameters that take a gradient from here on; the workers average theirs over these."""
        self._parameters = [p for p in self._model.parameters() if p.requires_grad]
        self._parallel = self._model  # what averaged over the workers until now lets go of the parameters first
        self._parallel = self._group.parallel(self._model, share_buffers=self._own_buffers)
        self._warm_up()

    def _warm_up(self) -> None:
        """One forward and backward pass over blank images, whose gradients are thrown away.

        DDP lays out its gradient buckets anew after the first backward pass, and the layout decides in which order the
        workers' gradients are added. Doing that before the first real step makes a resumed run equal to the last digit.
        """
        if self._group.size == 1:
            return
        buffers = [buffer.clone() for buffer in self._model.buffers()]
        blank = torch.zeros(2, *self._plan.splits.train.shape, dtype=torch.uint8, device=self._group.device)
        labels = self._plan.splits.train.labels
        nothing = torch.zeros(2, *labels.shape[1:], dtype=labels.dtype, device=self._group.device)
        batch = Batch(blank, nothing, nothing)
        self._plan.loss(self._parallel(*self._plan.arguments(batch)), nothing).backward()
        self.optimizer.zero_grad(set_to_none=True)
        for buffer, value in zip(self._model.buffers(), buffers, strict=True):
            buffer.copy_(value)
