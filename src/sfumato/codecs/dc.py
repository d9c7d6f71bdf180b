"""The deep-compression codec of Sana (Chen et al., arXiv 2410.10733): diffusers' `AutoencoderDC`, 32 pixels a cell, no distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ..core.errors import UsageError
from .autoencoder import Autoencoder

if TYPE_CHECKING:
    from diffusers import AutoencoderDC


class DCCodec(Autoencoder):
    """Images (B, 3, H, W) in [-1, 1] to latents (B, C, H/f, W/f), and back."""

    autoencoder: AutoencoderDC
    levels = "encoder_block_out_channels"

    def __init__(self, autoencoder: AutoencoderDC) -> None:
        super().__init__(autoencoder)

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """The latents; `noise` has nothing to act on and is refused."""
        if noise is not None:
            raise UsageError("noise for a DC codec", "its latents are no distribution: leave noise out")
        return self.normalised(self.autoencoder.encode(images).latent)
