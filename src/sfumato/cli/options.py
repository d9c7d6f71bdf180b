"""Options that say which models draw and how, checked as far as no model is needed for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from tyro import conf

from ..core.errors import UnknownNameError, UsageError
from . import loras, png, sources
from .drawing import Artist
from .jobs import Settings
from .redraw import load_pipeline
from .verb import DtypeName, Verb, parse_guide, parse_layout, parse_micro, parse_size, unset

if TYPE_CHECKING:
    from .sources import Source

MODEL = "emoji-mmdit"


@dataclass(frozen=True, kw_only=True)
class Steering(Verb):
    """A command that draws, and how the way from noise to a picture is taken."""

    # Solver steps, 1 to 1000.
    steps: Annotated[int | None, unset("the model's own")] = None
    # How strongly the prompt is followed, 0 to 100; 1 = without guidance.
    guidance: Annotated[float | None, unset("the model's own")] = None
    # Classifier-free guidance on top, for a model that is told its guidance as a number (FLUX.1 dev); 1 = none.
    cfg: Annotated[float | None, unset("the model's own")] = None
    # Where guidance acts: everywhere, or between two times (1 = noise), on the first so many channels of a latent, and no longer than the
    # prompt's own prediction, as in interval=0.2/0.8,channels=3,renorm=picture (docs/generate.md).
    guide: Annotated[str | None, unset("the model's own", "FIELD=VALUE,...|everywhere")] = None
    # What to keep out of the picture.
    negative: Annotated[str | None, unset("nothing")] = None
    # The solver: euler, heun, dpm++2m, unipc or, on discrete schedules, plms; renoise adds new noise in each step, as distilled networks
    # want it.
    solver: Annotated[str | None, unset("the model's own")] = None
    # Above 1: more of the steps near the noise.
    shift: Annotated[float | None, unset("the model's own, scaled to the size")] = None
    # How the steps are laid out: a kind (paper, released, late, below; for discrete schedules linspace, leading, trailing, uniform) and its
    # other fields by name, as in uniform,end=first or paper,scaling=fixed.
    layout: Annotated[str | None, unset("the model's own", "KIND[,FIELD=VALUE]")] = None
    # Lay weights out for this CPU before drawing: takes a moment, then each picture is sooner done (docs/benchmarks.md).
    pack: bool = False
    # A LoRA: a .safetensors file or a folder with one, and how strongly it acts (1 = as trained). Repeat it for several.
    lora: Annotated[conf.UseAppendAction[tuple[str, ...]], unset("none", "FILE[:WEIGHT]")] = ()
    # Of a LoRA, use what fits the model and name the rest, instead of refusing it.
    lora_partial: bool = False

    def settings(self) -> Settings:
        """What the command line says of every picture."""
        return Settings(
            negative=self.negative or "",
            steps=self.steps,
            guidance=self.guidance,
            solver=self.solver,
            shift=self.shift,
            cfg=self.cfg,
            layout=None if self.layout is None else parse_layout(self.layout),
            guide=None if self.guide is None else parse_guide(self.guide),
        )

    def changed(self, words: Sequence[str]) -> Self:
        """These options with others in their place, each as "steps=10" or "lora=FILE:0.8". Raises `UsageError` for what is no such option,
        no such value, comes twice (a LoRA may) or changes nothing.
        """
        kinds: Mapping[str, Callable[[str], Any]] = {
            **dict.fromkeys(("guidance", "cfg", "shift"), float), "steps": int, **dict.fromkeys(("pack", "lora_partial"), _yes),
            **dict.fromkeys(("guide", "negative", "solver", "layout", "lora"), str),
        }  # fmt: skip
        found: dict[str, Any] = {}
        for word in words:
            option, equals, text = word.partition("=")
            name = option.replace("-", "_")
            if not equals:
                raise UsageError(f"the change {word!r}", "an option of the drawing and its value: steps=10")
            if name not in kinds:
                raise UnknownNameError("option to change", option, [n.replace("_", "-") for n in kinds])
            if name in found and name != "lora":
                raise UsageError(f"{option} is changed twice: {word!r}", "each option once")
            try:
                value = kinds[name](text)
            except ValueError as error:
                raise UsageError(f"the change {word!r}: {text!r} is no value of {option}", EXAMPLES[kinds[name]].format(option)) from error
            found[name] = (*found.get(name, ()), value) if name == "lora" else value
        for name, value in found.items():
            if value == getattr(self, name):
                told = " ".join(f"--change {word}" for word in words if word.partition("=")[0].replace("-", "_") == name)
                raise UsageError(f"{told} changes nothing: it is so without", "another value, or leave it out")
        return replace(self, **found)

    def told(self) -> str:
        """What is asked for beside steps and guidance, as it was written; of a LoRA with the beginning of its file's checksum."""
        words = [
            f"{name} {value}"
            for name in ("cfg", "guide", "negative", "solver", "shift", "layout")
            if (value := getattr(self, name)) is not None
        ]
        words += [f"lora {one.path}:{one.weight:g} ({one.sha256[:12]})" for one in loras.parse(self.lora)]
        words += ["partial"] if self.lora_partial else []
        return ", ".join([*words, *(["packed"] if self.pack else [])])

    def check_loras(self) -> None:
        """Refuse what is said of a LoRA that is not there."""
        if self.lora_partial and not self.lora:
            raise UsageError("--lora-partial says how to load a LoRA, and none was named", "--lora FILE.safetensors")


