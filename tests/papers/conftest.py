"""A pipeline of a few thousand random numbers with the real text encoder, on disk; and worlds of such parts for studies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sfumato.backbones.mmdit import tiny
from sfumato.codecs.kl import KLCodec, KLConfig, new_autoencoder
from sfumato.core.conditions import Slot
from sfumato.core.denoiser import Denoiser
from sfumato.core.rng import normal
from sfumato.data import open_source
from sfumato.evaluate.judge import Judge
from sfumato.evaluate.judge_net import JudgeConfig, JudgeNet, StyleNet
from sfumato.papers.world import World, build_world
from sfumato.pipelines import Defaults, TextToImage
from sfumato.text import load_minilm
from sfumato.text.encoded import TextStates
from sfumato.training.diffusion import TEXT_SLOTS

FIXTURE = Path(__file__).resolve().parents[1] / "data" / "fixture"
JUDGE = JudgeConfig(size=128, working=32, widths=(8, 8, 16, 16), depths=(0, 1, 1, 1), strokes=(8, 8), embed=4, hidden=8)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 x 64, 16 tokens."""
    torch.manual_seed(0)
    codec = KLCodec(new_autoencoder(KLConfig(channels=(4, 4, 4, 8), latent=4, groups=4)))
    net = tiny(text_width=384, pooled_width=384)
    pipe = TextToImage(load_minilm(), Denoiser(net), codec, (Slot("text"), Slot("pooled")), Defaults(size=(64, 64), steps=2))
    return pipe.save(tmp_path_factory.mktemp("models") / "tiny")


class Letters:
    """An encoder of three tokens a prompt, a function of its letters."""

    name, width, pooled_width, max_tokens = "letters", 8, 6, 3

    def to(self, *where: object) -> None:
        """It has no weights."""

    def encode(self, prompts: Sequence[str]) -> TextStates:
        rows = [normal((30,), (0, prompt, 0)) for prompt in prompts]
        tokens, pooled = (torch.stack([row[part] for row in rows]) for part in (slice(24), slice(24, 30)))
        none = ((),) * len(prompts)
        return TextStates(tokens.view(-1, 3, 8), torch.ones(len(prompts), 3, dtype=torch.bool), pooled, none, none)


class Reader(Judge):
    """Reads captions without a sentence encoder."""

    def embed_captions(self, captions: Sequence[str]) -> Tensor:
        return torch.stack([normal((JUDGE.embed,), (0, caption, 0)) for caption in captions])


def small_world(cache: Path, size: int) -> World:
    """The fixture's drawings of `size` pixels through random parts."""
    source = open_source(FIXTURE)
    concepts, styles = (sorted(set(source.column(name))) for name in ("concept", "style"))
    torch.manual_seed(0)
    codec = KLCodec(new_autoencoder(KLConfig(channels=(4, 4, 4, 8), latent=4, groups=4))).eval()
    judge = Reader(JudgeNet(JUDGE, len(concepts), len(styles)), StyleNet(JUDGE, len(styles)), JUDGE, concepts, styles, {})
    pipe = TextToImage(Letters(), Denoiser(tiny()), codec, TEXT_SLOTS, Defaults(size=(size, size)))
    return build_world(FIXTURE, pipe, judge, cache)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.mktemp("latents"), 128)


@pytest.fixture(scope="session")
def little_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Of 4 x 4 latents."""
    return small_world(tmp_path_factory.mktemp("latents"), 32)
