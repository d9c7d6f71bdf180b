"""Data: EmojiWorld (built from openly licensed drawings) and the one loader for it and for a user's own pictures.

Touches only `core/`. Parts are imported when first asked for, so that `import sfumato.data` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .emoji import Report, build_emoji
    from .packages import HELD_OUT, STYLES, TRAINABLE, Style
    from .sources import Broken, Sample, Source, open_source
    from .splits import SPLITS, split_of

_HOMES = {
    "emoji": ("Report", "build_emoji"),
    "packages": ("HELD_OUT", "STYLES", "TRAINABLE", "Style"),
    "sources": ("Broken", "Sample", "Source", "open_source"),
    "splits": ("SPLITS", "split_of"),
}
__all__ = [
    "HELD_OUT",
    "SPLITS",
    "STYLES",
    "TRAINABLE",
    "Broken",
    "Report",
    "Sample",
    "Source",
    "Style",
    "build_emoji",
    "open_source",
    "split_of",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
