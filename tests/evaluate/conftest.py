"""A world of four concepts in two styles, and a judge that knows it by heart: evaluation can be tested without a trained network."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato.data.captions import phrase
from sfumato.evaluate.judge import Judge, Verdict
from sfumato.evaluate.judge_net import JudgeConfig, JudgeNet, StyleNet

CONCEPTS = ("flag: Chile", "moon", "red apple", "sun")
STYLES = ("noto", "twemoji")
TINY = JudgeConfig(size=32, working=32, widths=(8, 8, 16, 16), depths=(0, 1, 1, 1), strokes=(8, 8), embed=8, hidden=8)


def tiny_judge(card: dict[str, Any] | None = None) -> Judge:
    """An untrained judge of 32 px pictures."""
    torch.manual_seed(0)
    return Judge(JudgeNet(TINY, len(CONCEPTS), len(STYLES)), StyleNet(TINY, len(STYLES)), TINY, CONCEPTS, STYLES, card or {})


class World:
    """The drawings: each (concept, style) pair `copies` times in the train split and once in test, a fixed random picture per pair."""

    def __init__(self, copies: int = 1) -> None:
        pairs = [(c, s) for c in CONCEPTS for s in STYLES]
        looks = torch.rand(len(pairs), 3, 32, 32, generator=torch.Generator().manual_seed(1)).mul(255).byte()
        self.looks = dict(zip(pairs, looks, strict=True))
        self.rows = [(*pair, split) for split in ("train", "test") for pair in pairs for _ in range(copies if split == "train" else 1)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> SimpleNamespace:
        return SimpleNamespace(image=self.looks[self.rows[i][:2]])

    def column(self, name: str) -> list[str]:
        if name == "group":
            return ["flags" if row[0].startswith("flag") else "things" for row in self.rows]
        return [row[("concept", "style", "split").index(name)] for row in self.rows]


class Oracle(Judge):
    """Names the pair whose drawing is nearest; a picture's embedding and its caption's are the same direction."""

    def __init__(self, world: World) -> None:
        tiny = tiny_judge()
        super().__init__(
            tiny.net, tiny.styler, TINY, CONCEPTS, STYLES, {"held_out": {"concept_top1": {"value": 0.9, "low": 0.8, "high": 0.95}}}
        )
        self.pairs = list(world.looks)
        self.known = torch.stack([look.float() / 127.5 - 1 for look in world.looks.values()]).flatten(1)

    def __call__(self, images: Tensor, batch: int = 64) -> Verdict:
        near = -torch.cdist(images.flatten(1), self.known)
        concept = torch.stack([near[:, [p[0] == c for p in self.pairs]].amax(1) for c in CONCEPTS], 1)
        style = torch.stack([near[:, [p[1] == s for p in self.pairs]].amax(1) for s in STYLES], 1)
        return Verdict(concept, style, torch.softmax(near, 1))

    def embed_captions(self, captions: Sequence[str]) -> Tensor:
        said = [f"{phrase(c)}, {s} style" for c, s in self.pairs]
        return torch.eye(len(said))[[said.index(caption) for caption in captions]]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def oracle(world: World) -> Oracle:
    return Oracle(world)
