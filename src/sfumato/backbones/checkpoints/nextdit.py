"""Lumina-Next as diffusers' `LuminaNextDiT2DModel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...core.errors import ConfigError
from ..nextdit import NextDiTConfig
from . import Format, Rule, numbered, rule
from .lumina import MEANING, hidden, hidden_rule

_CORE = "blocks.{i}.attention.core"
_BLOCK = (
    # One query serves both attentions; they keep it twice.
    rule("layers.{i}.attn1.to_q", f"{_CORE}.own.q", copies=("layers.{i}.attn2.to_q",)),
    rule("layers.{i}.attn1.norm_q", f"{_CORE}.own.q_norm", copies=("layers.{i}.attn2.norm_q",)),
    rule("layers.{i}.attn1.to_k", f"{_CORE}.own.k"),
    rule("layers.{i}.attn1.to_v", f"{_CORE}.own.v"),
    rule("layers.{i}.attn1.norm_k", f"{_CORE}.own.k_norm"),
    rule("layers.{i}.attn2.to_k", f"{_CORE}.k"),
    rule("layers.{i}.attn2.to_v", f"{_CORE}.v"),
    rule("layers.{i}.attn2.norm_k", f"{_CORE}.k_norm"),
    rule("layers.{i}.attn2.to_out.0", f"{_CORE}.own.out"),
    rule("layers.{i}.gate", f"{_CORE}.gate"),
    rule("layers.{i}.norm1.linear", "blocks.{i}.attention.modulation.linear", "blocks.{i}.mlp.modulation.linear"),
    rule("layers.{i}.norm1.norm", "blocks.{i}.attention.before"),
    rule("layers.{i}.norm2", "blocks.{i}.attention.after"),
    rule("layers.{i}.norm1_context", "blocks.{i}.attention.words"),
    rule("layers.{i}.ffn_norm1", "blocks.{i}.mlp.before"),
    rule("layers.{i}.ffn_norm2", "blocks.{i}.mlp.after"),
    rule("layers.{i}.feed_forward.linear_1", "blocks.{i}.mlp.core.gate"),
    rule("layers.{i}.feed_forward.linear_2", "blocks.{i}.mlp.core.down"),
    rule("layers.{i}.feed_forward.linear_3", "blocks.{i}.mlp.core.up"),
)
_ROOT = (
    rule("patch_embedder.proj", "patch"),
    rule("time_caption_embed.timestep_embedder.linear_1", "time.mlp.up"),
    rule("time_caption_embed.timestep_embedder.linear_2", "time.mlp.down"),
    rule("time_caption_embed.caption_embedder.0", "caption_norm"),
    rule("time_caption_embed.caption_embedder.1", "caption"),
    rule("norm_out.linear_1", "final_modulation.linear"),
    rule("norm_out.linear_2", "final"),
)


def _rules(config: NextDiTConfig) -> tuple[Rule, ...]:
    return _ROOT + numbered(_BLOCK, config.depth)


def _inner(width: int) -> int:
    return int(8 * width / 3)


def _derive(theirs: Mapping[str, Any]) -> dict[str, Any]:
    if (heads := theirs.get("num_kv_heads")) is None and theirs.get("qk_norm", True):
        raise ConfigError("num_kv_heads is None and qk_norm is set, of which diffusers makes no network", "name the number of heads")
    return {"kv_heads": heads or theirs["num_attention_heads"], "hidden": hidden(theirs, _inner(theirs["hidden_size"]))}


def _describe(ours: Mapping[str, Any]) -> dict[str, Any]:
    if not ours["sandwich"]:
        raise ConfigError("diffusers' Next-DiT has sandwiched branches", "save in sfumato's own format")
    # Neither changes what the transformer computes: the side tells pipelines which size to draw.
    return {
        "num_kv_heads": ours["kv_heads"],
        "sample_size": 128,
        "scaling_factor": 1.0,
        **hidden_rule(ours["hidden"], _inner(ours["width"])),
    }


FORMAT = Format(
    class_name="LuminaNextDiT2DModel",
    family="NextDiT",
    rules=_rules,
    fields={
        "num_layers": "depth",
        "hidden_size": "width",
        "num_attention_heads": "heads",
        "in_channels": "channels",
        "patch_size": "patch",
        "cross_attention_dim": "text_width",
        "qk_norm": "qk_norm",
        "learn_sigma": "variance",
        "norm_eps": "eps",
    },
    derive=_derive,
    describe=_describe,
    derives=frozenset({"num_kv_heads", "multiple_of", "ffn_dim_multiplier", "sample_size", "scaling_factor"}),
    unread={"pad_token": ("width",)},
    meaning=MEANING,
)
