"""Tiny Tasks and streams for the training tests."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tests.builders import mmdit
from torch import nn

from sfumato.core.rng import Draws
from sfumato.core.task import Loss, Phase
from sfumato.training.batches import Columns
from sfumato.training.diffusion import DiffusionTask, LatentStream, Mixed, TextTable
from sfumato.training.loop import TrainConfig
from sfumato.training.optimizers import OptimizerConfig


class Regression:
    """Least squares without randomness; `spoil(step)` multiplies the loss."""

    def __init__(self, spoil: Callable[[int], float] = lambda step: 1.0) -> None:
        torch.manual_seed(1)
        self.net, self.frozen, self.spoil = nn.Linear(3, 1), nn.Linear(1, 1), spoil
        self.modules: dict[str, nn.Module] = {"net": self.net, "frozen": self.frozen}

    def phases(self, step: int) -> list[Phase]:
        return [Phase("fit", ("net",))]

    def loss(self, phase: Phase, batch: Any, carry: Any, draws: Draws) -> Loss:
        error = (self.frozen(self.net(batch["x"])) - batch["y"]).square().mean()
        return Loss(error * self.spoil(draws.step), {"error": error})


def pairs(size: int, rows: int = 24) -> Columns:
    x = torch.randn(rows, 3, generator=torch.Generator().manual_seed(5))
    return Columns({"x": x, "y": x.sum(1, keepdim=True)}, size, seed=0)


def table(lengths: list[int], seed: int = 0) -> TextTable:
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(sum(lengths), 12, generator=generator).half()
    return TextTable(states, torch.tensor([0, *lengths]).cumsum(0), torch.randn(len(lengths), 6, generator=generator).half())


def latents(rows: int = 6, size: int = 4) -> LatentStream:
    captions = torch.arange(2 * rows).view(rows, 2)
    x = torch.randn(rows, 4, 8, 8, generator=torch.Generator().manual_seed(3)).half()
    return LatentStream(x, captions, table([1 + i % 4 for i in range(2 * rows)]), (0.5, 0.5), size, seed=0)


def together() -> Mixed:
    """Four rows of one stream and two of another with a different number of forms."""
    x = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(4)).half()
    other = LatentStream(x, torch.arange(15).view(5, 3), table([2 + i % 5 for i in range(15)], seed=1), (0.2, 0.3, 0.5), 2, seed=1)
    return Mixed([latents(), other])


def diffusion() -> DiffusionTask:
    return DiffusionTask(mmdit(depth=2).train())


def config(steps: int = 6, name: str = "adamw", **options: Any) -> TrainConfig:
    optimizer = OptimizerConfig(name=name, lr=1e-2, muon_lr=1e-2, warmup=2)  # type: ignore[arg-type]
    return TrainConfig(**{"steps": steps, "optimizer": optimizer, "ema": 0.9, "precision": "fp32", "log_every": 2, **options})


def interrupt_at(step: int) -> Callable[[Path, int], None]:
    """A sampler that presses Ctrl-C at `step`; use with `sample_every=1`."""
    return lambda folder, now: signal.raise_signal(signal.SIGINT) if now == step else None
