"""Optimizers and learning-rate schedules.

`adamw` decays matrices only. `muon` (Keller Jordan, 2024; torch's implementation) orthogonalises the momentum of the hidden
matrices, the two-dimensional weights inside a network's blocks, and leaves embeddings, heads, gains and biases to AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from ..core.errors import ConfigError


@dataclass(frozen=True)
class OptimizerConfig:
    """`lr`: peak learning rate of AdamW; `muon_lr`: of Muon, whose update is scaled to AdamW's usual RMS.

    `warmup` steps of linear rise, then constant until `decay_from` (a fraction of all steps), then linear or cosine fall to zero.
    """

    name: Literal["adamw", "muon"] = "adamw"
    lr: float = 1e-3
    muon_lr: float = 2e-3
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: int = 100
    decay: Literal["linear", "cosine", "none"] = "linear"
    decay_from: float = 0.0

    def __post_init__(self) -> None:
        for name in ("lr", "muon_lr"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}", "a learning rate: a positive number")
        if not 0.0 <= self.weight_decay < math.inf:
            raise ConfigError(f"weight_decay is {self.weight_decay}", "a number, 0 for none")
        if not 0.0 <= self.decay_from <= 1.0:
            raise ConfigError(f"decay_from is {self.decay_from}", "a fraction of the run, 0 to 1")

    def factor(self, step: int, steps: int) -> float:
        """The learning rate at `step` of `steps`, as a fraction of its peak."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        start = max(self.warmup, int(self.decay_from * steps))
        if self.decay == "none" or step < start:
            return 1.0
        left = 1.0 - (step - start) / max(1, steps - start)
        return 0.5 - 0.5 * math.cos(math.pi * left) if self.decay == "cosine" else left


def build(modules: Iterable[nn.Module], config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """The optimizers of one phase; every trainable parameter is in exactly one group. Each group keeps its peak rate in `peak`."""
    hidden: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for module in modules:
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            # A table of shifts, scales and gates (PixArt's) is two-dimensional too, and no matrix.
            if config.name == "muon" and parameter.ndim == 2 and "blocks." in name and name.endswith("weight"):
                hidden.append(parameter)
            else:
                (decayed if parameter.ndim >= 2 else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=config.betas, eps=1e-8, fused=True)
    ]
    if hidden:
        if not hasattr(torch.optim, "Muon"):
            raise ConfigError(f"optimizer 'muon' needs torch 2.9 or newer; this is {torch.__version__}", "use optimizer 'adamw'")
        optimizers.append(torch.optim.Muon(hidden, lr=config.muon_lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def set_rate(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Set every group's learning rate to `factor` times its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
