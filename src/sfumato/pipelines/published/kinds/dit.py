"""DiT (arXiv 2212.09748): a class instead of a prompt, with the names of the folder's id2label.

Guidance acts on three channels; in diffusers on all. The original's 250 ancestral steps with the learned variance are no solver here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....core.conditions import Slot
from ....sampling.guidance import Guide
from ....text.labels import Labels
from . import DISCRETE, Kind, Said, publish

if TYPE_CHECKING:
    from ...text_to_image import TextToImage


def _of_classes(kind: Kind, said: Said) -> Kind:
    """The class that stands for none is one beyond the classes."""
    return replace(kind, slots=(Slot("class", null="value", value=float(said.config["num_embeds_ada_norm"])),))


def _named(pipe: TextToImage, folder: Path) -> Mapping[str, Any]:
    assert isinstance(pipe.encoder, Labels)
    return {"id2label": pipe.encoder.published} if pipe.encoder.published else {}


DIT = Kind(
    "DiTTransformer2DModel",
    (),
    "one",
    DISCRETE,
    (Slot("class", null="value"),),
    steps=50,
    guidance=4.0,
    side=32,
    guide=Guide(channels=3),
    flags=("id2label",),
    settled=_of_classes,
    written=_named,
)
publish("DiTPipeline", DIT, diffusers=replace(DIT, guide=Guide()))
