"""Muon for the hidden matrices, AdamW for all other parameters, as one optimizer with one state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn, optim

_MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention)


class Muon(optim.Optimizer):
    """Groups with `trained_by: Muon` are trained by `torch.optim.Muon`, all others by `torch.optim.AdamW`.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024: the momentum of a hidden matrix is
    orthogonalised before it is a step. Kernels of convolutions are matrices [outputs, inputs × height × width].

    Args:
        lr: of the matrices.
        momentum, nesterov, ns_steps, ns_coefficients, eps, adjust_lr_fn: of `torch.optim.Muon`.
        adamw_lr, adamw_betas, adamw_eps: of `torch.optim.AdamW`.

    Raises:
        ValueError: no group has matrices, or torch refuses a value.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.02,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7,
        adjust_lr_fn: Literal["original", "match_rms_adamw"] = "original",
        adamw_lr: float = 0.001,
        adamw_betas: tuple[float, float] = (0.9, 0.999),
        adamw_eps: float = 1e-8,
    ) -> None:
        super().__init__(_with_rates(params, lr, adamw_lr), {"lr": lr, "weight_decay": weight_decay})
        matrices, others = self._parts()
        if not matrices:
            raise ValueError("the network has no linear layer or convolution between its first one and its head")
        # Muon wants matrices: each kernel has one, which shares its memory where the layout allows it.
        own = [
            {**group, "params": [nn.Parameter(p.detach().flatten(1)) for p in group["params"]]} for group in matrices
        ]
        self._muon = optim.Muon(
            own,
            lr=lr,
            weight_decay=weight_decay,
            momentum=momentum,
            nesterov=nesterov,
            ns_steps=ns_steps,
            ns_coefficients=ns_coefficients,
            eps=eps,
            adjust_lr_fn=adjust_lr_fn,
        )
        self._adamw = optim.AdamW(others, lr=adamw_lr, betas=adamw_betas, eps=adamw_eps) if others else None

    def _parts(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The groups of matrices, and those of all other parameters."""
        of = [group["trained_by"] == "Muon" for group in self.param_groups]
        groups = list(zip(self.param_groups, of, strict=True))
        return [group for group, matrices in groups if matrices], [group for group, matrices in groups if not matrices]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Takes one step with each of the two."""
        matrices, others = self._parts()
        self._step_matrices(self._muon, matrices)
        if self._adamw:
            self._adamw.param_groups, self._adamw.state = others, self.state
            self._adamw.step()

    def _step_matrices(self, muon: optim.Muon, groups: list[dict[str, Any]]) -> None:
        copies: list[tuple[Tensor, Tensor]] = []
        for group, inner in zip(groups, muon.param_groups, strict=True):
            inner.update(lr=group["lr"], weight_decay=group["weight_decay"])
            for weight, matrix in zip(group["params"], inner["params"], strict=True):
                matrix.data, matrix.grad = weight.detach().flatten(1), None
                if weight.grad is not None:
                    matrix.grad = weight.grad.flatten(1)
                    muon.state[matrix] = self.state[weight]  # one state: the matrix's momentum is the weight's
                if matrix.data_ptr() != weight.data_ptr():  # channels last: flattening copied it
                    copies.append((weight, matrix))
        muon.step()
        for weight, matrix in copies:
            weight.copy_(matrix.view(weight.shape))


def _with_rates(params: Any, lr: float, adamw_lr: float) -> list[dict[str, Any]]:
    """The groups, each with the rate of what trains it."""
    return [{"lr": lr if group["trained_by"] == "Muon" else adamw_lr, **group} for group in params]


def hidden_matrices(model: nn.Module, head: nn.Module | None) -> set[int]:
    """The ids of the parameters that Muon trains: weights of linear layers and convolutions between input and head.

    The first such layer, which sees the image (a stem, the embedding of patches), the head, norms, biases, embeddings,
    and parameters that belong to no such layer (a class token) are AdamW's, as Jordan et al. say. Layers are known by
    their type and place, not by their name.
    """
    layers = [module for module in model.modules() if isinstance(module, _MATRICES)]
    named = [each for layer in layers for each in layer.named_parameters(recurse=False)]
    apart: list[nn.Module] = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    apart += [module for module in (*layers[:1], head) if module is not None]
    others = {id(parameter) for module in apart for parameter in module.parameters()}  # a shared one is theirs
    return {id(parameter) for name, parameter in named if "weight" in name and parameter.ndim >= 2} - others
