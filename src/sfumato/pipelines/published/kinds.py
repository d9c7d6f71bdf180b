"""What each published pipeline is made of: components, how its text encoders are read and joined, and the settings it was released with.

Where the original code and diffusers differ, the original's is the default, and `DIFFUSERS` the other (`load(..., ways="diffusers")`):
    PixArt      both lower the caption; where ftfy and beautifulsoup are installed, both also strip it of markup, links, numbers and much
                else. Here that is asked for, load(..., clean_captions=True), so that what is installed changes no picture
    FLUX.1      schnell: the original reads 256 T5 tokens and draws 4 steps, diffusers 512 and 28
    Sana        diffusers lowers the prompt, and tells the network whole thousandths of its time; the original neither
    Lumina-Next diffusers lowers the prompt and interpolates positions at every size; the original switches its rule at t = 0.7, for larger
                pictures only
    DiT         guidance acts on three channels; in diffusers on all. The original's 250 ancestral steps are no solver here
    Lumina 2    guidance may not lengthen a picture's prediction; in diffusers each row of cells keeps its length
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ...backbones.checkpoints import formats
from ...core.conditions import Slot
from ...core.errors import ConfigError, UnknownNameError
from ...sampling.guidance import Guide
from ...sampling.policies.extrapolation import OtherSizes
from ...text.captions import Prepare, as_it_is, lowered, stripped
from ...text.joined import How
from ...text.transformers_encoder import Padding

Ways = Literal["original", "diffusers"]
WAYS: tuple[Ways, ...] = ("original", "diffusers")


@dataclass(frozen=True)
class Text:
    """A text encoder in `folder` with its `tokenizer`; `classes` of transformers that it may be. `layer`: of the states that are taken.

    `tokens`: how many it reads; 0 = what its tokenizer declares.   `prepare`: what is done to a prompt first.
    `instruction`, `hidden`: words before every prompt, see `TransformersEncoder`.   `optional`: a folder without it still draws.
    `taps`: all the layers that the transformer's blocks hear are taken, side by side, and the token that ends a text pads it.
    """

    folder: str
    tokenizer: str
    classes: tuple[str, ...]
    layer: int = -1
    tokens: int = 0
    padding: Padding = "masked"
    prepare: Prepare = as_it_is
    instruction: str = ""
    hidden: bool = False
    optional: bool = False
    taps: bool = False


@dataclass(frozen=True)
class Kind:
    """One pipeline class of diffusers.

    `transformer`: the network's class.   `texts`: none = it is asked for class labels.   `even`: hands evenly spaced sigmas to its
    scheduler.   `side`: tokens' rows that it was trained at, where the transformer's config does not say (latent cells).   `binned`: drawn
    at the nearest of the sizes it was trained at.
    `optional`: components that may be null, and have to be: they are of uses that are not drawn here.
    `distilled`: (steps, guidance) by shift where the scheduler renoises.   `untold`: `settings` where the network is told no guidance,
    though others of its class are.   `sized`: its shift may follow the picture's size.   `codec`: diffusers' class of the vae.
    `exact`: its network is told the time as it is, where diffusers' solver tells whole thousandths.
    `unrun`: components that may be there and change nothing in a picture but are not run here, which every picture then says.
    `zeros`: whether an absent negative prompt is zeros unless the folder says otherwise; None: it is the empty prompt, always.
    """

    transformer: str
    texts: tuple[Text, ...]
    joined: How
    schedulers: tuple[str, ...]
    slots: tuple[Slot, ...]
    steps: int
    guidance: float
    even: bool = False
    side: int = 0
    binned: bool = False
    optional: tuple[str, ...] = ()
    distilled: Mapping[float, tuple[int, float]] = field(default_factory=dict)
    codec: str = "AutoencoderKL"
    untold: tuple[int, float, int | None] | None = None
    sized: bool = False
    exact: bool = False
    guide: Guide = field(default_factory=Guide)
    other_sizes: OtherSizes | None = None
    unrun: tuple[str, ...] = ()
    zeros: bool | None = None

    @property
    def component(self) -> str:
        """The network's folder."""
        return formats.get(self.transformer).component

    def told(self, index: Mapping[str, Any]) -> tuple[Slot, ...]:
        """The slots, with the null forms that model_index.json asks for."""
        zeros = self.zeros is not None and index.get(ZEROS, self.zeros)
        return tuple(replace(slot, null="zeros") for slot in self.slots) if zeros else self.slots

    def settings(self, transformer: Mapping[str, Any]) -> tuple[int, float, int | None]:
        """Steps, guidance and T5's tokens (None: the table's) for a transformer of this config."""
        if self.untold and not transformer.get("guidance_embeds"):
            return self.untold
        return self.steps, self.guidance, None


