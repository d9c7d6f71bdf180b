"""Lumina-Next (arXiv 2406.18583) with Gemma, and Lumina-Image 2.0 (arXiv 2503.21758) with Gemma-2, which it instructs.

Lumina-Next: diffusers lowers the prompt and interpolates positions at every size; the original switches its rule at t = 0.7, for larger
pictures only. Guidance acts on three channels. Lumina-Image 2.0: guidance may not lengthen a picture's prediction; in diffusers each row
of cells keeps its length.
"""

from dataclasses import replace

from ....sampling.guidance import Guide
from ....sampling.policies.extrapolation import OtherSizes
from ....text.captions import lowered
from . import FLOW, TEXT, Kind, Text, publish

ASSISTANT = (
    "You are an assistant designed to generate superior images with the superior degree of image-text alignment based on textual prompts "
    "or user prompts."
)
_GEMMA = Text("text_encoder", "tokenizer", ("GemmaModel",), layers=(-2,), tokens=256)
NEXT = Kind(
    "LuminaNextDiT2DModel",
    (_GEMMA,),
    "one",
    FLOW,
    (TEXT,),
    steps=30,
    guidance=4.0,
    guide=Guide(channels=3),
    other_sizes=OtherSizes("switched", sharpen="proportional", smaller="sharpened"),
)
IMAGE_2 = Kind(
    "Lumina2Transformer2DModel",
    (Text("text_encoder", "tokenizer", ("Gemma2Model",), layers=(-2,), tokens=256, instruction=f"{ASSISTANT} <Prompt Start> "),),
    "one",
    FLOW,
    (TEXT,),
    steps=30,
    guidance=4.0,
    even=True,
    guide=Guide(renorm="picture"),
)
publish(
    "LuminaPipeline",
    NEXT,
    diffusers=replace(
        NEXT,
        texts=(replace(_GEMMA, prepare=lowered),),
        other_sizes=OtherSizes("interpolated", sharpen="proportional", smaller="scaled"),
    ),
    former="LuminaText2ImgPipeline",
)
publish("Lumina2Pipeline", IMAGE_2, diffusers=replace(IMAGE_2, guide=Guide(renorm="rows")), former="Lumina2Text2ImgPipeline")
