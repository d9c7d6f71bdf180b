"""Backbones by family name. A family is a network class and its config; each lives in one file and is imported when asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..core.errors import UnknownNameError
from ..core.program import Network
from ..core.registry import Registry


@dataclass(frozen=True)
class Family:
    """`network(config)` builds it; `tiny(seed)` builds a small random one with every output alive, for tests."""

    network: Callable[[Any], Network]
    config: type[Any]
    tiny: Callable[..., Network]


class Backbones(Registry[Family]):
    def name_of(self, network: type[Network]) -> str:
        """The family name of a network's class."""
        for name in self:
            if self.get(name).network is network:
                return name
        raise UnknownNameError("backbone", network.__name__, self)

    def build(self, config: Any) -> Network:
        """The network of a family's config."""
        for family in map(self.get, self):
            if family.config is type(config):
                return family.network(config)
        raise UnknownNameError("backbone's config", type(config).__name__, [self.get(name).config.__name__ for name in self])


backbones = Backbones("backbone")
backbones.lazy("AsCAN", "sfumato.backbones.ascan:FAMILY")
backbones.lazy("MMDiT", "sfumato.backbones.mmdit:FAMILY")
backbones.lazy("Flux", "sfumato.backbones.flux:FAMILY")
backbones.lazy("DiT", "sfumato.backbones.dit:FAMILY")
backbones.lazy("HiDream", "sfumato.backbones.hidream:FAMILY")
backbones.lazy("Lumina2", "sfumato.backbones.lumina2:FAMILY")
backbones.lazy("MicroDiT", "sfumato.backbones.microdit:FAMILY")
backbones.lazy("NextDiT", "sfumato.backbones.nextdit:FAMILY")
backbones.lazy("PixArt", "sfumato.backbones.pixart:FAMILY")
backbones.lazy("Sana", "sfumato.backbones.sana:FAMILY")
backbones.lazy("UNet", "sfumato.backbones.unet:FAMILY")
backbones.lazy("UniDiffuser", "sfumato.backbones.unidiffuser:FAMILY")
backbones.lazy("UViT", "sfumato.backbones.uvit:FAMILY")
