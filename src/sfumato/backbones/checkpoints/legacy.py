"""Configs from before diffusers gave DiT and PixArt classes of their own: `Transformer2DModel`, told apart by its norm_type.

The first published folders of both hold such configs. What they say is said in the present class's fields; what only other networks of the
old class had must be absent, and a field that did not exist yet has the present class's default.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from ...core.errors import ConfigError

LEGACY = "Transformer2DModel"
PRESENT = {"ada_norm_zero": "DiTTransformer2DModel", "ada_norm_single": "PixArtTransformer2DModel"}
# Fields of the old class alone, with the values under which they change nothing.
_GONE: Mapping[str, tuple[Any, ...]] = {
    "attention_type": ("default",),
    "caption_channels": (None,),
    "cross_attention_dim": (None,),
    "double_self_attention": (False,),
    "interpolation_scale": (None,),
    "num_vector_embeds": (None,),
    "only_cross_attention": (False,),
    "use_additional_conditions": (None, False),
    "use_linear_projection": (False,),
}


def modern(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` itself, or, of the old class, what it means today. Raises `ConfigError` where no class of today is meant."""
    if config.get("_class_name") != LEGACY:
        return dict(config)
    name = PRESENT.get(str(config.get("norm_type")))
    if name is None:
        raise ConfigError(f"a {LEGACY} with norm_type = {config.get('norm_type')!r}", f"supported: {', '.join(map(repr, PRESENT))}")
    import diffusers

    fields = inspect.signature(getattr(diffusers, name).__init__).parameters
    kept = {n: p.default for n, p in fields.items() if p.default is not inspect.Parameter.empty}
    for field, value in config.items():
        if field in fields or field.startswith("_"):
            kept[field] = value
        elif field not in _GONE:
            raise ConfigError(f"a {LEGACY} config with {field} = {value!r}", f"it is no field of a {name}")
        elif value not in _GONE[field]:
            raise ConfigError(f"{LEGACY} with {field} = {value!r}", f"supported: {', '.join(map(repr, _GONE[field]))}")
    return {**kept, "_class_name": name}
