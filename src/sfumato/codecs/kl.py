"""The KL codec: diffusers' `AutoencoderKL` class behind the codec contract; its latents are a distribution's mean or a sample of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .autoencoder import Autoencoder

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


@dataclass(frozen=True)
class KLConfig:
    """`channels` per level, finest first: f = 2 ** (len(channels) - 1). `latent`: channels of a latent. No attention: any size works."""

    channels: tuple[int, ...] = (16, 48, 96, 128)
    layers: int = 1
    latent: int = 16
    groups: int = 8


def new_autoencoder(config: KLConfig) -> AutoencoderKL:
    """A randomly initialised diffusers `AutoencoderKL` of this shape."""
    from diffusers import AutoencoderKL

    levels = len(config.channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        latent_channels=config.latent,
        norm_num_groups=config.groups,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.0,
        shift_factor=0.0,
    )


class KLCodec(Autoencoder):
    """Images (B, 3, H, W) in [-1, 1] to latents (B, C, H/f, W/f) of about unit variance, and back."""

    autoencoder: AutoencoderKL
    levels = "block_out_channels"

    def __init__(self, autoencoder: AutoencoderKL) -> None:
        super().__init__(autoencoder)

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents of the posterior's mean, or of a sample where `noise` (the latents' shape, standard normal) is given."""
        posterior = self.posterior(images)
        return self.normalised(posterior.mean if noise is None else posterior.mean + posterior.std * noise)

    def posterior(self, images: Tensor) -> Any:
        """diffusers' diagonal Gaussian with `.mean`, `.std`, `.kl()`."""
        return self.autoencoder.encode(images).latent_dist

    def normalise(self, z: Tensor) -> None:
        """Make latents zero-mean and unit-variance per channel, measured on raw posterior means z (B, C, h, w)."""
        mean, std = z.mean((0, 2, 3)).tolist(), z.std((0, 2, 3)).tolist()
        self.autoencoder.register_to_config(latents_mean=mean, latents_std=std, scaling_factor=1.0, shift_factor=None)


def psnr(images: Tensor, reference: Tensor) -> Tensor:
    """(B,) peak signal-to-noise ratio in dB for images in [-1, 1] (peak 2), after clamping as a saved picture would be."""
    error = (images.clamp(-1, 1) - reference).float().square().flatten(1).mean(1)
    return 10 * torch.log10(4.0 / error.clamp_min(1e-10))
