"""Sana and Sana-Sprint as diffusers' `SanaTransformer2DModel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...core.denoiser import Meaning
from ...core.errors import ConfigError
from ..sana import SanaConfig
from . import Format, Rule, numbered, refuse_channels, rule, trained_side

_QKV = (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "out"), ("norm_q", "q_norm"), ("norm_k", "k_norm"))
_BLOCK = (
    *(
        rule(f"transformer_blocks.{{i}}.{theirs}.{part}", f"blocks.{{i}}.{ours}.{own}")
        for theirs, ours in (("attn1", "attention.core.projections.image"), ("attn2", "cross.core"))
        for part, own in _QKV
    ),
    rule("transformer_blocks.{i}.scale_shift_table", "blocks.{i}.attention.modulation.table", "blocks.{i}.mlp.modulation.table"),
    rule("transformer_blocks.{i}.norm2", "blocks.{i}.mlp.norm"),
    Rule("transformer_blocks.{i}.ff.conv_inverted", ("blocks.{i}.mlp.core.up", "blocks.{i}.mlp.core.gate"), pointwise=True),
    rule("transformer_blocks.{i}.ff.conv_depth", "blocks.{i}.mlp.core.up_conv", "blocks.{i}.mlp.core.gate_conv"),
    Rule("transformer_blocks.{i}.ff.conv_point", ("blocks.{i}.mlp.core.down",), pointwise=True),
)
_ROOT = (
    rule("patch_embed.proj", "patch.proj"),
    rule("caption_projection.linear_1", "text.up"),
    rule("caption_projection.linear_2", "text.down"),
    rule("caption_norm", "text_norm"),
    rule("time_embed.linear", "shared"),
    rule("scale_shift_table", "final_modulation.table"),
    rule("proj_out", "final"),
)


def _rules(config: SanaConfig) -> tuple[Rule, ...]:
    time = "time_embed" if config.guided else "time_embed.emb"
    embeddings = tuple(
        rule(f"{where}.linear_{n}", f"{ours}.mlp.{part}")
        for where, ours in ((f"{time}.timestep_embedder", "time"), ("time_embed.guidance_embedder", "guidance"))
        for n, part in ((1, "up"), (2, "down"))
    )
    return _ROOT + embeddings + numbered(_BLOCK, config.depth)


def _derive(theirs: Mapping[str, Any]) -> dict[str, Any]:
    channels, width = theirs.get("in_channels", 32), theirs.get("num_attention_heads", 70) * theirs.get("attention_head_dim", 32)
    refuse_channels(channels, theirs.get("out_channels", 32))
    cross = theirs.get("num_cross_attention_heads", 20) * theirs.get("cross_attention_head_dim", 112)
    if (cross, theirs.get("cross_attention_dim", 2240)) != (width, width):
        raise ConfigError(
            f"cross-attention is {cross} wide, reads {theirs.get('cross_attention_dim')} and the blocks are {width} wide",
            "captions are projected to the blocks' width, and both attentions share it",
        )
    scale, tokens = theirs.get("interpolation_scale"), trained_side(theirs, 32) // theirs.get("patch_size", 1)
    return {
        "width": width,
        "hidden": int(theirs.get("mlp_ratio", 2.5) * width),
        "qk_norm": theirs.get("qk_norm") is not None,
        "span": 0.0 if scale is None else tokens / scale,
        "time_scale": 1000.0 * theirs.get("timestep_scale", 1.0),
    }


def _describe(ours: Mapping[str, Any]) -> dict[str, Any]:
    width, ratio = ours["width"], ours["hidden"] / ours["width"]
    # Without positions the side changes no number; with them, only side / patch / scale does.
    tokens = max(round(ours["span"]), 1) if ours["span"] else 32
    return {
        "attention_head_dim": width // ours["heads"],
        "cross_attention_head_dim": width // ours["cross_heads"],
        "cross_attention_dim": width,
        "out_channels": ours["channels"],
        # Their width is rounded down: half a channel more where the ratio is not exact.
        "mlp_ratio": ratio if int(ratio * width) == ours["hidden"] else (ours["hidden"] + 0.5) / width,
        "qk_norm": "rms_norm_across_heads" if ours["qk_norm"] else None,
        "sample_size": tokens * ours["patch"],
        "interpolation_scale": tokens / ours["span"] if ours["span"] else None,
        "timestep_scale": ours["time_scale"] / 1000.0,
    }


FORMAT = Format(
    class_name="SanaTransformer2DModel",
    family="Sana",
    rules=_rules,
    fields={
        "num_layers": "depth",
        "num_attention_heads": "heads",
        "num_cross_attention_heads": "cross_heads",
        "in_channels": "channels",
        "patch_size": "patch",
        "caption_channels": "text_width",
        "attention_bias": "bias",
        "norm_elementwise_affine": "affine",
        "norm_eps": "eps",
        "guidance_embeds": "guided",
        "guidance_embeds_scale": "guidance_scale",
    },
    later={"guidance_embeds": False, "guidance_embeds_scale": 0.1},
    fixed={"dropout": (0.0,), "qk_norm": (None, "rms_norm_across_heads")},
    derive=_derive,
    describe=_describe,
    derives=frozenset(
        {
            "attention_head_dim",
            "cross_attention_head_dim",
            "cross_attention_dim",
            "out_channels",
            "mlp_ratio",
            "sample_size",
            "interpolation_scale",
            "timestep_scale",
        }
    ),
    meaning=Meaning(),
)
