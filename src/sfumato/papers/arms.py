"""The arms of a comparison of small networks, and how large it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..core.config import to_dict
from ..objectives.denoising import Denoising
from ..training.optimizers import OptimizerConfig


@dataclass(frozen=True)
class Arm:
    """What is particular to one arm. `shape`: a family's config; the sizes that depend on codec and text encoder are set from them.

    `changes`: of the trial's optimiser.   `images`: training pictures, 0 = the trial's.
    """

    shape: Any
    objective: Denoising = field(default_factory=Denoising)
    changes: Mapping[str, Any] = field(default_factory=dict)
    images: int = 0

    def described(self) -> dict[str, Any]:
        """As JSON values: they name the cells."""
        asked = self.objective
        objective: dict[str, Any] = {
            "law": [type(asked.law).__name__, to_dict(asked.law)],
            "path": asked.path.name,
            "prediction": asked.prediction,
        }
        objective |= {name: to_dict(part) for name in ("precondition", "masking") if (part := getattr(asked, name)) is not None}
        shape = [type(self.shape).__name__, to_dict(self.shape)]
        return {"shape": shape, "objective": objective, "changes": dict(self.changes), "images": self.images}


@dataclass(frozen=True)
class Trial:
    """How large the comparison is. `images`: training pictures an arm sees. `pictures`: test pairs drawn at each number of `steps`."""

    images: int
    batch: int
    seeds: tuple[int, ...] = (0, 1, 2)
    pictures: int = 472
    steps: tuple[int, ...] = (5, 10, 25, 50)
    guidance: float = 3.0
    ema: float = 0.995
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(name="muon", lr=1e-3, muon_lr=2e-3, warmup=60, decay_from=0.5, weight_decay=0.01)
    )

    def scaled(self, scale: float) -> Trial:
        """The same at `scale` times the pictures, at least one step and two drawings."""
        images, pictures = max(self.batch, int(scale * self.images)), max(2, int(scale * self.pictures))
        return self if scale == 1.0 else replace(self, images=images, pictures=pictures)

    def steps_of(self, arm: Arm) -> int:
        """Optimiser steps of an arm."""
        return (arm.images or self.images) // self.batch
