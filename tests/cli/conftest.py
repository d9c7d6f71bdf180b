"""A pipeline of a few thousand random numbers on disk, and the command line as a function."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from sfumato.backbones.mmdit import tiny
from sfumato.cli import main
from sfumato.codecs.kl import KLCodec, KLConfig, new_autoencoder
from sfumato.core.conditions import Slot
from sfumato.core.denoiser import Denoiser
from sfumato.evaluate.critic import Critic
from sfumato.evaluate.critic_net import CriticConfig, CriticNet
from sfumato.evaluate.judge import Judge
from sfumato.evaluate.judge_net import JudgeConfig, JudgeNet, StyleNet
from sfumato.pipelines import Defaults, TextToImage, load
from sfumato.surgery import Delta, Lora, fresh
from sfumato.text import text_encoders
from sfumato.text.minilm import load_minilm


@dataclass(frozen=True)
class Ran:
    """What a command line did."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Cli = Callable[..., Ran]


@pytest.fixture(scope="module", autouse=True)
def one_text_encoder() -> Iterator[None]:
    """MiniLM is verified and loaded once, not by each command."""
    encoder, own = load_minilm(), text_encoders._entries["minilm"]
    text_encoders._entries["minilm"] = lambda: encoder
    yield
    text_encoders._entries["minilm"] = own


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draws 32 x 32 in two steps; sides are multiples of 16."""
    torch.manual_seed(0)
    codec = KLCodec(new_autoencoder(KLConfig(channels=(8, 8, 8, 16), latent=4)))
    net = tiny(text_width=384, pooled_width=384, base_grid=2)
    slots = (Slot("text"), Slot("pooled"))
    pipe = TextToImage(text_encoders.get("minilm")(), Denoiser(net), codec, slots, Defaults(size=(32, 32), steps=2))
    return pipe.save(tmp_path_factory.mktemp("models") / "tiny")


def small_judge() -> Judge:
    """An untrained judge of 32 x 32 pictures."""
    torch.manual_seed(0)
    shape = JudgeConfig(size=32, working=32, widths=(8, 8, 16, 16), depths=(0, 1, 1, 1), strokes=(8, 8), embed=8, hidden=8)
    return Judge(JudgeNet(shape, 1, 1), StyleNet(shape, 1), shape, ("cat",), ("noto",), {})


def small_critic() -> Critic:
    """An untrained critic of 32 x 32 pictures."""
    torch.manual_seed(0)
    shape = CriticConfig(size=32, stem=(8, 8), width=16, heads=2, hidden=16, sight=1, layers=1)
    return Critic(CriticNet(shape), shape, {})


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """`cli("generate", ...)` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> Ran:
        capfd.readouterr()
        code = main([str(word) for word in words])
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return run


@pytest.fixture
def made(model: Path) -> Callable[[str, int], Path]:
    """A LoRA file of the tiny model."""

    def make(name: str, seed: int = 0) -> Path:
        pipe = load(model)
        generator = torch.Generator().manual_seed(seed)
        deltas = {
            n: Delta(d.down.detach(), 0.3 * torch.randn(d.up.shape, generator=generator), d.alpha)
            for n, d in fresh(pipe.denoiser.net, 4, seed=seed).deltas.items()
        }
        return pipe.save_lora(Lora(deltas), Path(name))

    return make
