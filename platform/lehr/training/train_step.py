"""One training step: forward and backward pass, gradient clipping, and the optimizer's update."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lehr.data.dataset import Batch
from lehr.data.randomness import key, seed_torch
from lehr.data.targets import blank as blank_targets
from lehr.runs import NetworkSurvey
from lehr.training.group import Group
from lehr.training.optimizers import build_optimizer, calls_of
from lehr.training.setup import Plan
from lehr.training.sync_norm import has_batch_norm

MEASURE_EVERY = 10  # steps between measurements of the update ratio, which costs a copy of the weights


class StepResult(NamedTuple):
    """What a step measured, still on the device: reading a value waits for it.

    Attributes:
        loss: this worker's part of the mean loss over the global batch; the parts of all workers add up to it.
        gradient_norm: of the whole gradient before clipping, the same on every worker.
        update_ratio: |Δw| / |w| over all weights; None in steps that do not measure it.
    """

    loss: Tensor
    gradient_norm: Tensor
    update_ratio: Tensor | None


class TrainStep:
    """Takes training steps with one model; all workers call it together.

    Attributes:
        optimizer: holds its own state; the learning rate is set before every step.
        scaler: scales the loss in fp16; does nothing in the other precisions.
        network: what the first step of a run showed of the network; None in later steps of another attempt.
    """

    def __init__(self, plan: Plan, model: nn.Module, group: Group) -> None:
        if plan.lightning and type(self) is TrainStep:
            raise plan.job.error("model", f"{plan.job.model.name} has steps of its own, and this needs lehr's")
        section = plan.job.train
        self.plan, self._model, self._group = plan, model, group
        self.network: NetworkSurvey | None = None
        # Batch norm that is not synchronised has other running statistics on each worker; those of the first count.
        self._own_statistics = group.size > 1 and not section.sync_batch_norm and has_batch_norm(model)
        self._freezing = plan.freezing(model)
        self.optimizer = self._make_optimizer()
        self.scaler = torch.amp.GradScaler(group.device.type, enabled=section.precision == "fp16")
        if not self._freezing:
            self._use_trainable_parameters()

    def __call__(self, batch: Batch, rows: int, step: int) -> StepResult:
        """Updates the weights with this worker's part of a global batch of `rows` rows."""
        if self._freezing and self._freezing.apply(self._model, step):
            self._use_trainable_parameters()
        # Dropout and the like draw from torch's own generator: seeded by the step, it has no state to restore.
        seed_torch(key(self.plan.job.seed, "step", step, self._group.rank), self._group.device)
        self._set_learning_rate(self.plan.learning_rate(step))
        loss = self._forward_and_backward(batch, rows)
        if step == 0:
            self.network = survey_network(self._model)
        norm = self._clip_gradient()
        # An optimizer may draw as well, and must draw the same on every worker.
        seed_torch(key(self.plan.job.seed, "update", step), self._group.device)
        ratio = self._update_weights(measure=step % MEASURE_EVERY == 0)
        return StepResult(loss, norm, ratio)

    def load(self, optimizer: dict[str, Any], scaler: dict[str, Any] | None) -> None:
        """Restores the states of the optimizer and the loss scaler from a checkpoint."""
        self.optimizer.load_state_dict(optimizer)
        if scaler:
            self.scaler.load_state_dict(scaler)

    def sync_statistics(self) -> None:
        """Gives all workers the first one's batch-norm statistics, where each has its own."""
        if self._own_statistics:
            self._group.share_buffers(self._model)

    def communication_seconds(self) -> float | None:
        """Seconds of the newest measured step in which gradients were sent while none was computed.

        DDP measures one step in a hundred. None before the first of them, and for a single worker.
        """
        if not isinstance(self._parallel, DistributedDataParallel):
            return None
        measured: Mapping[str, int] = self._parallel._get_ddp_logging_data()
        if "backward_comm_time" not in measured:
            return None
        return max(0.0, measured["backward_comm_time"] - measured["backward_compute_comm_overlap_time"]) / 1e9

    def _make_optimizer(self) -> torch.optim.Optimizer:
        rates = self._freezing.rates() if self._freezing else None
        return build_optimizer(self.plan.job, self._model, rates, self.plan.task.outputs)

    # ── the parts of a step ─────────────────────────────────────────────────────────────────────────────────────────

    def _set_learning_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)  # old checkpoints have no share

    def _forward_and_backward(self, batch: Batch, rows: int) -> Tensor:
        """Computes the gradient of the mean loss over `rows` rows; returns this worker's part of that loss."""
        loss = torch.zeros((), dtype=self.plan.dtype, device=self._group.device)
        for part, context in self._micro_batches(batch, rows):
            with context:
                loss += self._add_gradient(part, rows)
        self.scaler.unscale_(self.optimizer)
        return loss

    def _micro_batches(self, batch: Batch, rows: int) -> Iterator[tuple[Batch, AbstractContextManager[None]]]:
        """The parts of the batch (`train.gradient_accumulation`); the last one exchanges gradients among the workers.

        Part k is rows k × rows / parts … of the global batch, whatever the number of workers. A worker's share of a
        part is one slice of its rows, which may be empty.
        """
        parts, parallel = min(self.plan.job.train.gradient_accumulation, rows), self._parallel
        own = self.plan.sampler.own(rows, self._group.rank, self._group.size)
        edges = np.searchsorted(own, [part * rows // parts for part in range(parts + 1)]).tolist()
        for k, (first, end) in enumerate(pairwise(edges)):
            last = k == parts - 1
            context = nullcontext() if last or not isinstance(parallel, DistributedDataParallel) else parallel.no_sync()
            yield Batch(batch.inputs[first:end], batch.targets[first:end], batch.ids[first:end]), context

    def _add_gradient(self, batch: Batch, rows: int) -> Tensor:
        """Adds the gradient of this part's share of the mean loss over `rows` rows; returns that share."""
        loss = self._loss(batch) / rows
        # DDP averages gradients over the workers, but the workers' losses are parts of one sum: undo the division.
        self.scaler.scale(loss * self._group.size).backward()
        return loss.detach()

    def _loss(self, batch: Batch) -> Tensor:
        """The loss summed over the rows of this part."""
        with self._autocast():
            outputs = self._parallel(*self.plan.arguments(batch))
        return self.plan.loss(outputs, batch.targets)

    def _autocast(self) -> AbstractContextManager[None]:
        precision = self.plan.job.train.precision
        half = torch.float16 if precision == "fp16" else torch.bfloat16
        return torch.autocast(self._group.device.type, half, enabled=precision in ("bf16", "fp16"))

    def _clip_gradient(self) -> Tensor:
        """Scales the gradient down to the norm `train.max_gradient_norm` if it is longer; returns the norm it had."""
        norm = nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        if self.plan.job.train.max_gradient_norm is not None:
            nn.utils.clip_grads_with_norm_(self._parameters, self.plan.job.train.max_gradient_norm, norm)
        return norm

    def _update_weights(self, measure: bool) -> Tensor | None:
        """Takes the optimizer's step; returns |Δw| / |w| over all weights together, if it is to be measured."""
        before = [p.detach().clone() for p in self._parameters] if measure else None
        with calls_of(self.plan.job.optimizer):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if before is None:
            return None
        change = torch._foreach_sub([p.detach() for p in self._parameters], before)
        return nn.utils.get_total_norm(change) / nn.utils.get_total_norm(before)

    # ── the parameters, and averaging their gradients over the workers ──────────────────────────────────────────────

    def _use_trainable_parameters(self) -> None:
        """Trains, from here on, the parameters that require a gradient now."""
        self._parameters = [p for p in self._model.parameters() if p.requires_grad]
        self._parallel = self._model  # drops an earlier DDP wrapper before the parameters get a new one
        self._parallel = self._group.parallel(self._called(), share_buffers=self._own_statistics)
        self._warm_up()

    def _called(self) -> nn.Module:
        """What the forward pass of a step calls."""
        return self._model

    def _warm_up(self) -> None:
        """Makes one forward and backward pass over blank images, and discards the gradients.

        After its first backward pass DDP rebuilds its gradient buckets, and their layout decides the order in which the
        workers' gradients are added. Doing that before the first real step keeps a resumed run exact to the last digit.
        """
        if self._group.size == 1:
            return
        buffers = [buffer.clone() for buffer in self._model.buffers()]
        rows = self.plan.splits.train
        labels = rows.labels_at(torch.arange(min(2, len(rows))))
        blank = torch.zeros(2, *rows.shape, dtype=torch.uint8, device=self._group.device)
        targets = blank_targets(labels, 2, self._group.device)
        batch = Batch(blank, targets, torch.zeros(2, dtype=torch.int64, device=self._group.device))
        self._loss(batch).backward()
        self.optimizer.zero_grad(set_to_none=True)
        for buffer, value in zip(self._model.buffers(), buffers, strict=True):
            buffer.copy_(value)


def survey_network(model: nn.Module) -> NetworkSurvey:
    """What a network shows after a backward pass: how much of it is trained, and how much a gradient reaches."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return NetworkSurvey(
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in trained),
        reached=sum(p.numel() for p in trained if p.grad is not None and bool(p.grad.any())),
        batch_norm=has_batch_norm(model),
    )
