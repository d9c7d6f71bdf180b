"""How the judge sees a scene: find things and signs (`locator.py`), look closely at each thing (`cuts.py`), read the sign (`reader.py`).

The result is what `metrics/tasks.py` asks about: named boxes with scores that mean what they say. A score is the chance that both name
and box are right, fitted on scenes that nothing was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .cuts import cut
from .judge_net import JudgeNet
from .lessons import COLOURS
from .locator import Found, Locator, decode
from .metrics.tasks import Detection
from .reader import Reader, cut_boards, spell

LEAST_SIGN = 0.3
"""How hot a sign must be to be read."""


@dataclass(frozen=True)
class Named:
    """N things: picture numbers `place`, `boxes` (N, 4), `heat`; by class number `concept` with its `share`, `style`, `colour`."""

    place: Tensor
    boxes: Tensor
    heat: Tensor
    concept: Tensor
    share: Tensor
    style: Tensor
    colour: Tensor


class Eyes(nn.Module):
    """The two networks, and `chance` (3,): weights of the logits of heat and name and a bias, which make a detection's score."""

    chance: Tensor

    def __init__(self, locator: Locator | None = None, reader: Reader | None = None) -> None:
        super().__init__()
        self.locator, self.reader = locator or Locator(), reader or Reader()
        self.register_buffer("chance", torch.tensor([0.5, 0.5, 0.0]))

    @torch.no_grad()
    def find(self, images: Tensor, batch: int = 64) -> list[Found]:
        """Things and signs of images (B, 3, H, W) in [-1, 1], as found."""
        return [found for chunk in images.split(batch) for found in decode(*self.locator(chunk))] if len(images) else []

    @torch.no_grad()
    def name(self, net: JudgeNet, images: Tensor, found: Sequence[Found], side: int) -> Named:
        """What every thing found is, by `net` at `side` pixels, all pictures' things in one row."""
        place = torch.tensor([i for i, one in enumerate(found) for _ in range(int((~one.sign).sum()))], dtype=torch.long)
        boxes = torch.cat([one.boxes[~one.sign] for one in found]) if found else torch.zeros(0, 4)
        heat = torch.cat([one.heat[~one.sign] for one in found]) if found else torch.zeros(0)
        parts = [net.pooled(cut(images, p, b, side)) for p, b in zip(place.split(64), boxes.split(64), strict=True) if len(p)]
        pooled = torch.cat(parts) if parts else torch.zeros(0, net.concept.in_features)
        share, concept = net.concepts(pooled, net.names).softmax(1).max(1)
        return Named(place, boxes, heat, concept, share, net.style(pooled).argmax(1), net.colour(pooled).argmax(1))

    def scores(self, named: Named) -> Tensor:
        """(N,) in [0, 1]."""
        return (features(named) @ self.chance).sigmoid()

    @torch.no_grad()
    def read(self, images: Tensor, found: Sequence[Found]) -> list[str]:
        """The words of the hottest sign of each picture, "" where there is none."""
        said = [""] * len(found)
        signs = [(i, one.boxes[one.sign][0]) for i, one in enumerate(found) if bool((one.heat[one.sign] > LEAST_SIGN).any())]
        for start in range(0, len(signs), 64):
            chunk = signs[start : start + 64]
            place, boxes = torch.tensor([i for i, _ in chunk]), torch.stack([box for _, box in chunk])
            for i, word in zip(place.tolist(), spell(self.reader(cut_boards(images, place, boxes))), strict=True):
                said[i] = word
        return said


def features(named: Named) -> Tensor:
    """(N, 3): logits of heat and share, and 1."""
    heat, share = named.heat.clamp(1e-4, 1 - 1e-4).logit(), named.share.clamp(1e-4, 1 - 1e-4).logit()
    return torch.stack([heat, share, torch.ones_like(heat)], 1)


def detections(named: Named, scores: Tensor, pictures: int, concepts: Sequence[str], styles: Sequence[str]) -> list[list[Detection]]:
    """One list for each picture, surest first."""
    told: list[list[Detection]] = [[] for _ in range(pictures)]
    for k in scores.argsort(descending=True, stable=True).tolist():
        x0, y0, x1, y1 = named.boxes[k].tolist()
        style, colour = styles[int(named.style[k])], COLOURS[int(named.colour[k])]
        told[int(named.place[k])].append(Detection(concepts[int(named.concept[k])], (x0, y0, x1, y1), float(scores[k]), style, colour))
    return told
