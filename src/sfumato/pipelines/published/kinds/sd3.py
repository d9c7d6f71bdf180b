"""Stable Diffusion 3 and 3.5 (arXiv 2403.03206): two CLIPs stacked on a T5, which may be left out.

An image encoder is an adapter's, which is not drawn here. Its shift is fixed: one that follows the size is refused.
"""

from . import FLOW, POOLED, PROJECTED_CLIP, T5, TEXT, Kind, Text, publish

publish(
    "StableDiffusion3Pipeline",
    Kind(
        "SD3Transformer2DModel",
        (
            Text("text_encoder", "tokenizer", PROJECTED_CLIP, layers=(-2,), padding="attended"),
            Text("text_encoder_2", "tokenizer_2", PROJECTED_CLIP, layers=(-2,), padding="attended"),
            Text("text_encoder_3", "tokenizer_3", T5, tokens=256, padding="attended", optional=True),
        ),
        "stacked",
        FLOW,
        (TEXT, POOLED),
        steps=28,
        guidance=7.0,
        optional=("image_encoder", "feature_extractor"),
    ),
)
