"""`sfumato train model`: the recipe of `training/recipes.py` with a user's changes, from new weights or a trained model's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro import conf

from ..core.config import to_dict
from ..core.errors import UnknownNameError, UsageError
from .train import Train
from .verb import note, unset

if TYPE_CHECKING:
    from ..pipelines import TextToImage
    from ..training.recipes import ModelRecipe

SHAPE = ("depth", "width", "heads")


@dataclass(frozen=True, kw_only=True)
class TrainModel(Train):
    """Train a text-to-image model on a codec's latents. The result is OUT/pipeline, which `sfumato generate --model` draws with."""

    # A recipe that ships (emoji-mmdit, emoji-pixart, emoji-uvit, ...), or a file like recipe.json of an earlier run.
    recipe: Annotated[str | None, unset("emoji-mmdit, or the one of --family", "NAME|FILE.json")] = None
    # The network's family, if no recipe says it, with the recipe that ships for it: MMDiT, PixArt, UViT, Sana, NextDiT, Lumina2, Flux,
    # MicroDiT, AsCAN or UNet.
    family: Annotated[str | None, unset("the recipe's")] = None
    # A trained model to go on from, a shipped one's name or a pipeline folder: its weights, shape, codec, text encoder and sampling.
    start: Annotated[str | None, conf.arg(name="from", metavar="MODEL", help_behavior_hint="(default: none, new weights)")] = None
    # A diffusers vae folder, a pipeline folder, or a shipped model whose codec is taken.
    codec: Annotated[str | None, unset("emoji-mmdit, or that of --from")] = None
    # What the model calls itself.
    name: Annotated[str | None, unset("the name of the folder OUT")] = None
    # Where latents and text states are kept; runs on the same data may share it.
    cache: Annotated[Path | None, unset("OUT")] = None
    # Blocks of the network, in families that count them so.
    depth: Annotated[int | None, unset("the recipe's")] = None
    # Width of the network.
    width: Annotated[int | None, unset("the recipe's")] = None
    # Attention heads.
    heads: Annotated[int | None, unset("the recipe's")] = None
    # How often each caption form of the data is drawn; one number per form.
    forms: Annotated[tuple[float, ...] | None, unset("the recipe's, for EmojiWorld")] = None
    # Other languages whose labels are captions of drawings too: de, fr, es, ja and what else EmojiWorld's drawings are named in.
    languages: Annotated[tuple[str, ...] | None, unset("the recipe's: none")] = None
    # The share of batches with captions in --languages.
    language_share: Annotated[float | None, unset("the recipe's")] = None
    # Folders that `sfumato data scenes` built, to learn from beside the data.
    scenes: Annotated[tuple[str, ...] | None, unset("the recipe's: none")] = None
    # The share of scenes in each batch, more than 0 and less than 1.
    scene_share: Annotated[float | None, unset("the recipe's")] = None
    # Only scenes of at most so many objects.
    scene_objects: Annotated[int | None, unset("the recipe's")] = None
    # How often each caption form of a scene is drawn: short, reversed, one relation, every fact.
    scene_forms: Annotated[tuple[float, float, float, float] | None, unset("the recipe's")] = None
    # Optimizer: adamw, or muon for the hidden matrices.
    optimizer: Annotated[Literal["adamw", "muon"] | None, unset("the recipe's")] = None
    # Peak learning rate of Muon.
    muon_lr: Annotated[float | None, unset("the recipe's")] = None
    # Decay of the averaged weights, which are the result; 0 = no average.
    ema: Annotated[float | None, unset("the recipe's")] = None
    # The first steps, on pictures of half the size; 0 = none.
    small_steps: Annotated[int | None, unset("the recipe's")] = None
    # Steps between sample grids in OUT/samples; 0 = none.
    sample_every: Annotated[int | None, unset("the recipe's")] = None

    def run(self) -> int:
        from ..data.scenes.reading import open_scenes
        from ..data.sources import open_source
        from ..training.recipes import ModelRecipe, train_model

        recipe = self._with_own(self.settled(ModelRecipe))
        pipe, recipe = self._begun(recipe)
        size, mix = recipe.defaults.size[0], recipe.scenes
        scenes = open_scenes(mix.folders, split="train", size=size, most=mix.most) if mix.folders else None
        source = open_source(self.data, split="train", size=size)
        self.open_run(recipe, self.out / "pipeline", source=source)
        if scenes is not None:
            note("{} drawings and {} scenes a step, of {} and {}".format(*recipe.parts(recipe.batch), len(source), len(scenes)))
        pipe = train_model(pipe, source, self.out, recipe, scenes, self.quiet, self.cache)
        pipe.identity = {"name": self.name or self.out.resolve().name}
        pipe.card = {"recipe": to_dict(recipe), "pictures": len(source), "scenes": 0 if scenes is None else len(scenes)}
        pipe.to("cpu").save(self.out / "pipeline", self.overwrite)
        print(self.out / "pipeline")
        return 0

    def stated(self) -> Mapping[str, Any]:
        """As every training's, by name too; `--family` alone names the recipe that ships for it, or what `--from` must be."""
        from ..training.networks import shipped, shipped_of

        if self.recipe is None:
            if self.family is None:
                return {}
            return shipped_of(self.family) if self.start is None else {"family": self.family}
        if self.recipe in shipped():
            stated = shipped()[self.recipe]
        elif Path(self.recipe).suffix or Path(self.recipe).exists():
            stated = super().stated()
        else:
            raise UnknownNameError("recipe", self.recipe, shipped())
        if self.family not in (None, family := stated.get("family", "MMDiT")):
            raise UsageError(f"--family {self.family} beside a recipe of {family}", "leave one of them out")
        return stated

    def _begun(self, recipe: ModelRecipe) -> tuple[TextToImage, ModelRecipe]:
        """The pipeline to train, and the recipe that fits it."""
        from ..pipelines.folder import load, load_codec
        from ..text import text_encoders
        from ..training.networks import fitted
        from ..training.recipes import continued, new_model

        model = self.start or recipe.start.model
        if not model:
            codec, encoder = load_codec(self.codec or "emoji-mmdit"), text_encoders.get("minilm")()
            recipe = replace(recipe, shape=fitted(recipe.shape, codec, encoder))
            return new_model(recipe, codec, encoder), recipe
        if self.codec is not None:
            raise UsageError(f"--codec {self.codec} beside --from {model}", "a model draws in its own codec's latents; leave --codec out")
        pipe = load(model)
        own = continued(recipe, pipe, model)
        if self.start is None and recipe.start.sha256 not in ("", own.start.sha256):
            raise UsageError(
                f"the recipe began with other weights than {model} holds now: {recipe.start.sha256[:12]}, not {own.start.sha256[:12]}",
                f"to begin with what it holds now: --from {model}",
            )
        self._agree(own, model)
        return pipe, own

    def _agree(self, own: ModelRecipe, model: str) -> None:
        """Refuse a family, shape or sampling that was asked for and is not `model`'s."""
        stated = self.stated()
        if stated.get("family", own.family) != own.family:
            raise UsageError(f"the family {stated['family']} was asked for, and {model} is of {own.family}", "leave the family out")
        asked = {"shape": {**(stated.get("shape") or {}), **self._given(*SHAPE)}, "defaults": stated.get("defaults", {})}
        for part, values in asked.items():
            held = to_dict(getattr(own, part))
            for name, value in values.items():
                if held.get(name) != value:
                    raise UsageError(f"{name} {value} was asked for, and {model} has {name} {held.get(name)}", f"leave {part}.{name} out")

    def _with_own(self, recipe: ModelRecipe) -> ModelRecipe:
        """`recipe` with this command's options."""
        optimizer = self._given("muon_lr") | ({} if self.optimizer is None else {"name": self.optimizer})
        train = replace(recipe.train, optimizer=replace(recipe.train.optimizer, **optimizer), **self._given("ema", "sample_every"))
        asked = named({"folders": self.scenes, "share": self.scene_share, "most": self.scene_objects, "forms": self.scene_forms})
        scenes = replace(recipe.scenes, **asked)
        if asked and not scenes.folders:
            raise UsageError(f"{', '.join(asked)} of scenes, but no scenes", "name their folders: --scenes FOLDER")
        codes = self.languages or ()
        if twice := next((code for code in codes if codes.count(code) > 1), None):
            raise UsageError(f"--languages names {twice} twice", "each once: every language is drawn as often")
        languages = replace(recipe.languages, **named({"codes": self.languages, "share": self.language_share}))
        if self.language_share is not None and not languages.codes:
            raise UsageError("a share of other languages, but none of them", "name them: --languages de ja")
        small = recipe.small if self.small_steps is None else replace(recipe.small, steps=self.small_steps)
        return replace(
            recipe, shape=self._reshaped(recipe), small=small, train=train, languages=languages, scenes=scenes, **self._given("forms")
        )

    def _reshaped(self, recipe: ModelRecipe) -> Any:
        """The recipe's shape with this command's sizes. Raises `UsageError` for one that its family has not."""
        sizes, own = self._given(*SHAPE), [f.name for f in fields(recipe.shape)]
        for name, size in sizes.items():
            if size < 1:
                raise UsageError(f"--{name} {size}", "at least 1")
        # A trained model's shape is held to them later, whatever the recipe's is.
        if self.start is None and (strange := sizes.keys() - set(own)):
            raise UsageError(f"--{min(strange)} for a {recipe.family}", f"a recipe file says its shape: {', '.join(own)}")
        return replace(recipe.shape, **{name: value for name, value in sizes.items() if name in own})

    def _given(self, *names: str) -> dict[str, Any]:
        """Those of the options `names` that were given."""
        return named({name: getattr(self, name) for name in names})


def named(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that were given."""
    return {name: value for name, value in options.items() if value is not None}
