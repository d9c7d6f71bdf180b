"""Text: from prompts to token states, behind one interface (`TextEncoder`) that MiniLM, CLIP, T5 and language models fit.

Touches only `core/`. States depend on the prompt alone, never on the diffusion time, so they may be cached freely (`Cached`).
Parts are imported when first asked for: `import sfumato.text` costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sfumato.core.registry import Registry

if TYPE_CHECKING:
    from .cache import Cached
    from .encoded import Instructed, TextEncoder, TextStates, WordSpan, bare
    from .joined import Joined
    from .labels import Labels
    from .minilm import MiniLM, load_minilm
    from .transformers_encoder import TransformersEncoder, load_text_encoder
    from .truncation import truncation_report

# Loaders, each returning a `TextEncoder`. "minilm" takes no folder; "transformers" takes a diffusers folder.
text_encoders: Registry[Callable[..., TextEncoder]] = Registry("text encoder")
text_encoders.lazy("minilm", "sfumato.text.minilm:load_minilm")
text_encoders.lazy("transformers", "sfumato.text.transformers_encoder:load_text_encoder")

_HOMES = {
    "cache": ("Cached",),
    "encoded": ("Instructed", "TextEncoder", "TextStates", "WordSpan", "bare"),
    "joined": ("Joined",),
    "labels": ("Labels",),
    "minilm": ("MiniLM", "load_minilm"),
    "transformers_encoder": ("TransformersEncoder", "load_text_encoder"),
    "truncation": ("truncation_report",),
}
__all__ = [
    "Cached",
    "Instructed",
    "Joined",
    "Labels",
    "MiniLM",
    "TextEncoder",
    "TextStates",
    "TransformersEncoder",
    "WordSpan",
    "bare",
    "load_minilm",
    "load_text_encoder",
    "text_encoders",
    "truncation_report",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
