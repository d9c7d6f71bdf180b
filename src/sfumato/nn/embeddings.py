"""Embeddings of time, vectors and patches, and the patch grid's way back to latents."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ..core.call import Call
from ..core.errors import UsageError
from .linear import Linear


def sinusoid(t: Tensor, width: int, max_period: float = 10_000.0, closed: bool = False) -> Tensor:
    """[cos, sin] features (..., width) of t (...), in fp32; `width` is even. `closed`: 1 / max_period itself is the slowest rate."""
    half = width // 2
    last = half - 1 if closed else half
    rates = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device) / last)
    angles = t.float()[..., None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class MLPEmbedding(nn.Module):
    """Linear, SiLU or GELU (tanh), Linear: of a time's sinusoid, a pooled vector or a caption's states."""

    def __init__(self, width_in: int, width: int, activation: Literal["silu", "gelu"] = "silu") -> None:
        super().__init__()
        self.activation = activation
        self.up = Linear(width_in, width, "embed")
        self.down = Linear(width, width, "embed")
        nn.init.normal_(self.up.weight, std=0.02)
        nn.init.normal_(self.down.weight, std=0.02)

    def forward(self, x: Tensor, call: Call | None = None) -> Tensor:
        embedded: Tensor = self.down(self.up.activated(x, "silu" if self.activation == "silu" else "gelu tanh", call), call)
        return embedded


class TimeEmbedding(nn.Module):
    """MLP(sinusoid(scale t)) of t (B,) or (B, N); the sinusoid in fp32. Most networks scale t in [0, 1] by 1000, Lumina's by 1."""

    def __init__(
        self,
        width: int,
        features: int = 256,
        scale: float = 1000.0,
        closed: bool = False,
        activation: Literal["silu", "gelu"] = "silu",
    ) -> None:
        super().__init__()
        self.features, self.scale, self.closed = features, scale, closed
        self.mlp = MLPEmbedding(features, width, activation)

    def forward(self, t: Tensor, call: Call | None = None) -> Tensor:
        embedded: Tensor = self.mlp(sinusoid(self.scale * t, self.features, closed=self.closed).to(self.mlp.up.weight.dtype), call)
        return embedded


def pooled(states: Tensor, keep: Tensor | None) -> Tensor:
    """(B, D) mean of the kept tokens (B, N, D) in fp32; zero where none is kept."""
    if keep is None:
        return states.float().mean(1)
    return states.float().masked_fill(~keep[..., None], 0.0).sum(1) / keep.sum(1, keepdim=True).clamp(min=1)


class PatchEmbedding(nn.Module):
    """Latents (B, C, h, w) to tokens (B, h/p * w/p, D), row by row."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)
        nn.init.xavier_uniform_(self.proj.weight.view(width, -1))
        if self.proj.bias is not None:
            nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        # Laid out as tokens at once: every sum and norm of the network would else read across memory.
        return self.proj(x).flatten(2).transpose(1, 2).contiguous()


def token_grid(latents: Tensor, patch: int) -> tuple[int, int]:
    """Token rows and columns of latents (B, C, h, w); `UsageError` naming the nearest size when the patch does not divide them."""
    rows, columns = latents.shape[-2:]
    if rows % patch or columns % patch:
        nearest = tuple(max(patch, round(n / patch) * patch) for n in (rows, columns))
        raise UsageError(
            f"a latent of {rows} x {columns} does not divide into patches of {patch}", f"the nearest is {nearest[0]} x {nearest[1]}"
        )
    return rows // patch, columns // patch


def pack(latents: Tensor, patch: int) -> Tensor:
    """Latents (B, C, h, w) to tokens (B, h/p * w/p, C * p * p), channels first within a patch (FLUX's order)."""
    return latents.unflatten(3, (-1, patch)).unflatten(2, (-1, patch)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpack(tokens: Tensor, grid: tuple[int, ...], patch: int) -> Tensor:
    """The inverse of `pack`."""
    x = tokens.unflatten(2, (-1, patch, patch)).unflatten(1, grid)
    return x.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def patchify(latents: Tensor, patch: int) -> Tensor:
    """Latents (B, C, h, w) to tokens (B, h/p * w/p, p * p * C), channels last within a patch; `unpatchify` undoes it."""
    return latents.unflatten(3, (-1, patch)).unflatten(2, (-1, patch)).permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(tokens: Tensor, grid: tuple[int, ...], patch: int) -> Tensor:
    """Tokens (B, rows * columns, p * p * C), channels last within a patch, to latents (B, C, rows * p, columns * p)."""
    rows, columns = grid
    channels = tokens.shape[-1] // (patch * patch)
    x = tokens.view(-1, rows, columns, patch, patch, channels)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, channels, rows * patch, columns * patch)
