"""How the shipped model is made: a network on the latents of a codec (`codec_recipe.py`). A run resumes from its folder.

`make models` runs both with their defaults; every number that matters is in a config that is written beside the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..backbones.mmdit import MMDiT, MMDiTConfig
from ..codecs.kl import KLCodec
from ..core.denoiser import Denoiser, Meaning
from ..core.errors import ConfigError, DataError
from ..data.sources import Source
from ..objectives.denoising import Denoising
from ..objectives.times import law
from ..pipelines.text_to_image import Defaults, TextToImage
from ..text.encoded import TextEncoder
from .batches import Staged, Stream
from .diffusion import TEXT_SLOTS, DiffusionTask, LatentStream
from .loop import TrainConfig, train
from .optimizers import OptimizerConfig
from .precompute import encoded_pictures, precompute
from .samples import SampleGrid


@dataclass(frozen=True)
class Small:
    """The first `steps` steps see pictures of `size` pixels, `batch` at a time: a quarter of the picture tokens.

    0 steps: all pictures are large from the start.
    """

    size: int = 64
    steps: int = 2000
    batch: int = 192


@dataclass(frozen=True)
class ModelRecipe:
    """`forms`: how often each caption form of the source is drawn (bare label, label + style, a drawing of, label + tags, a sentence).

    The defaults are the shipped model's; docs/models.md says what changed on the way.
    """

    shape: MMDiTConfig = field(default_factory=lambda: MMDiTConfig(depth=8, width=256, heads=4, positions="span"))
    time_law: str = "logit-normal"
    forms: tuple[float, ...] = (0.1, 0.6, 0.15, 0.1, 0.05)
    small: Small = field(default_factory=Small)
    batch: int = 96
    defaults: Defaults = field(default_factory=Defaults)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=3000,
            # Short: the average forgets what the network was before the pictures grew.
            ema=0.99,
            optimizer=OptimizerConfig(name="muon", lr=1e-3, muon_lr=2e-3, warmup=100, decay_from=0.65, weight_decay=0.01),
            sample_every=200,
        )
    )


def train_model(source: Source, codec: KLCodec, encoder: TextEncoder, out: Path, recipe: ModelRecipe, quiet: bool = False) -> TextToImage:
    """Train an MM-DiT on `source` through `codec` and return the pipeline with the averaged weights. Sample grids go to `out/samples`."""
    small = recipe.small
    if small.steps >= recipe.train.steps:
        raise ConfigError(
            f"the first {small.steps} steps see {small.size}-pixel pictures and the run has {recipe.train.steps} steps",
            f"more than {small.steps} steps, or fewer small ones",
        )
    forms = max(len(row) for row in source.column("captions"))
    if len(recipe.forms) != forms:
        raise DataError(f"the source has {forms} caption forms and the recipe weighs {len(recipe.forms)}", "give one weight per form")
    ready = precompute(source, codec, encoder, out)
    torch.manual_seed(recipe.train.seed)
    net = MMDiT(recipe.shape)
    task = DiffusionTask(net, Denoising(law(recipe.time_law)))
    stream: Stream = LatentStream(ready.latents, ready.captions, ready.table, recipe.forms, recipe.batch, recipe.train.seed)
    if small.steps:
        latents = encoded_pictures(source.at(small.size), codec, out)
        first = LatentStream(latents, ready.captions, ready.table, recipe.forms, small.batch, recipe.train.seed)
        stream = Staged(first, small.steps, stream)
    pipe = TextToImage(encoder, Denoiser(net, Meaning()), codec, TEXT_SLOTS, recipe.defaults)
    grid = SampleGrid(pipe, lambda step: (small.size, small.size) if step <= small.steps else recipe.defaults.size)
    run = train(task, {"train": stream}, recipe.train, out, grid, quiet)
    with run.averaged():
        state = {n: t.detach().clone() for n, t in net.state_dict().items()}
    net.load_state_dict(state)
    net.eval().requires_grad_(False)
    return pipe
