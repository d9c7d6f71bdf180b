"""Tiny random parts that several rooms' tests share. Everything is seeded, on the CPU, and takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from sfumato.backbones.mmdit import MMDiT, tiny
from sfumato.codecs.kl import KLCodec, KLConfig, new_autoencoder
from sfumato.core.call import Call
from sfumato.core.conditions import Conditions, Tokens
from sfumato.core.denoiser import Denoiser, Meaning
from sfumato.core.program import Network
from sfumato.core.state import Out, Stream

torch.set_num_threads(1)

Field = Callable[[Tensor, Tensor, Conditions], Tensor]


class Toy(Network):
    """A network that answers with a formula `f(x, t, cond)` of the image stream."""

    def __init__(self, f: Field) -> None:
        super().__init__()
        self.f = f
        self.anchor = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, str, float]] = []

    def forward(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None = None) -> Out:
        image = streams["image"]
        assert image.t is not None
        self.seen.append((len(image.x), call.lane if call else "", float(image.t[0])))
        return Out({"image": self.f(image.x, image.t, cond)})


def toy(f: Field, meaning: Meaning | None = None) -> Denoiser:
    return Denoiser(Toy(f), meaning or Meaning())


def rows(t: Tensor) -> Tensor:
    """t (B,) as (B, 1, 1, 1)."""
    return t[:, None, None, None]


def conditions(lengths: list[int], width: int = 12, pooled: int = 6, seed: int = 0) -> Conditions:
    """One row per length, padded with zeros to the longest."""
    generator = torch.Generator().manual_seed(seed)
    keep = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    states = torch.randn(len(lengths), max(lengths), width, generator=generator).masked_fill(~keep[..., None], 0.0)
    return Conditions({"text": Tokens(states, keep)}, {"pooled": torch.randn(len(lengths), pooled, generator=generator)})


def image(batch: int = 2, channels: int = 4, height: int = 8, width: int = 8, seed: int = 0, t: float | None = None) -> dict[str, Stream]:
    """The image stream of a batch; t rises over the rows unless it is given."""
    x = torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))
    times = torch.linspace(0.1, 0.9, batch) if t is None else torch.full((batch,), t)
    return {"image": Stream(x, t=times)}


def mmdit(seed: int = 0, **overrides: int | bool) -> MMDiT:
    return tiny(seed, **overrides).eval()


def autoencoder_config(**overrides: object) -> KLConfig:
    return KLConfig(**{"channels": (8, 8), "layers": 1, "latent": 4, "groups": 4, **overrides})  # type: ignore[arg-type]


def codec(seed: int = 0, **overrides: object) -> KLCodec:
    """f2, four latent channels, random weights."""
    torch.manual_seed(seed)
    return KLCodec(new_autoencoder(autoencoder_config(**overrides))).eval()
