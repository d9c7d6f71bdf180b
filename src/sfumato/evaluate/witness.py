"""What a picture shows, told as detections and words: by whoever looked (a trained judge), or by the description it was drawn from.

The truth of a rendered scene stands where a detector's answers would, so that every rule that reads detections has an exact upper bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import Tensor

from ..core.errors import WeightsError
from ..data.scenes import Rendered, Scene
from .metrics.tasks import Answer, Detection, Facts, judge_facts

if TYPE_CHECKING:
    from .judge import Judge


class Witness(Protocol):
    """Looks at images (B, 3, 128, 128) in [-1, 1]. One list of detections and one string ("" = no words) for each picture."""

    def detect(self, images: Tensor) -> list[list[Detection]]: ...

    def read(self, images: Tensor) -> list[str]: ...


def truth(scene: Scene, rendered: Rendered) -> list[Detection]:
    """The objects of a rendered scene as a faultless detector would tell them: tight boxes of their silhouettes, score 1."""
    boxes = rendered.boxes[: len(scene.objects)]
    return [Detection(o.concept, box, 1.0, o.style, o.colour) for o, box in zip(scene.objects, boxes, strict=True)]


def witness_of(judge: Judge) -> Witness:
    """The judge as a witness. Raises `WeightsError` when it was trained on single drawings alone: it cannot say what is where."""
    if not judge.card.get("scenes"):
        raise WeightsError(
            "this judge cannot tell the objects of a picture: it was trained without scenes",
            "name one that was: --judge FOLDER, made by sfumato train judge; drawings and bias are judged without",
        )
    return cast(Witness, judge)


@dataclass(frozen=True)
class Testimony:
    """What a witness told of N pictures; `read` is None where it was not asked to read."""

    found: Sequence[Sequence[Detection]]
    read: Sequence[str | None]

    def answers(self, facts: Sequence[Facts]) -> list[Answer]:
        """Whether picture i shows `facts[i]`, by GenEval's rule."""
        return [judge_facts(*told) for told in zip(self.found, facts, self.read, strict=True)]


def hear(witness: Witness, images: Tensor, reading: Sequence[bool], batch: int = 64) -> Testimony:
    """Let the witness look at images (N, 3, H, W) uint8, and read those that `reading` marks; a few at a time, to spare memory."""
    found = [told for chunk in images.split(batch) for told in witness.detect(_unit(chunk))] if len(images) else []
    marked = [i for i, wanted in enumerate(reading) if wanted]
    words = [word for chunk in images[torch.tensor(marked)].split(batch) for word in witness.read(_unit(chunk))] if marked else []
    read: list[str | None] = [None] * len(images)
    for i, word in zip(marked, words, strict=True):
        read[i] = word
    return Testimony(found, read)


def _unit(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1.0