def _yes(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError("yes or no")
    return text == "yes"


# By the kind of an option, what a change to it looks like.
EXAMPLES: Mapping[Callable[[str], Any], str] = {int: "a whole number: {}=10", float: "a number: {}=2.5", _yes: "yes or no: {}=yes"}


@dataclass(frozen=True, kw_only=True)
class Drawing(Steering):
    """A command that draws pictures to keep."""

    # A shipped model's name or a pipeline folder.
    model: Annotated[str | None, unset(MODEL)] = None
    # Pixels: 128, or width x height as 128x192.
    size: Annotated[str | None, unset("what the model was trained at")] = None
    # yes: draw at the nearest size that the model was trained at and resize the picture (PixArt); no: draw at --size itself.
    binned: Annotated[Literal["yes", "no"] | None, unset("as the model was released")] = None
    # Micro-conditioning: numbers of a training picture that the model reads, instead of those of a whole one, as in
    # original_size=512,512 (height, width; Stable Diffusion XL). Repeat it for several.
    micro: Annotated[conf.UseAppendAction[tuple[str, ...]], unset("none", "SLOT=N,...")] = ()
    # Start from this picture instead of from noise; --size scales and crops it.
    from_picture: Annotated[str | None, unset("none", "FILE")] = None
    # How much of --from-picture is drawn anew: above 0 to 1, nearly all.
    strength: Annotated[float | None, unset("0.3")] = None
    # A second model that goes on where the first leaves off, as Stable Diffusion XL's does.
    refiner: Annotated[str | None, unset("none", "MODEL")] = None
    # The part of the way after which --refiner goes on, between 0 and 1.
    refine_at: Annotated[float | None, unset("0.8")] = None
    # How a published pipeline is drawn where its original code and diffusers differ.
    ways: Annotated[Literal["original", "diffusers"] | None, unset("original")] = None
    # Strip prompts of markup, links and the like, as PixArt's captions were.
    clean_captions: bool = False
    # What is put before every prompt (Sana, Lumina-Image 2.0); "" = nothing.
    instruction: Annotated[str | None, unset("as the model was released", "TEXT")] = None
    # How many tokens of a prompt a published pipeline's T5 or Gemma reads.
    text_tokens: Annotated[int | None, unset("as many as the model was trained with", "N")] = None
    # cpu, cuda or cuda:1, say.
    device: Annotated[str | None, unset("the GPU where there is one")] = None
    # Numbers to compute in.
    dtype: Annotated[DtypeName | None, unset("float32 on a CPU, bfloat16 elsewhere")] = None

    def check_models(self) -> None:
        """Refuse what is said of a LoRA or a refiner that is not there, and what the two cannot do together."""
        self.check_loras()
        if self.refine_at is not None and self.refiner is None:
            raise UsageError(f"--refine-at {self.refine_at} says when a refiner goes on, and none was named", "--refiner MODEL")
        if self.refiner is not None and self.lora:
            raise UsageError("--lora with --refiner: a LoRA belongs to one model", "merge it into the model, or leave out --refiner")
        if self.refine_at is not None:
            from ..pipelines.going_on import check_at

            check_at(self.refine_at)

    def check_source(self, picture: Source | None, paths: Sequence[Path]) -> None:
        """Refuse a picture to start from beside a refiner, or where one of `paths` would be written over it."""
        if picture is None:
            return
        if self.refiner is not None:
            hint = f"to refine a picture, redraw it: --model {self.refiner} --from-picture {picture.path}"
            raise UsageError(f"--refiner goes on where a model leaves off, and {picture.path} was to be started from", hint)
        for path in paths:
            if path.resolve() == Path(picture.path).resolve():
                raise UsageError(f"{path} would be written over, and it is the picture to start from", "another --out")

    def settings(self) -> Settings:
        """What the command line says of every picture."""
        return replace(
            super().settings(),
            size=None if self.size is None else parse_size(self.size),
            binned=None if self.binned is None else self.binned == "yes",
            micro=parse_micro(self.micro),
            picture=None if self.from_picture is None else sources.read(self.from_picture),
            strength=self.strength,
        )

    def artist(self, device: str) -> Artist:
        """The model, loaded as asked, and the refiner."""
        name = self.model or MODEL
        loaded = png.Loaded(self.text_tokens, self.clean_captions, self.instruction, self.ways or "original")
        pipe = load_pipeline(name, device, self.dtype, loaded)
        if self.refiner is None:
            return Artist(pipe, (name,))
        from ..pipelines import Refined

        refiner = load_pipeline(self.refiner, device, self.dtype)
        return Artist(pipe, (name, self.refiner), Refined(pipe, refiner, **({} if self.refine_at is None else {"at": self.refine_at})))