# What Sana's Gemma is asked to do with a prompt (configs of its code, "complex human instruction").
ENHANCE = "\n".join(
    (
        "Given a user prompt, generate an 'Enhanced prompt' that provides detailed visual descriptions suitable for image generation. "
        "Evaluate the level of detail in the user prompt:",
        "- If the prompt is simple, focus on adding specifics about colors, shapes, sizes, textures, and spatial relationships to create "
        "vivid and concrete scenes.",
        "- If the prompt is already detailed, refine and enhance the existing details slightly without overcomplicating.",
        "Here are examples of how to transform or refine prompts:",
        "- User Prompt: A cat sleeping -> Enhanced: A small, fluffy white cat curled up in a round shape, sleeping peacefully on a warm "
        "sunny windowsill, surrounded by pots of blooming red flowers.",
        "- User Prompt: A busy city street -> Enhanced: A bustling city street scene at dusk, featuring glowing street lamps, a diverse "
        "crowd of people in colorful clothing, and a double-decker bus passing by towering glass skyscrapers.",
        "Please generate only the enhanced description for the prompt below and avoid including any additional commentary or evaluations:",
        "User Prompt: ",
    )
)
ASSISTANT = (
    "You are an assistant designed to generate superior images with the superior degree of image-text alignment based on textual prompts "
    "or user prompts."
)
ZEROS = "force_zeros_for_empty_prompt"
# FLUX.1 schnell is the pipeline class of dev with a network that is told no guidance.
SCHNELL = (4, 1.0, 256)
_DISCRETE = ("DPMSolverMultistepScheduler", "DDIMScheduler")
_FLOW = ("FlowMatchEulerDiscreteScheduler",)
_T5 = ("T5EncoderModel",)
_PROJECTED = ("CLIPTextModelWithProjection",)
_STABLE = ("PNDMScheduler", "DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler")
_XL = ("EulerDiscreteScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler")
_SECOND = Text("text_encoder_2", "tokenizer_2", _PROJECTED, layer=-2, padding="attended")
# The uncond lane reads the empty prompt in all of them.
_TEXT, _POOLED, _TAPS = (Slot(name, null="empty") for name in ("text", "pooled", "taps"))


def _pixart(tokens: int) -> Kind:
    text = Text("text_encoder", "tokenizer", _T5, tokens=tokens, prepare=lowered)
    return Kind("PixArtTransformer2DModel", (text,), "one", _DISCRETE, (_TEXT,), steps=20, guidance=4.5, binned=True)


