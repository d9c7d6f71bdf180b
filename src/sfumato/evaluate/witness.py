"""What a picture shows, told as detections and words: by whoever looked (a trained judge), or by the description it was drawn from.

The truth of a rendered scene stands where a detector's answers would, so that every rule that reads detections has an exact upper bound.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ..data.scenes import Rendered, Scene
from .metrics.tasks import Detection


class Witness(Protocol):
    """Looks at images (B, 3, 128, 128) in [-1, 1]. One list of detections and one string ("" = no words) for each picture."""

    def detect(self, images: Tensor) -> list[list[Detection]]: ...

    def read(self, images: Tensor) -> list[str]: ...


def truth(scene: Scene, rendered: Rendered) -> list[Detection]:
    """The objects of a rendered scene as a faultless detector would tell them: tight boxes of their silhouettes, score 1."""
    boxes = rendered.boxes[: len(scene.objects)]
    return [Detection(o.concept, box, 1.0, o.style, o.colour) for o, box in zip(scene.objects, boxes, strict=True)]
