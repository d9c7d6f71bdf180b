"""FLUX.1 dev and schnell as diffusers' `FluxTransformer2DModel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...core.denoiser import Meaning
from ...core.errors import ConfigError
from ..flux import FluxConfig
from . import SWAPPED, Format, Rule, numbered, rule

_QKV = (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("norm_q", "q_norm"), ("norm_k", "k_norm"))
_TEXT = (
    ("add_q_proj", "q"),
    ("add_k_proj", "k"),
    ("add_v_proj", "v"),
    ("to_add_out", "out"),
    ("norm_added_q", "q_norm"),
    ("norm_added_k", "k_norm"),
)
_DUAL = (
    *(
        rule(f"transformer_blocks.{{i}}.attn.{theirs}", f"blocks.{{i}}.attention.core.projections.{stream}.{ours}")
        for stream, names in (("image", (*_QKV, ("to_out.0", "out"))), ("text", _TEXT))
        for theirs, ours in names
    ),
    *(
        rule(f"transformer_blocks.{{i}}.{theirs}.{part}", f"blocks.{{i}}.mlp.core.{stream}.{ours}")
        for stream, theirs in (("image", "ff"), ("text", "ff_context"))
        for part, ours in (("net.0.proj", "up"), ("net.2", "down"))
    ),
    *(
        rule(
            f"transformer_blocks.{{i}}.{theirs}.linear",
            f"blocks.{{i}}.attention.modulation.{stream}.linear",
            f"blocks.{{i}}.mlp.modulation.{stream}.linear",
        )
        for stream, theirs in (("image", "norm1"), ("text", "norm1_context"))
    ),
)
_ROOT = (
    rule("x_embedder", "patch"),
    rule("context_embedder", "text"),
    rule("time_text_embed.timestep_embedder.linear_1", "time.mlp.up"),
    rule("time_text_embed.timestep_embedder.linear_2", "time.mlp.down"),
    rule("time_text_embed.guidance_embedder.linear_1", "guidance.mlp.up"),
    rule("time_text_embed.guidance_embedder.linear_2", "guidance.mlp.down"),
    rule("time_text_embed.text_embedder.linear_1", "pooled.up"),
    rule("time_text_embed.text_embedder.linear_2", "pooled.down"),
    rule("norm_out.linear", "final_modulation.linear", order=SWAPPED),
    rule("proj_out", "final"),
)


def _single(theirs: int, block: int, ratio: int) -> tuple[Rule, ...]:
    """Their last Linear reads [attention, MLP] at once: its columns are the two branches' output weights, its bias the attention's."""
    there, here = f"single_transformer_blocks.{theirs}", f"blocks.{block}"
    out, down = f"{here}.attention.core.projections.any.out", f"{here}.mlp.core.any.down"
    return (
        *(Rule(f"{there}.attn.{t}", (f"{here}.attention.core.projections.any.{o}",)) for t, o in _QKV),
        Rule(f"{there}.norm.linear", (f"{here}.attention.modulation.any.linear",)),
        Rule(f"{there}.proj_mlp", (f"{here}.mlp.core.any.up",)),
        Rule(f"{there}.proj_out.weight", (f"{out}.weight", f"{down}.weight"), shares=(1, ratio), dim=1),
        Rule(f"{there}.proj_out.bias", (f"{out}.bias",)),
    )


def _rules(config: FluxConfig) -> tuple[Rule, ...]:
    singles = tuple(r for i in range(config.single) for r in _single(i, config.dual + i, config.mlp_ratio))
    return _ROOT + numbered(_DUAL, config.dual) + singles


_ORIGINAL_DUAL = tuple(
    rule(f"double_blocks.{{i}}.{prefix}_{theirs}", *(f"blocks.{{i}}.{o.format(stream)}" for o in ours))
    for stream, prefix in (("image", "img"), ("text", "txt"))
    for theirs, *ours in (
        ("attn.qkv", *(f"attention.core.projections.{{}}.{part}" for part in "qkv")),
        ("attn.proj", "attention.core.projections.{}.out"),
        ("mlp.0", "mlp.core.{}.up"),
        ("mlp.2", "mlp.core.{}.down"),
        ("mod.lin", "attention.modulation.{}.linear", "mlp.modulation.{}.linear"),
    )
)
_ORIGINAL_ROOT = (
    rule("img_in", "patch"),
    rule("txt_in", "text"),
    *(
        rule(f"{theirs}.{layer}", f"{ours}.{part}")
        for theirs, ours in (("time_in", "time.mlp"), ("guidance_in", "guidance.mlp"), ("vector_in", "pooled"))
        for layer, part in (("in_layer", "up"), ("out_layer", "down"))
    ),
    rule("final_layer.adaLN_modulation.1", "final_modulation.linear"),
    rule("final_layer.linear", "final"),
)


def _original_single(theirs: int, block: int, ratio: int) -> tuple[Rule, ...]:
    there, here = f"single_blocks.{theirs}", f"blocks.{block}"
    attention, mlp = f"{here}.attention.core.projections.any", f"{here}.mlp.core.any"
    return (
        Rule(f"{there}.modulation.lin", (f"{here}.attention.modulation.any.linear",)),
        Rule(f"{there}.linear1", (*(f"{attention}.{part}" for part in "qkv"), f"{mlp}.up"), shares=(1, 1, 1, ratio)),
        Rule(f"{there}.linear2", (f"{attention}.out", f"{mlp}.down"), shares=(1, ratio), dim=1),
    )


def _originals(config: FluxConfig) -> tuple[Rule, ...]:
    singles = tuple(r for i in range(config.single) for r in _original_single(i, config.dual + i, config.mlp_ratio))
    return _ORIGINAL_ROOT + numbered(_ORIGINAL_DUAL, config.dual) + singles


def _derive(theirs: Mapping[str, Any]) -> dict[str, Any]:
    if (patch := theirs.get("patch_size", 1)) != 1:
        raise ConfigError(f"patch_size is {patch}", "1: FLUX's pipeline packs 2 x 2 latent cells before the transformer")
    channels = theirs.get("in_channels", 64)
    if channels % 4 or theirs.get("out_channels") not in (None, channels):
        raise ConfigError(
            f"in_channels is {channels} and out_channels {theirs.get('out_channels')}",
            "as many out as in, a multiple of 4 (FLUX fill, depth and canny take more in: they are not supported)",
        )
    return {
        "width": theirs.get("num_attention_heads", 24) * theirs.get("attention_head_dim", 128),
        "channels": channels // 4,
        "axes": tuple(theirs.get("axes_dims_rope", (16, 56, 56))),
    }


def _describe(ours: Mapping[str, Any]) -> dict[str, Any]:
    if ours["patch"] != 2 or ours["mlp_ratio"] != 4:
        raise ConfigError(
            f"diffusers' FLUX has a patch of 2 and an mlp_ratio of 4, not {ours['patch']} and {ours['mlp_ratio']}",
            "save in sfumato's own format",
        )
    return {
        "attention_head_dim": ours["width"] // ours["heads"],
        "in_channels": 4 * ours["channels"],
        "out_channels": None,
        "patch_size": 1,
        "axes_dims_rope": list(ours["axes"]),
    }


FORMAT = Format(
    class_name="FluxTransformer2DModel",
    family="Flux",
    rules=_rules,
    fields={
        "num_layers": "dual",
        "num_single_layers": "single",
        "num_attention_heads": "heads",
        "joint_attention_dim": "text_width",
        "pooled_projection_dim": "pooled_width",
        "guidance_embeds": "guided",
    },
    derive=_derive,
    describe=_describe,
    derives=frozenset({"attention_head_dim", "in_channels", "out_channels", "patch_size", "axes_dims_rope"}),
    originals=_originals,
    meaning=Meaning(),
)
