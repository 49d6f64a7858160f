"""Batch normalisation over the global batch, so that the number of workers does not change what a network computes.

torch has this as `nn.SyncBatchNorm`, for CUDA only. `GlobalBatchNorm` does the same on any device that
`torch.distributed` supports, and computes what `nn.BatchNorm` computes on one worker with the whole batch. A worker may
have no rows at all, as some do in the last batch of an epoch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lehr.errors import LehrError


def has_batch_norm(model: nn.Module) -> bool:
    """Whether any layer normalises by the statistics of the batch."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def synchronise_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with every batch norm over all workers; its parameters stay the same, and keep their names.

    Raises:
        LehrError: a batch norm of the user's own, which may do something else besides.
    """
    if device.type == "cuda" and all(_plain(module) for module in model.modules()):
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return _replaced(model)


def _plain(module: nn.Module) -> bool:
    return not isinstance(module, _BatchNorm) or type(module).__module__.startswith("torch.nn.")


def _replaced(module: nn.Module) -> nn.Module:
    if isinstance(module, _BatchNorm):
        return GlobalBatchNorm.of(module)
    for name, child in module.named_children():
        new = _replaced(child)
        if new is not child:
            setattr(module, name, new)
    return module


class GlobalBatchNorm(_BatchNorm):
    """`nn.BatchNorm1d`, `2d` or `3d` over the rows of all workers, all of which must call it equally often.

    Ioffe and Szegedy, "Batch normalization", 2015. In evaluation mode it is `nn.BatchNorm`.
    """

    @classmethod
    def of(cls, norm: _BatchNorm) -> GlobalBatchNorm:
        """A replacement for `norm`, with the same parameter and buffer objects."""
        inner = dict(norm.named_children())
        # timm's batch norm contains the layers after it: a dropout and an activation.
        if not _plain(norm) and list(inner) != ["drop", "act"]:
            raise LehrError(
                f"model: {type(norm).__name__} is a custom batch norm, which cannot be synchronised over several "
                "workers; allowed: one worker, or train.sync_batch_norm: false"
            )
        layer = cls(0, norm.eps, norm.momentum, affine=False, track_running_stats=False)
        layer.num_features, layer.affine = norm.num_features, norm.affine
        layer.track_running_stats, layer.training = norm.track_running_stats, norm.training
        for name, parameter in norm._parameters.items():
            layer.register_parameter(name, parameter)
        for name, buffer in norm._buffers.items():
            layer.register_buffer(name, buffer)
        for name, child in inner.items():
            layer.add_module(name, child)
        return layer

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch norm expects [rows, channels, …], not {input.dim()} dimensions")

    def forward(self, input: Tensor) -> Tensor:
        """[rows, channels, …] → the same shape."""
        output = self._over_all(input) if self.training else super().forward(input)
        for child in self.children():
            output = child(output)
        return output

    def _over_all(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        count, mean, variance = _statistics(input)
        if count <= 1:
            raise ValueError(f"batch norm needs more than one value per channel in training, not {tuple(input.shape)}")
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean), share)
            self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var), share)
        return _Normalise.apply(input, self.weight, self.bias, mean, variance, count, self.eps)


@torch.no_grad()
def _statistics(input: Tensor) -> tuple[float, Tensor, Tensor]:
    """(values per channel, mean, biased variance) over all workers; float64 [channels], the same on every worker.

    The workers' own means and squared deviations are combined as in Chan, Golub and LeVeque, "Updating formulae and a
    pairwise algorithm for computing sample variances", 1979, which subtracts no large numbers from each other.
    """
    channels = input.shape[1]
    count = input.numel() // channels if channels else 0
    mine = torch.zeros(1 + 2 * channels, dtype=torch.float64, device=input.device)
    if count:
        wide = input.to(_wide(input.dtype))
        variance, mean = torch.var_mean(wide, dim=_all_but_channels(input), correction=0)
        mine[0], mine[1 : 1 + channels], mine[1 + channels :] = count, mean, variance * count
    everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, mine)
    counts, means, deviations = torch.stack(everyone).split([1, channels, channels], dim=1)
    total = counts.sum()
    mean = (counts * means).sum(0) / total
    return float(total), mean, (deviations + counts * (means - mean).square()).sum(0) / total


class _Normalise(torch.autograd.Function):
    """y = (x − mean) / √(variance + eps) × weight + bias, where mean and variance depend on x on all workers."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        count: float,
        eps: float,
    ) -> Tensor:
        wide = _wide(x.dtype)
        scale = (variance + eps).rsqrt().to(wide)
        centre = mean.to(wide)
        ctx.save_for_backward(x, weight, centre, scale)
        ctx.count = count
        normed = (x.to(wide) - _per_channel(centre, x)) * _per_channel(scale, x)
        if weight is not None:
            normed = normed * _per_channel(weight.to(wide), x)
        if bias is not None:
            normed = normed + _per_channel(bias.to(wide), x)
        return normed.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = gradients
        x, weight, mean, scale = ctx.saved_tensors
        wide, dims = mean.dtype, _all_but_channels(x)
        dy = dy.to(wide)
        normed = (x.to(wide) - _per_channel(mean, x)) * _per_channel(scale, x)
        # Each worker returns its own part of the parameters' gradients; DDP sums them over the workers.
        d_bias, d_weight = dy.sum(dims), (dy * normed).sum(dims)
        totals = torch.stack([d_bias, d_weight])
        dist.all_reduce(totals)
        shift, slope = totals / ctx.count
        gain = scale if weight is None else scale * weight.to(wide)
        dx = (dy - _per_channel(shift, x) - normed * _per_channel(slope, x)) * _per_channel(gain, x)
        if weight is not None:
            d_weight, d_bias = d_weight.to(weight.dtype), d_bias.to(weight.dtype)
        _, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        parameters = (d_weight if needs_weight else None, d_bias if needs_bias else None)
        return (dx.to(x.dtype), *parameters, None, None, None, None)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The type to compute in: half precision is too coarse for sums over a batch."""
    return dtype if dtype is torch.float64 else torch.float32


def _all_but_channels(x: Tensor) -> list[int]:
    return [dim for dim in range(x.dim()) if dim != 1]


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(1, -1, *[1] * (x.dim() - 2))