KINDS: Mapping[str, Kind] = {
    "PixArtAlphaPipeline": _pixart(120),
    "PixArtSigmaPipeline": _pixart(300),
    "StableDiffusion3Pipeline": Kind(
        "SD3Transformer2DModel",
        (
            Text("text_encoder", "tokenizer", _PROJECTED, layer=-2, padding="attended"),
            Text("text_encoder_2", "tokenizer_2", _PROJECTED, layer=-2, padding="attended"),
            Text("text_encoder_3", "tokenizer_3", _T5, tokens=256, padding="attended", optional=True),
        ),
        "stacked",
        _FLOW,
        (_TEXT, _POOLED),
        steps=28,
        guidance=7.0,
        optional=("image_encoder", "feature_extractor"),
    ),
    "FluxPipeline": Kind(
        "FluxTransformer2DModel",
        (
            Text("text_encoder", "tokenizer", ("CLIPTextModel",), padding="attended"),
            Text("text_encoder_2", "tokenizer_2", _T5, tokens=512, padding="attended"),
        ),
        "pooled",
        _FLOW,
        (_TEXT, _POOLED),
        steps=28,
        guidance=3.5,
        even=True,
        side=128,
        optional=("image_encoder", "feature_extractor"),
        untold=SCHNELL,
        sized=True,
    ),
    "SanaPipeline": Kind(
        "SanaTransformer2DModel",
        (Text("text_encoder", "tokenizer", ("Gemma2Model",), tokens=300, prepare=stripped, instruction=ENHANCE, hidden=True),),
        "one",
        ("DPMSolverMultistepScheduler", *_FLOW),
        (_TEXT,),
        steps=20,
        guidance=4.5,
        codec="AutoencoderDC",
        exact=True,
    ),
    "LuminaPipeline": Kind(
        "LuminaNextDiT2DModel",
        (Text("text_encoder", "tokenizer", ("GemmaModel",), layer=-2, tokens=256),),
        "one",
        _FLOW,
        (_TEXT,),
        steps=30,
        guidance=4.0,
        guide=Guide(channels=3),
        other_sizes=OtherSizes("switched", sharpen="proportional", smaller="sharpened"),
    ),
    "DiTPipeline": Kind(
        "DiTTransformer2DModel",
        (),
        "one",
        _DISCRETE,
        (Slot("class", null="value"),),
        steps=50,
        guidance=4.0,
        guide=Guide(channels=3),
    ),
    "Lumina2Pipeline": Kind(
        "Lumina2Transformer2DModel",
        (Text("text_encoder", "tokenizer", ("Gemma2Model",), layer=-2, tokens=256, instruction=f"{ASSISTANT} <Prompt Start> "),),
        "one",
        _FLOW,
        (_TEXT,),
        steps=30,
        guidance=4.0,
        even=True,
        guide=Guide(renorm="picture"),
    ),
    "StableDiffusionPipeline": Kind(
        "UNet2DConditionModel",
        (Text("text_encoder", "tokenizer", ("CLIPTextModel",), padding="attended"),),
        "one",
        _STABLE,
        (_TEXT,),
        steps=50,
        guidance=7.5,
        optional=("image_encoder",),
        unrun=("safety_checker", "feature_extractor"),
    ),
    "StableDiffusionXLPipeline": Kind(
        "UNet2DConditionModel",
        (Text("text_encoder", "tokenizer", ("CLIPTextModel",), layer=-2, padding="attended"), _SECOND),
        "beside",
        _XL,
        (_TEXT, _POOLED),
        steps=50,
        guidance=5.0,
        optional=("image_encoder", "feature_extractor"),
        zeros=True,
    ),
    # The refiner: it reads the second encoder alone and goes on from a picture.
    "StableDiffusionXLImg2ImgPipeline": Kind(
        "UNet2DConditionModel",
        (_SECOND,),
        "one",
        _XL,
        (_TEXT, _POOLED),
        steps=50,
        guidance=5.0,
        optional=("text_encoder", "tokenizer", "image_encoder", "feature_extractor"),
        zeros=True,
    ),
    "HiDreamImagePipeline": Kind(
        "HiDreamImageTransformer2DModel",
        (
            Text("text_encoder", "tokenizer", _PROJECTED, tokens=128, padding="attended"),
            Text("text_encoder_2", "tokenizer_2", _PROJECTED, tokens=128, padding="attended"),
            Text("text_encoder_3", "tokenizer_3", _T5, tokens=128, padding="kept"),
            Text("text_encoder_4", "tokenizer_4", ("LlamaForCausalLM", "LlamaModel"), tokens=128, padding="kept", taps=True),
        ),
        "tapped",
        ("UniPCMultistepScheduler", *_FLOW, "FlowMatchLCMScheduler"),
        (_TEXT, _TAPS, _POOLED),
        steps=50,
        guidance=5.0,
        side=128,
        # Dev and Fast.
        distilled={6.0: (28, 1.0), 3.0: (16, 1.0)},
    ),
}


def _lowered(made_of: Kind) -> Kind:
    return replace(made_of, texts=tuple(replace(text, prepare=lowered) for text in made_of.texts))


# What diffusers does otherwise than the original code; the classes that are not here it computes alike.
DIFFUSERS: Mapping[str, Kind] = {
    "FluxPipeline": replace(KINDS["FluxPipeline"], untold=(28, 1.0, None)),
    "SanaPipeline": replace(_lowered(KINDS["SanaPipeline"]), exact=False),
    "LuminaPipeline": replace(
        _lowered(KINDS["LuminaPipeline"]), other_sizes=OtherSizes("interpolated", sharpen="proportional", smaller="scaled")
    ),
    "DiTPipeline": replace(KINDS["DiTPipeline"], guide=Guide()),
    "Lumina2Pipeline": replace(KINDS["Lumina2Pipeline"], guide=Guide(renorm="rows")),
}
# Former names of pipeline classes.
FORMER: Mapping[str, str] = {"LuminaText2ImgPipeline": "LuminaPipeline"}
# Pipelines whose networks are known and whose way of drawing is another process.
REFUSED: Mapping[str, str] = {
    "UniDiffuserPipeline": "it draws a CLIP embedding beside the picture, which no process here does; `load_denoiser` reads its unet",
    "SanaSprintPipeline": "its steps noise the picture again (SCM), which no solver here does; `load_denoiser` reads its network",
}


def class_name(index: Mapping[str, Any]) -> str:
    """The pipeline class that a model_index.json names, by its present name."""
    name = str(index.get("_class_name", "?"))
    return FORMER.get(name, name)


def kind(name: str, ways: Ways = "original") -> Kind:
    """The published pipeline of this class name, drawn as in its original code or as in diffusers. Raises `UnknownNameError`, and
    `ConfigError` for one that is known and refused.
    """
    if ways not in WAYS:
        raise UnknownNameError("ways", ways, WAYS)
    if name in REFUSED:
        raise ConfigError(f"a {name} is not drawn here", REFUSED[name])
    if name not in KINDS:
        raise UnknownNameError("pipeline class", name, KINDS)
    return DIFFUSERS.get(name, KINDS[name]) if ways == "diffusers" else KINDS[name]
