"""Best of N: draw several candidates of a prompt and keep the one a scorer likes most (the baseline of arXiv 2503.12271, section 4).

Touches nothing but the pipeline and a scorer that is handed in. What optimises a score must not be rated by it: a scorer has a name,
and results carry it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..core.errors import NonFiniteError, UsageError
from ..core.rng import generator
from .pictures import Pictures


class Scorer(Protocol):
    """Rates pictures by their prompts; more is better. `name` tells it from any other."""

    name: str

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B,) fp32 from images (B, 3, H, W) in [-1, 1] and B prompts."""
        ...


@dataclass(frozen=True)
class Best:
    """`pictures`: the winner alone. `seeds`, `scores`: of all candidates in the order drawn; `winner`: its place there."""

    pictures: Pictures
    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    winner: int
    scorer: str


def candidate_seeds(seed: int, count: int) -> tuple[int, ...]:
    """`count` seeds that follow from `seed`, itself the first: best of 1 is the plain picture, more candidates keep the earlier ones."""
    later = (int(torch.randint(2**31, (), generator=generator((seed, "best-of", k)))) for k in range(1, count))
    return (seed, *later)


@dataclass(frozen=True)
class BestOf:
    """`count` candidates a prompt, `batch` drawn together. `pipe`: a pipeline, or what is called as one (`Refined`)."""

    pipe: Callable[..., Pictures]
    scorer: Scorer
    count: int
    batch: int = 1

    def __post_init__(self) -> None:
        if self.count < 1 or self.batch < 1:
            raise UsageError(f"best of {self.count}, {self.batch} at a time", "at least 1 of each")

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int], **options: Any) -> Iterator[Best]:
        """The best candidate of each prompt, as soon as it is known; `options` go to the pipeline. Ties go to the earlier candidate.

        Raises what the pipeline and the scorer raise, `NonFiniteError` for a score that is not a number.
        """
        for prompt, seed in zip(prompts, seeds, strict=True):
            yield self._best(prompt, candidate_seeds(seed, self.count), options)

    def _best(self, prompt: str, seeds: tuple[int, ...], options: dict[str, Any]) -> Best:
        best: Pictures | None = None
        scores: list[float] = []
        winner = 0
        for start in range(0, self.count, self.batch):
            some = seeds[start : start + self.batch]
            pictures = self.pipe([prompt] * len(some), seeds=list(some), **options)
            for row, score in enumerate(self.scorer(pictures.images, pictures.prompts).tolist()):
                if score != score:
                    raise NonFiniteError(f"{self.scorer.name} gave no number to {prompt!r} with seed {some[row]}")
                if best is None or score > scores[winner]:
                    best, winner = pictures.only(row), start + row
                scores.append(score)
        assert best is not None  # count is at least 1
        return Best(best, seeds, tuple(scores), winner, self.scorer.name)
