"""What every codec made of one of diffusers' autoencoders shares: its latents are normalised by its own shift and scale, and undone again.

`latents = (z - shift_factor) * scaling_factor` (SD3's convention; a pipeline that forgets the shift draws soft pictures), or per channel
`(z - latents_mean) / latents_std * scaling_factor` where the autoencoder's config holds those.
"""

from __future__ import annotations

from typing import Any

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

    def statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and scale, broadcastable over latents (B, C, h, w), of `like`'s type and device."""
        config = self.autoencoder.config
        scale = float(config["scaling_factor"])
        if config.get("latents_mean") is None or config.get("latents_std") is None:
            return like.new_tensor(float(config.get("shift_factor") or 0.0)), like.new_tensor(scale)
        mean, std = (like.new_tensor(config[name]).view(1, -1, 1, 1) for name in ("latents_mean", "latents_std"))
        return mean, scale / std

    def normalised(self, z: Tensor) -> Tensor:
        """Latents of what the autoencoder encodes to."""
        shift, scale = self.statistics(z)
        return (z - shift) * scale

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents (B, C, H/f, W/f) of images (B, 3, H, W) in [-1, 1]; `noise` for those whose latents are a distribution."""
        raise NotImplementedError

    def decode(self, latents: Tensor, rows: Rows | None = None, steps: int | None = None) -> Tensor:
        """Images, not clamped: a training loss wants the overshoot, a picture clamps. Nothing is drawn, so `rows` change nothing."""
        if steps is not None:
            raise UsageError(f"steps is {steps}, but this codec decodes in one pass", "leave steps out")
        shift, scale = self.statistics(latents)
        images: Tensor = self.autoencoder.decode(latents / scale + shift).sample
        return images
