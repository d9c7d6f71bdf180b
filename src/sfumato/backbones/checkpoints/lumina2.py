"""Lumina-Image 2.0 as diffusers' `Lumina2Transformer2DModel`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...core.errors import ConfigError
from ..lumina2 import Lumina2Config
from . import Format, Rule, refuse_channels, rule
from .lumina import MEANING, hidden, hidden_rule

_ROOT = (
    rule("x_embedder", "patch"),
    rule("time_caption_embed.timestep_embedder.linear_1", "time.mlp.up"),
    rule("time_caption_embed.timestep_embedder.linear_2", "time.mlp.down"),
    rule("time_caption_embed.caption_embedder.0", "text_norm"),
    rule("time_caption_embed.caption_embedder.1", "text"),
    rule("norm_out.linear_1", "final_modulation.linear"),
    rule("norm_out.linear_2", "final"),
)
_BLOCK = tuple(
    rule(theirs, ours)
    for theirs, ours in (
        ("attn.to_q", "attention.core.projections.any.q"),
        ("attn.to_k", "attention.core.projections.any.k"),
        ("attn.to_v", "attention.core.projections.any.v"),
        ("attn.norm_q", "attention.core.projections.any.q_norm"),
        ("attn.norm_k", "attention.core.projections.any.k_norm"),
        ("attn.to_out.0", "attention.core.projections.any.out"),
        ("norm2", "attention.after"),
        ("ffn_norm1", "mlp.before"),
        ("ffn_norm2", "mlp.after"),
        ("feed_forward.linear_1", "mlp.core.gate"),
        ("feed_forward.linear_2", "mlp.core.down"),
        ("feed_forward.linear_3", "mlp.core.up"),
    )
)
_PLAIN = (*_BLOCK, rule("norm1", "attention.before"))
_MODULATED = (
    *_BLOCK,
    rule("norm1.norm", "attention.before"),
    rule("norm1.linear", "attention.modulation.linear", "mlp.modulation.linear"),
)


def _rules(config: Lumina2Config) -> tuple[Rule, ...]:
    """Three lists of theirs are one program of ours."""
    lists = (
        ("context_refiner", _PLAIN, config.refiners),
        ("noise_refiner", _MODULATED, config.refiners),
        ("layers", _MODULATED, config.depth),
    )
    places = [(f"{name}.{i}", rules) for name, rules, count in lists for i in range(count)]
    blocks = tuple(
        replace(r, theirs=f"{there}.{r.theirs}", ours=tuple(f"blocks.{here}.{o}" for o in r.ours))
        for here, (there, rules) in enumerate(places)
        for r in rules
    )
    return _ROOT + blocks


def _derive(theirs: Mapping[str, Any]) -> dict[str, Any]:
    channels = theirs.get("in_channels", 16)
    refuse_channels(channels, theirs.get("out_channels"))
    if (heads := theirs.get("num_kv_heads")) is None:
        raise ConfigError("num_kv_heads is None", "the number of heads of keys and values, at most num_attention_heads")
    return {
        "kv_heads": heads,
        "hidden": hidden(theirs, 4 * theirs["hidden_size"]),
        "axes": tuple(theirs.get("axes_dim_rope", (32, 32, 32))),
    }


def _describe(ours: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "num_kv_heads": ours["kv_heads"],
        "out_channels": None,
        "axes_dim_rope": list(ours["axes"]),
        # What follows changes no number: tables' lengths, and the size that pipelines draw.
        "axes_lens": [300, 512, 512],
        "sample_size": 128,
        "scaling_factor": 1.0,
        **hidden_rule(ours["hidden"], 4 * ours["width"]),
    }


FORMAT = Format(
    class_name="Lumina2Transformer2DModel",
    family="Lumina2",
    rules=_rules,
    fields={
        "num_layers": "depth",
        "num_refiner_layers": "refiners",
        "hidden_size": "width",
        "num_attention_heads": "heads",
        "in_channels": "channels",
        "patch_size": "patch",
        "cap_feat_dim": "text_width",
        "norm_eps": "eps",
    },
    derive=_derive,
    describe=_describe,
    derives=frozenset(
        {
            "num_kv_heads",
            "out_channels",
            "axes_dim_rope",
            "axes_lens",
            "multiple_of",
            "ffn_dim_multiplier",
            "sample_size",
            "scaling_factor",
        }
    ),
    meaning=MEANING,
)
