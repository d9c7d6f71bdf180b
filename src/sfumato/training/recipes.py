"""How the shipped models are made: a network (`networks.py`) on the latents of a codec (`codec_recipe.py`). A run resumes from its folder.

`make models` runs all of them; every number that matters is in a config that is written beside the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..backbones import backbones
from ..codecs.autoencoder import Autoencoder
from ..core.denoiser import Denoiser, Meaning
from ..core.errors import ConfigError, DataError
from ..data.scenes.reading import FORMS
from ..data.sources import Source
from ..objectives.denoising import Denoising
from ..objectives.times import law
from ..pipelines.settings import Defaults
from ..pipelines.text_to_image import TextToImage
from ..text import text_encoders
from ..text.encoded import TextEncoder
from .batches import Staged, Stream
from .diffusion import DiffusionTask, LatentStream, Mixed, Sized
from .loop import TrainConfig, train
from .networks import shape_of, text_slots, told
from .optimizers import OptimizerConfig
from .precompute import Precomputed, encoded_pictures, precompute
from .samples import PROMPTS, SCENE_PROMPTS, SampleGrid


@dataclass(frozen=True)
class Small:
    """The first `steps` steps see pictures of `size` pixels, `batch` at a time: a quarter of the picture tokens.

    0 steps: all pictures are large from the start.
    """

    size: int = 64
    steps: int = 2000
    batch: int = 192


@dataclass(frozen=True)
class Scenes:
    """Scenes beside the drawings: of every batch the `share`, rounded to whole pictures, from `folders` of `sfumato data scenes`.

    `most`: objects in a scene. `forms`: how often each form of caption is drawn (the things, told the other way round, one relation,
    every fact). No folders: drawings alone.
    """

    folders: tuple[str, ...] = ()
    share: float = 0.5
    most: int = 4
    forms: tuple[float, ...] = (0.4, 0.2, 0.3, 0.1)

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise ConfigError(f"the scenes' share is {self.share}", "more than 0 and less than 1: what is left of a batch are drawings")
        if self.most < 1:
            raise ConfigError(f"scenes of at most {self.most} objects", "at least 1")
        if len(self.forms) != len(FORMS) or min(self.forms) < 0 or not sum(self.forms):
            raise ConfigError(f"the captions of scenes weigh {self.forms}", f"0 or more for each of {', '.join(FORMS)}, and not all 0")

    def rows(self, batch: int) -> int:
        """How many of a batch's pictures are scenes."""
        rows = round(self.share * batch)
        if not 0 < rows < batch:
            raise ConfigError(f"a share of {self.share} of {batch} pictures is {rows} scenes", "a larger batch, or another share")
        return rows


@dataclass(frozen=True)
class Languages:
    """Captions of drawings in other languages: of the batches the `share`, each of `codes` ("de", "ja", ...; `data/languages.py`) as often.

    No codes: English alone.
    """

    codes: tuple[str, ...] = ()
    share: float = 0.15

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise ConfigError(f"the share of other languages is {self.share}", "more than 0 and less than 1: what is left is English")

    def weighed(self, forms: Sequence[float]) -> tuple[float, ...]:
        """How often each caption of a drawing is drawn: those of the source, which weigh `forms`, then two in each language."""
        if not self.codes:
            return tuple(forms)
        more = 2 * len(self.codes)
        return (*((1.0 - self.share) * weight / sum(forms) for weight in forms), *([self.share / more] * more))


@dataclass(frozen=True)
class Start:
    """The trained model a run begins with: its name or folder, and the checksum of its weights. Empty: weights drawn from the seed."""

    model: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class ModelRecipe:
    """`family`: of the network, by its registered name; `shape`: that family's config, or its fields as JSON has them, or None for the
    shape that ships. `forms`: how often each caption form of the source is drawn (bare label, label + style, a drawing of, label + tags, a
    sentence).

    The defaults are emoji-mmdit's; docs/models.md says what changed on the way.
    """

    family: str = "MMDiT"
    shape: Any = None
    time_law: str = "logit-normal"
    forms: tuple[float, ...] = (0.1, 0.6, 0.15, 0.1, 0.05)
    languages: Languages = field(default_factory=Languages)
    scenes: Scenes = field(default_factory=Scenes)
    start: Start = field(default_factory=Start)
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", shape_of(self.family, self.shape))
        for batch in (self.batch, *([self.small.batch] if self.small.steps else [])):
            self.parts(batch)

    def parts(self, batch: int) -> tuple[int, int]:
        """(drawings, scenes) in a batch of `batch` pictures. Raises `ConfigError` when the share leaves one of them without a picture."""
        scenes = self.scenes.rows(batch) if self.scenes.folders else 0
        return batch - scenes, scenes


