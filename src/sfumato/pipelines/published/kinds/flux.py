"""FLUX.1 dev and schnell: T5's tokens, CLIP's pooled vector. An image encoder is an adapter's, which is not drawn here.

One class serves both; schnell's network is told no guidance. The original reads 256 T5 tokens for it and draws 4 steps, diffusers 512
and 28.
"""

from dataclasses import replace

from . import CLIP, FLOW, POOLED, T5, TEXT, Kind, Said, Text, publish


def _schnell(kind: Kind, said: Said) -> Kind:
    if said.config.get("guidance_embeds"):
        return kind
    clip, t5 = kind.texts
    return replace(kind, texts=(clip, replace(t5, tokens=256)), steps=4, guidance=1.0)


def _schnell_in_diffusers(kind: Kind, said: Said) -> Kind:
    return kind if said.config.get("guidance_embeds") else replace(kind, guidance=1.0)


FLUX = Kind(
    "FluxTransformer2DModel",
    (
        Text("text_encoder", "tokenizer", CLIP, padding="attended"),
        Text("text_encoder_2", "tokenizer_2", T5, tokens=512, padding="attended"),
    ),
    "pooled",
    FLOW,
    (TEXT, POOLED),
    steps=28,
    guidance=3.5,
    even=True,
    sized=True,
    optional=("image_encoder", "feature_extractor"),
    settled=_schnell,
)
publish("FluxPipeline", FLUX, diffusers=replace(FLUX, settled=_schnell_in_diffusers))
