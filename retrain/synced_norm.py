"""Batch normalisation over the rows of all processes, so that several learn what one would.

PyTorch's own works on GPUs alone. It must not be part of a stored network: its weights have the names of the layer that
it stands in for.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def sync_norms(network: nn.Module) -> bool:
    """Put layers that see the rows of all processes in the place of batch normalisations; tell if there are any."""
    is_any = False
    for name, child in network.named_children():
        if isinstance(child, _BatchNorm):
            setattr(network, name, _SyncedNorm(child))
            is_any = True
        else:
            is_any = sync_norms(child) or is_any
    return is_any


class _SyncedNorm(_BatchNorm):
    """Normalises by the mean and variance of all processes' rows while it learns; else like the layer it replaces."""

    def __init__(self, replaced: _BatchNorm) -> None:
        super().__init__(
            replaced.num_features, replaced.eps, replaced.momentum, replaced.affine, replaced.track_running_stats
        )
        self._parameters.update(replaced._parameters)
        self._buffers.update(replaced._buffers)
        self.training = replaced.training

    def forward(self, values: Tensor) -> Tensor:
        """Normalise (n, features, …)."""
        if not self.training:
            return super().forward(values)
        dims = [0, *range(2, values.dim())]
        shape = [1, -1] + [1] * (values.dim() - 2)
        exact = values.float()
        count = exact.new_full((1,), exact.numel() / exact.shape[1])
        dist.all_reduce(count)
        mean = _sum_over_ranks(exact.sum(dims)) / count
        centred = exact - mean.view(shape)
        variance = _sum_over_ranks((centred * centred).sum(dims)) / count
        if self.track_running_stats:
            self._remember(mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
        normed = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normed = normed * self.weight.view(shape) + self.bias.view(shape)
        return normed.to(values.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)

    def _check_input_dim(self, input: Tensor) -> None:
        """Take every shape: the layer that this one stands in for is of one."""


def _sum_over_ranks(values: Tensor) -> Tensor:
    summed: Tensor = _SumOverRanks.apply(values)  # type: ignore[no-untyped-call]
    return summed


class _SumOverRanks(torch.autograd.Function):
    """Every rank's loss depends on the sum, so the gradient of an addend is the sum of all ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total
