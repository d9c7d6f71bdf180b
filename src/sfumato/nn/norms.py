"""Norms whose statistics are computed in fp32 whatever the input's type."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import group_norm, layer_norm, rms_norm


class LayerNorm(nn.Module):
    """LayerNorm over the last dimension, without affine parameters (DiT's): gain and shift come from modulation."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.width, self.eps = width, eps

    def forward(self, x: Tensor) -> Tensor:
        # torch's kernel keeps bf16 statistics in fp32 and skips the copy a cast would cost.
        with torch.autocast(x.device.type, enabled=False):
            return layer_norm(x, (self.width,), eps=self.eps)


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension (Zhang and Sennrich, arXiv 1910.07467)."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class GroupNorm(nn.GroupNorm):
    """Over groups of channels and all tokens of a picture (B, N, D) (Wu and He, arXiv 1803.08494), with gain and shift of its own."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            # Four dimensions, so that channels may stay last in memory.
            plane = x.transpose(1, 2)[..., None]
            return group_norm(plane, self.num_groups, self.weight.to(x), self.bias.to(x), self.eps)[..., 0].transpose(1, 2)
