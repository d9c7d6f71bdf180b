"""Embeddings of time, vectors and patches, and the patch grid's way back to latents."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from ..core.call import Call
from .linear import Linear


def sinusoid(t: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """[cos, sin] features (..., width) of t (...), in fp32; `width` is even."""
    half = width // 2
    rates = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[..., None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class MLPEmbedding(nn.Module):
    """Linear, SiLU, Linear: of a time's sinusoid or a pooled vector."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.up = Linear(width_in, width, "embed")
        self.down = Linear(width, width, "embed")
        nn.init.normal_(self.up.weight, std=0.02)
        nn.init.normal_(self.down.weight, std=0.02)

    def forward(self, x: Tensor, call: Call | None = None) -> Tensor:
        embedded: Tensor = self.down(silu(self.up(x, call)), call)
        return embedded


class TimeEmbedding(nn.Module):
    """MLP(sinusoid_256(1000 t)) of t in [0, 1], (B,) or (B, N); the sinusoid in fp32."""

    def __init__(self, width: int, features: int = 256) -> None:
        super().__init__()
        self.features = features
        self.mlp = MLPEmbedding(features, width)

    def forward(self, t: Tensor, call: Call | None = None) -> Tensor:
        embedded: Tensor = self.mlp(sinusoid(1000.0 * t, self.features).to(self.mlp.up.weight.dtype), call)
        return embedded


class PatchEmbedding(nn.Module):
    """Latents (B, C, h, w) to tokens (B, h/p * w/p, D), row by row."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)
        nn.init.xavier_uniform_(self.proj.weight.view(width, -1))
        if self.proj.bias is not None:
            nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


def unpatchify(tokens: Tensor, grid: tuple[int, ...], patch: int) -> Tensor:
    """Tokens (B, rows * columns, p * p * C), channels last within a patch, to latents (B, C, rows * p, columns * p)."""
    rows, columns = grid
    channels = tokens.shape[-1] // (patch * patch)
    x = tokens.view(-1, rows, columns, patch, patch, channels)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, channels, rows * patch, columns * patch)
