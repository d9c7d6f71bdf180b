"""What every codec made of one of diffusers' autoencoders shares: its latents are normalised by its own shift and scale, and undone again.

`latents = (z - shift_factor) * scaling_factor` (SD3's convention; a pipeline that forgets the shift draws soft pictures), or per channel
`(z - latents_mean) / latents_std * scaling_factor` where the autoencoder's config holds those.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.rng import Rows


class Autoencoder(nn.Module):
    """A `Codec` around diffusers' `autoencoder`. `levels`: the field of its config with a number of channels a level, finest first."""

    levels: str

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    @property
    def factor(self) -> int:
        """Pixels per latent cell, along one side."""
        return int(2 ** (len(self.autoencoder.config[self.levels]) - 1))

    @property
    def latent_channels(self) -> int:
        return int(self.autoencoder.config["latent_channels"])

    def precision(self, dtype: torch.dtype | None) -> torch.dtype | None:
        """What the codec computes in where `dtype` is asked for: fp32 instead of fp16, in which one with `force_upcast` overflows."""
        return torch.float32 if dtype == torch.float16 and self.autoencoder.config.get("force_upcast") else dtype

    def statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and scale, broadcastable over latents (B, C, h, w), on `like`'s device and of its type, at least fp32: where the codec
        computes in half precision, latents are rounded for it once.
        """
        config, dtype = self.autoencoder.config, torch.promote_types(like.dtype, torch.float32)
        scale = float(config["scaling_factor"])
        if config.get("latents_mean") is None or config.get("latents_std") is None:
            return like.new_tensor(float(config.get("shift_factor") or 0.0), dtype=dtype), like.new_tensor(scale, dtype=dtype)
        mean, std = (like.new_tensor(config[name], dtype=dtype).view(1, -1, 1, 1) for name in ("latents_mean", "latents_std"))
        return mean, scale / std

    def normalised(self, z: Tensor) -> Tensor:
        """Latents of what the autoencoder encodes to, at least fp32."""
        shift, scale = self.statistics(z)
        return (z.to(scale.dtype) - shift) * scale

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents (B, C, H/f, W/f) of images (B, 3, H, W) in [-1, 1]; `noise` for those whose latents are a distribution."""
        raise NotImplementedError

    def decode(self, latents: Tensor, rows: Rows | None = None, steps: int | None = None) -> Tensor:
        """Images, not clamped: a training loss wants the overshoot, a picture clamps. Nothing is drawn, so `rows` change nothing. Latents
        may be of another type than the codec.
        """
        if steps is not None:
            raise UsageError(f"steps is {steps}, but this codec decodes in one pass", "leave steps out")
        shift, scale = self.statistics(latents)
        z = latents.to(scale.dtype) / scale + shift
        images: Tensor = self.autoencoder.decode(z.to(next(self.parameters()).dtype)).sample
        return images
