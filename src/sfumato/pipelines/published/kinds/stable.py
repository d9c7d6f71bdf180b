"""Stable Diffusion 1 and 2, and XL (arXiv 2307.01952) with its refiner, which reads the second encoder alone and goes on from a picture.

Original and diffusers draw alike. An image encoder is an adapter's, which is not drawn here; the safety checker, with its feature
extractor, judges a picture and changes none that it lets pass: it is not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import CLIP, POOLED, PROJECTED_CLIP, TEXT, Kind, Said, Text, masked, publish

if TYPE_CHECKING:
    from ...text_to_image import TextToImage

ZEROS, AESTHETICS = "force_zeros_for_empty_prompt", "requires_aesthetics_score"


def _unchecked(pipe: TextToImage, folder: Path) -> Mapping[str, Any]:
    return {"requires_safety_checker": False}


def _zeros(kind: Kind, said: Said) -> Kind:
    """An absent negative prompt is zeros, unless the folder says that it is the empty one."""
    return replace(kind, slots=tuple(replace(slot, null="zeros") for slot in kind.slots)) if said.index.get(ZEROS, True) else kind


def _base(pipe: TextToImage, folder: Path) -> Mapping[str, Any]:
    return {ZEROS: all(slot.null == "zeros" for slot in pipe.slots)}


def _refiner(pipe: TextToImage, folder: Path) -> Mapping[str, Any]:
    return {**_base(pipe, folder), AESTHETICS: "aesthetic" in pipe.denoiser.net.slots}


_SECOND = Text("text_encoder_2", "tokenizer_2", PROJECTED_CLIP, layers=(-2,), padding="attended")
XL = Kind(
    "UNet2DConditionModel",
    (Text("text_encoder", "tokenizer", CLIP, layers=(-2,), padding="attended"), _SECOND),
    "beside",
    ("EulerDiscreteScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"),
    (TEXT, POOLED),
    steps=50,
    guidance=5.0,
    optional=("image_encoder", "feature_extractor"),
    flags=(ZEROS,),
    settled=_zeros,
    written=_base,
)
publish(
    "StableDiffusionPipeline",
    Kind(
        "UNet2DConditionModel",
        (Text("text_encoder", "tokenizer", CLIP, padding="attended"),),
        "one",
        ("PNDMScheduler", "DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"),
        (TEXT,),
        steps=50,
        guidance=7.5,
        optional=("image_encoder",),
        unrun=("safety_checker",),
        idle=("feature_extractor",),
        side=64,
        flags=("requires_safety_checker",),
        settled=masked,
        written=_unchecked,
    ),
)
publish("StableDiffusionXLPipeline", XL)
publish(
    "StableDiffusionXLImg2ImgPipeline",
    replace(
        XL,
        texts=(_SECOND,),
        joined="one",
        optional=("text_encoder", "tokenizer", "image_encoder", "feature_extractor"),
        flags=(ZEROS, AESTHETICS),
        refines=True,
        written=_refiner,
    ),
)
