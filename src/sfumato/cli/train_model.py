"""`sfumato train model`: the recipe of `training/recipes.py` with a user's changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from ..core.config import to_dict
from .train import Train
from .verb import unset


@dataclass(frozen=True, kw_only=True)
class TrainModel(Train):
    """Train a text-to-image model on a codec's latents. The result is OUT/pipeline, which `sfumato generate --model` draws with."""

    # A diffusers vae folder, a pipeline folder, or a shipped model whose codec is taken.
    codec: str = "emoji-mmdit"
    # What the model calls itself.
    name: Annotated[str | None, unset("the name of the folder OUT")] = None
    # Blocks of the network.
    depth: Annotated[int | None, unset("the recipe's")] = None
    # Width of the network.
    width: Annotated[int | None, unset("the recipe's")] = None
    # Attention heads.
    heads: Annotated[int | None, unset("the recipe's")] = None
    # How often each caption form of the data is drawn; one number per form.
    forms: Annotated[tuple[float, ...] | None, unset("the recipe's, for EmojiWorld")] = None
    # Optimizer: adamw, or muon for the hidden matrices.
    optimizer: Annotated[Literal["adamw", "muon"] | None, unset("the recipe's")] = None
    # Peak learning rate of Muon.
    muon_lr: Annotated[float | None, unset("the recipe's")] = None
    # The first steps, on pictures of half the size; 0 = none.
    small_steps: Annotated[int | None, unset("the recipe's")] = None
    # Steps between sample grids in OUT/samples; 0 = none.
    sample_every: Annotated[int | None, unset("the recipe's")] = None

    def run(self) -> int:
        from ..data.sources import open_source
        from ..pipelines.folder import load_codec
        from ..text import text_encoders
        from ..training.recipes import ModelRecipe, train_model

        codec = load_codec(self.codec)
        recipe = self._with_own(self.settled(ModelRecipe))
        if recipe.shape.channels != codec.latent_channels:
            recipe = replace(recipe, shape=replace(recipe.shape, channels=codec.latent_channels))
        self.open_run(recipe, self.out / "pipeline")
        source = open_source(self.data, split="train", size=recipe.defaults.size[0])
        pipe = train_model(source, codec, text_encoders.get("minilm")(), self.out, recipe, self.quiet)
        pipe.identity = {"name": self.name or self.out.resolve().name}
        pipe.card = {"recipe": to_dict(recipe), "pictures": len(source)}
        pipe.to("cpu").save(self.out / "pipeline", self.overwrite)
        print(self.out / "pipeline")
        return 0

    def _with_own(self, recipe: Any) -> Any:
        shape = {name: getattr(self, name) for name in ("depth", "width", "heads") if getattr(self, name) is not None}
        optimizer = {"name": self.optimizer, "muon_lr": self.muon_lr}
        train = replace(recipe.train, optimizer=replace(recipe.train.optimizer, **{k: v for k, v in optimizer.items() if v is not None}))
        if self.sample_every is not None:
            train = replace(train, sample_every=self.sample_every)
        forms = recipe.forms if self.forms is None else self.forms
        small = recipe.small if self.small_steps is None else replace(recipe.small, steps=self.small_steps)
        return replace(recipe, small=small, shape=replace(recipe.shape, **shape), train=train, forms=forms)
