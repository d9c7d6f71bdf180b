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


backbones = Backbones("backbone")
backbones.lazy("MMDiT", "sfumato.backbones.mmdit:FAMILY")
backbones.lazy("Flux", "sfumato.backbones.flux:FAMILY")
backbones.lazy("DiT", "sfumato.backbones.dit:FAMILY")
backbones.lazy("Lumina2", "sfumato.backbones.lumina2:FAMILY")
backbones.lazy("NextDiT", "sfumato.backbones.nextdit:FAMILY")
backbones.lazy("PixArt", "sfumato.backbones.pixart:FAMILY")
backbones.lazy("Sana", "sfumato.backbones.sana:FAMILY")
backbones.lazy("UniDiffuser", "sfumato.backbones.unidiffuser:FAMILY")
backbones.lazy("UViT", "sfumato.backbones.uvit:FAMILY")
