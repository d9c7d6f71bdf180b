"""The Task that trains a codec: reconstruct drawings through a small, slightly regularised latent (Rombach et al., arXiv 2112.10752)."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..codecs.kl import KLCodec, psnr
from ..core.rng import Draws
from ..core.task import Batch, Loss, Phase
from .crops import cropped


@dataclass(frozen=True)
class CodecTaskConfig:
    """`crop`: side in pixels of the square each picture is cropped to for the first `crop_steps` steps; afterwards pictures are whole.

    Crops make early steps cheap; the last stretch on whole pictures lets the group norms settle on whole-picture statistics.
    `kl`: weight of the divergence per latent number; `l1`: of the absolute error.
    """

    crop: int = 64
    crop_steps: int = 0
    kl: float = 1e-4
    l1: float = 0.1


class CodecTask:
    """Batches hold `images` (B, 3, H, W) uint8. The loss is squared error + `l1` absolute error + `kl` divergence from N(0, 1).

    `decoder_only`: the encoder stays as it is and the decoder sees what pictures are drawn from, the posterior's means.
    """

    def __init__(self, codec: KLCodec, config: CodecTaskConfig, decoder_only: bool = False) -> None:
        # Convolutions in bf16 on a CPU run fastest with channels last.
        self.codec = codec.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.encoder, self.decoder = self.codec.autoencoder.encoder, self.codec.autoencoder.decoder
        self.modules: dict[str, nn.Module] = {"encoder": self.encoder, "decoder": self.decoder}
        self.config, self.decoder_only = config, decoder_only

    def phases(self, step: int) -> Sequence[Phase]:
        return [Phase("codec", ("decoder",) if self.decoder_only else ("decoder", "encoder"))]

    def loss(self, phase: Phase, batch: Batch, carry: MutableMapping[str, Any], draws: Draws) -> Loss:
        images = batch["images"] if draws.step >= self.config.crop_steps else cropped(batch["images"], self.config.crop, draws)
        images = images.float().div(127.5).sub(1.0).contiguous(memory_format=torch.channels_last)
        posterior = self.codec.posterior(images)
        spread = 0.0 if self.decoder_only else posterior.std
        z = posterior.mean + spread * draws.normal(posterior.mean.shape, "posterior").to(images)
        decoded = self.codec.autoencoder.decode(z).sample.float()
        error = decoded - images
        mse, mae = error.square().mean(), error.abs().mean()
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        total = mse + self.config.l1 * mae + self.config.kl * kl
        return Loss(total, {"psnr": psnr(decoded, images).mean(), "mse": mse, "kl": kl})
