"""A judge that knows the fixture's names, witnesses that are right or wrong on purpose, and models that draw what they are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato.data.scenes import Cast
from sfumato.evaluate.judge import Judge
from sfumato.evaluate.judge_net import JudgeConfig, JudgeNet, StyleNet
from sfumato.evaluate.metrics import Detection
from sfumato.evaluate.suites.items import Item
from sfumato.evaluate.suites.sitting import Sitting
from sfumato.evaluate.witness import truth

SHAPE = JudgeConfig(size=32, working=32, widths=(8, 8, 16, 16), depths=(0, 1, 1, 1), strokes=(8, 8), embed=8, hidden=8)
SCENES = {"map50": {"value": 0.71, "low": 0.7, "high": 0.72, "count": 900}, "words": {"value": 0.9, "low": 0.8, "high": 0.95, "count": 90}}


class WordJudge(Judge):
    """An untrained judge in whose space a caption's place is a function of its words: no text encoder is needed."""

    def embed_captions(self, captions: Sequence[str]) -> Tensor:
        rows = [torch.randn(8, generator=torch.Generator().manual_seed(sum(map(ord, text)))) for text in captions]
        return torch.nn.functional.normalize(torch.stack(rows), dim=1)


def judge_of(concepts: Sequence[str], styles: Sequence[str], card: Mapping[str, Any] | None = None) -> WordJudge:
    torch.manual_seed(0)
    nets = JudgeNet(SHAPE, len(concepts), len(styles)), StyleNet(SHAPE, len(styles))
    return WordJudge(*nets, SHAPE, tuple(concepts), tuple(styles), {"scenes": SCENES} if card is None else card)


class Oracle:
    """Knows the true scene of every picture that it was told of, by its pixels; sees nothing in another."""

    def __init__(self, items: Sequence[Item]) -> None:
        signs = [item.posed.scene.sign for item in items]
        told = [truth(item.posed.scene, item.rendered) for item in items]
        keys = [bytes(item.picture.numpy().tobytes()) for item in items]
        self.found = dict(zip(keys, told, strict=True))
        self.words = dict(zip(keys, [sign.word if sign else "" for sign in signs], strict=True))

    def detect(self, images: Tensor) -> list[list[Detection]]:
        return [self.found.get(key, []) for key in map(self.key, images)]

    def read(self, images: Tensor) -> list[str]:
        return [self.words.get(key, "") for key in map(self.key, images)]

    def key(self, image: Tensor) -> bytes:
        return ((image + 1) * 127.5).round().to(torch.uint8).numpy().tobytes()


class Painter:
    """Draws the true scene of each prompt, changed by `change(picture, prompt)`; keeps what it was asked."""

    def __init__(self, looks: Mapping[str, Tensor], change: Callable[[Tensor, str], Tensor] = lambda picture, prompt: picture) -> None:
        self.looks, self.change = looks, change
        self.asked: list[tuple[str, int]] = []

    def __call__(self, prompts: Sequence[str], *, seeds: Sequence[int], steps: int, guidance: float) -> Any:
        self.asked += zip(prompts, seeds, strict=True)
        return SimpleNamespace(images=torch.stack([self.change(self.looks[p].float() / 127.5 - 1, p) for p in prompts]))


def painter(items: Sequence[Item], **options: Any) -> Painter:
    return Painter({item.posed.prompt: item.picture for item in items}, **options)


def sit(pipe: Any, out: Path, **options: Any) -> Sitting:
    return Sitting(pipe, **{"model": out.name, "out": out, "batch": 5, "weights": 1 << 20, **options})


@pytest.fixture(scope="session")
def cast() -> Cast:
    return Cast.open(Path(__file__).parents[2] / "data" / "fixture")


@pytest.fixture(scope="session")
def judge(cast: Cast) -> WordJudge:
    return judge_of(sorted(cast.by_concept), cast.styles)
