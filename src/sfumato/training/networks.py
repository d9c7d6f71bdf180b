"""Which network a recipe trains: any family that reads text, its config fitted to a codec and a text encoder.

`recipes.json` are the recipes that ship, by name: what each says otherwise than the defaults of `ModelRecipe`, which are emoji-mmdit's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from importlib import resources
from typing import Any

from ..backbones import backbones
from ..codecs.autoencoder import Autoencoder
from ..core.conditions import Slot
from ..core.config import from_dict
from ..core.errors import ConfigError, DataError
from ..core.program import Network
from ..text.encoded import TextEncoder
from .diffusion import TEXT_SLOTS, TextTable

# What a batch can tell a network.
FILLED = frozenset({"text", "pooled", "sizes"})


@cache
def shipped() -> Mapping[str, Mapping[str, Any]]:
    """The recipes that ship, by name."""
    return json.loads((resources.files(__package__) / "recipes.json").read_text(encoding="utf-8"))


def shipped_of(family: str) -> Mapping[str, Any]:
    """The recipe that ships for a family, of 128-pixel pictures. Raises `UnknownNameError`, or `ConfigError` where the family has none."""
    backbones.get(family)
    for recipe in shipped().values():
        if recipe["family"] == family:
            return recipe
    have = sorted({recipe["family"] for recipe in shipped().values()})
    raise ConfigError(f"no recipe ships for {family}", f"families with one: {', '.join(have)}")


def shape_of(family: str, shape: Any) -> Any:
    """The config of `family` that `shape` is or describes, as JSON values; None: that of the family's shipped recipe.

    Raises `ConfigError` for another family's config and, with the nearest names, for a field that the family's config has not.
    """
    config = backbones.get(family).config
    if shape is None:
        shape = shipped_of(family)["shape"]
    if isinstance(shape, Mapping):
        return from_dict(config, shape)
    if type(shape) is not config:
        raise ConfigError(f"the family is {family} and its shape a {type(shape).__name__}", f"a {config.__name__}")
    return shape


def fitted(shape: Any, codec: Autoencoder, encoder: TextEncoder) -> Any:
    """`shape` with the widths that follow from `codec` and `encoder`."""
    widths = {"channels": codec.latent_channels, "text_width": encoder.width, "pooled_width": encoder.pooled_width}
    return replace(shape, **{f.name: widths[f.name] for f in fields(shape) if f.name in widths})


def text_slots(net: Network) -> tuple[Slot, ...]:
    """The slots that `net` reads of a text. Raises `ConfigError` for a network that text alone does not serve."""
    name = type(net).__name__
    if "text" not in net.slots:
        raise ConfigError(f"a {name} reads {', '.join(sorted(net.slots))}, no text", "a family that reads the slot 'text'")
    if more := net.slots - FILLED:
        raise ConfigError(f"this {name} reads {', '.join(sorted(more))}, which no drawing has", "a shape without it (guided: false)")
    if getattr(net.config, "variance", False):
        raise ConfigError(f"this {name} also predicts a variance, which a flow has not", "a shape with variance: false")
    return tuple(slot for slot in TEXT_SLOTS if slot.name in net.slots)


def told(table: TextTable, net: Network) -> TextTable:
    """What `net` reads of `table`. Raises `DataError` for a caption of more tokens than the network has positions for."""
    longest, most = int(table.offsets.diff().max()), getattr(net.config, "words", None)
    if most is not None and longest > most:
        raise DataError(f"the longest caption has {longest} tokens and the {type(net).__name__} positions for {most}", "more `words`")
    return table if "pooled" in net.slots else replace(table, pooled=None)
