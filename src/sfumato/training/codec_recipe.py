"""How the shipped codec is made: an autoencoder, then its decoder polished. Each run resumes from its folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..codecs.kl import KLCodec, KLConfig, new_autoencoder, psnr
from ..core.config import to_dict
from ..core.files import write_json, write_tensors
from ..data.sources import Source
from .batches import Columns
from .codec import CodecTask, CodecTaskConfig
from .loop import TrainConfig, train
from .optimizers import OptimizerConfig


@dataclass(frozen=True)
class CodecRecipe:
    """`batch` pictures a step. The defaults are the two runs behind the shipped codec in one; docs/models.md says what these were."""

    shape: KLConfig = field(default_factory=KLConfig)
    task: CodecTaskConfig = field(default_factory=lambda: CodecTaskConfig(crop=64, crop_steps=6300))
    batch: int = 16
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=6600, ema=0.998, optimizer=OptimizerConfig(lr=1.5e-3, warmup=100, decay_from=0.5), sample_every=500
        )
    )


def train_codec(
    source: Source, held_out: Source, out: Path, recipe: CodecRecipe, start: KLCodec | None = None, quiet: bool = False
) -> KLCodec:
    """Train a codec on `source`; its PSNR on `held_out` goes to `out/card.json`. `start`: a codec whose decoder alone is trained on."""
    torch.manual_seed(recipe.train.seed)
    codec = start or KLCodec(new_autoencoder(recipe.shape))
    task = CodecTask(codec, recipe.task, decoder_only=start is not None)
    unseen = held_out.images()

    def sampler(folder: Path, step: int) -> None:
        write_json(
            folder / "held_out.json", {"step": step, "psnr": float(held_out_psnr(codec, unseen[:: max(1, len(unseen) // 64)]).mean())}
        )

    run = train(task, {"train": Columns({"images": source.images()}, recipe.batch, recipe.train.seed)}, recipe.train, out, sampler, quiet)
    with run.averaged():
        state = {n: t.detach().clone() for n, t in codec.state_dict().items()}
    codec.load_state_dict(state)
    codec.eval().requires_grad_(False)
    if start is None:
        with torch.no_grad():
            codec.normalise(torch.cat([codec.posterior(part.float() / 127.5 - 1).mean for part in source.images()[::8].split(32)]))
    measured = held_out_psnr(codec, unseen)
    write_tensors(out / "codec.safetensors", codec.state_dict())
    write_json(
        out / "card.json",
        {
            "config": {k: v for k, v in codec.autoencoder.config.items() if k != "_use_default_values"},
            "recipe": to_dict(recipe),
            "held_out": {"pictures": len(unseen), "psnr": float(measured.mean()), "psnr_5th_percentile": float(measured.quantile(0.05))},
        },
    )
    return codec


@torch.no_grad()
def held_out_psnr(codec: KLCodec, images: Tensor) -> Tensor:
    """(N,) PSNR in dB of uint8 pictures (N, 3, H, W) through the codec in fp32."""
    device = next(codec.parameters()).device
    parts = (part.to(device).float() / 127.5 - 1 for part in images.split(16))
    return torch.cat([psnr(codec.decode(codec.encode(x)), x).cpu() for x in parts])
