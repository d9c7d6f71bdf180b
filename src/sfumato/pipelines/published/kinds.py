"""What each published pipeline is made of: components, how its text encoders are read and joined, and the settings it was released with.

Where the original code and diffusers differ, the original's is the default:
    PixArt      both lower the caption; where ftfy and beautifulsoup are installed, both also strip it of markup, links, numbers and much
                else. Here that is asked for, load(..., clean_captions=True), so that what is installed changes no picture
    FLUX.1      schnell: the original reads 256 T5 tokens and draws 4 steps, diffusers 512 and 28 (load(..., text_tokens=512) for its own)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...backbones.checkpoints import formats
from ...core.conditions import Slot
from ...core.errors import UnknownNameError
from ...text.captions import Prepare, as_it_is, lowered
from ...text.joined import How
from ...text.transformers_encoder import Padding


@dataclass(frozen=True)
class Text:
    """A text encoder in `folder` with its `tokenizer`; `classes` of transformers that it may be. `layer`: of the states that are taken.

    `tokens`: how many it reads; 0 = what its tokenizer declares.   `prepare`: what is done to a prompt first.
    `optional`: a folder without it still draws.
    `taps`: all the layers that the transformer's blocks hear are taken, side by side, and the token that ends a text pads it.
    """

    folder: str
    tokenizer: str
    classes: tuple[str, ...]
    layer: int = -1
    tokens: int = 0
    padding: Padding = "masked"
    prepare: Prepare = as_it_is
    optional: bool = False
    taps: bool = False


@dataclass(frozen=True)
class Kind:
    """One pipeline class of diffusers.

    `transformer`: the network's class.   `even`: hands evenly spaced sigmas to its scheduler.   `side`: tokens' rows that it was trained
    at, where the transformer's config does not say (latent cells).   `binned`: drawn at the nearest of the sizes it was trained at.
    `optional`: components that may be null, and have to be: they are of uses that are not drawn here.
    `distilled`: (steps, guidance) by shift where the scheduler renoises.
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
        if self.joined == "pooled" and not transformer.get("guidance_embeds"):
            return SCHNELL
        return self.steps, self.guidance, None


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


def kind(name: str) -> Kind:
    """The published pipeline of this class name. Raises `UnknownNameError`."""
    if name not in KINDS:
        raise UnknownNameError("pipeline class", name, KINDS)
    return KINDS[name]
