"""A model as a suite meets it: with its settings, its folder and a bar to move; pictures are kept there, so a stopped suite goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import UsageError
from ..drawing import Drawn, Order, Pipe, Progress, claim, draw


@dataclass(frozen=True)
class Sitting:
    """`model`: its name with a checksum, by which models are told apart; `out`: of this suite alone; `weights`: bytes, 0 = unknown."""

    pipe: Pipe
    model: str
    out: Path
    seed: int = 0
    steps: int = 20
    guidance: float = 4.0
    batch: int = 16
    weights: int = 0
    progress: Progress | None = None

    def draw(self, prompts: Sequence[str], size: int, seeds: Sequence[int] | None = None, **plan: Any) -> Drawn:
        """The pictures of `prompts`, side `size`; `seeds`: of each, None = counted up. `plan`: what else tells this suite from another.

        Raises `UsageError` when `out` holds the pictures of another plan, and what `drawing.draw` raises.
        """
        if self.batch < 1:
            raise UsageError(f"batch is {self.batch}", "at least 1")
        asked = list(prompts) if seeds is None else [list(pair) for pair in zip(prompts, seeds, strict=True)]
        settings = {"model": self.model, "seed": self.seed, "steps": self.steps, "guidance": self.guidance}
        claim(self.out, {**settings, **plan, "prompts": asked})
        order = Order(self.seed, self.steps, self.guidance, self.batch, size, self.weights)
        return draw(self.pipe, prompts, order, self.out / "pictures", self.progress, seeds)