def new_model(recipe: ModelRecipe, codec: Autoencoder, encoder: TextEncoder) -> TextToImage:
    """An untrained network of the recipe's shape, its weights drawn from the recipe's seed, between `encoder` and `codec`.

    Raises `ConfigError` for a shape that does not fit them or that text alone does not serve.
    """
    torch.manual_seed(recipe.train.seed)
    net = backbones.build(recipe.shape)
    return TextToImage(encoder, Denoiser(net, Meaning()), codec, text_slots(net), recipe.defaults)


def continued(recipe: ModelRecipe, pipe: TextToImage, model: str) -> ModelRecipe:
    """`recipe` begun with `pipe`, which was loaded as `model`: its family, its shape and its sampling.

    Raises `ConfigError` for a model that this training could not go on with, or could not save.
    """
    net = pipe.denoiser.net
    text_slots(net)
    if pipe.encoder.name not in text_encoders:
        raise ConfigError(f"{model} reads its text through {pipe.encoder.name}", f"models that can be saved: {', '.join(text_encoders)}")
    family, start = backbones.name_of(type(net)), Start(model, pipe.identity["sha256"])
    return replace(recipe, family=family, shape=net.config, defaults=pipe.defaults, start=start)


def mixed(ready: Sequence[Precomputed], recipe: ModelRecipe, batch: int) -> Mixed:
    """Batches of `batch` pictures from the drawings, `ready[0]`, and the scenes, `ready[1]` if there are any; each in its own order."""
    forms, seed = (recipe.languages.weighed(recipe.forms), recipe.scenes.forms), recipe.train.seed
    return Mixed(
        [
            LatentStream(one.latents, one.captions, one.table, weights, rows, seed + number)
            for number, (one, weights, rows) in enumerate(zip(ready, forms, recipe.parts(batch), strict=False))
        ]
    )


def feed(sources: Sequence[Source], pipe: TextToImage, recipe: ModelRecipe, cache: Path) -> Stream:
    """What a run reads: the small stage, if there is one, then the large, both from the same captions. Encodes what `cache` lacks."""
    net, small = pipe.denoiser.net, recipe.small
    spoken = (recipe.languages.codes, ())  # scenes are told in English
    found = [precompute(one, pipe.codec, pipe.encoder, cache, languages=codes) for one, codes in zip(sources, spoken, strict=False)]
    ready = [replace(one, table=told(one.table, net)) for one in found]
    batches: Stream = mixed(ready, recipe, recipe.batch)
    if small.steps:
        latents = [encoded_pictures(one.at(small.size), pipe.codec, cache) for one in sources]
        smaller = [replace(whole, latents=half) for whole, half in zip(ready, latents, strict=True)]
        batches = Staged(mixed(smaller, recipe, small.batch), small.steps * recipe.train.accumulate, batches)
    return Sized(batches, pipe.codec.factor) if "sizes" in net.slots else batches


def train_model(
    pipe: TextToImage,
    source: Source,
    out: Path,
    recipe: ModelRecipe,
    scenes: Source | None = None,
    quiet: bool = False,
    cache: Path | None = None,
) -> TextToImage:
    """Train the network of `pipe`, new or trained, on `source`; `pipe` with the averaged weights. Sample grids go to `out/samples`.

    `scenes` (`open_scenes`): what to learn from beside `source`, if the recipe names folders of scenes. `cache`: where
    latents and text states are kept, None = in `out`; runs on the same data may share it.
    """
    small, net = recipe.small, pipe.denoiser.net
    if bool(recipe.scenes.folders) is (scenes is None):
        raise ConfigError(f"the recipe names {len(recipe.scenes.folders)} folders of scenes", "scenes are given where it names some")
    if small.steps >= recipe.train.steps:
        raise ConfigError(
            f"the first {small.steps} steps see {small.size}-pixel pictures and the run has {recipe.train.steps} steps",
            f"more than {small.steps} steps, or fewer small ones",
        )
    forms = max(len(row) for row in source.column("captions"))
    if len(recipe.forms) != forms:
        raise DataError(f"the source has {forms} caption forms and the recipe weighs {len(recipe.forms)}", "give one weight per form")
    task = DiffusionTask(net, Denoising(law(recipe.time_law)), pipe.denoiser.meaning, pipe.slots)
    stream = feed([source] if scenes is None else [source, scenes], pipe, recipe, cache or out)
    prompts = PROMPTS if scenes is None else (*PROMPTS[:4], *SCENE_PROMPTS)
    grid = SampleGrid(pipe, lambda step: (small.size, small.size) if step <= small.steps else recipe.defaults.size, prompts)
    run = train(task, {"train": stream}, recipe.train, out, grid, quiet)
    with run.averaged():
        state = {n: t.detach().clone() for n, t in net.state_dict().items()}
    net.load_state_dict(state)
    net.eval().requires_grad_(False)
    return pipe
