"""Pictures that go on from something: another picture (SDEdit; Meng et al., arXiv 2108.01073), or where a first model left off (Stable
Diffusion XL's refiner; arXiv 2307.01952, section 2.5).

    redraw      the picture's latents, noised to a level and denoised again
    Refined     one model walks the first part of the way, another the rest, from the same noise level
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..core.discrete import Betas
from ..core.errors import ConflictError, UsageError
from ..core.rng import Rows
from ..sampling.loop import OnStep
from .pictures import Pictures
from .requests import rows_of
from .settings import Draw
from .text_to_image import TextToImage


def _asked(prompt: str | Sequence[str], num: int, seed: int, seeds: Sequence[int] | None) -> tuple[list[str], Rows]:
    """Each prompt `num` times, and their rows."""
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    rows = rows_of(prompts, num, seed, seeds)
    return [p for p in prompts for _ in range(num)], rows


def redraw(
    pipe: TextToImage,
    prompt: str | Sequence[str],
    picture: Tensor,
    strength: float = 0.3,
    *,
    negative: str = "",
    num: int = 1,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    on_step: OnStep | None = None,
    **asked: Any,
) -> Pictures:
    """`picture` (3, H, W), or one for each of the pictures to draw (B, 3, H, W), in [-1, 1]: noised as far as the last `strength` of the
    steps go (rounded down, at least one) and denoised under `prompt`. The result has its size.

    `asked`: steps, guidance, cfg, solver, shift, layout, policies, loras, as in a call. Raises `UsageError` for a strength outside (0, 1],
    for a picture of another shape, and what a call refuses.
    """
    prompts, rows = _asked(prompt, num, seed, seeds)
    if not 0.0 < strength <= 1.0:
        raise UsageError(f"strength is {strength}", "above 0, which changes nothing, up to 1, which keeps next to nothing; 0.3 refines")
    pictures = picture if picture.ndim == 4 else picture[None]
    if pictures.ndim != 4 or pictures.shape[1] != 3 or len(pictures) not in (1, len(rows)):
        raise UsageError(f"a picture of the shape {tuple(picture.shape)} for {len(rows)} to draw", "(3, H, W), or one for each")
    settings = pipe.settle(negative=negative, size=(pictures.shape[2], pictures.shape[3]), **{"binned": False, **asked})
    settings = replace(settings, part=(settings.steps - max(1, int(settings.steps * strength)), None))
    with torch.no_grad():
        x0 = pipe.codec.encode(pictures.to(next(pipe.codec.parameters()))).float().expand(len(rows), -1, -1, -1)
    found = pipe.pictures(prompts, rows, settings, x0=x0, on_step=on_step)
    return replace(found, settings={**found.settings, "strength": strength})


@dataclass(frozen=True)
class Refined:
    """`base` walks the noise levels down to where `at` of the way is done, `refiner` the rest: for a schedule of N steps, those below
    round(N (1 - at)). Raises `ConflictError` for models whose latents or noise levels differ.
    """

    base: TextToImage
    refiner: TextToImage
    at: float = 0.8

    def __post_init__(self) -> None:
        if not 0.0 < self.at < 1.0:
            raise UsageError(f"at is {self.at}", "between 0 and 1: the part of the way that the first model goes")
        paths = [pipe.denoiser.meaning.path for pipe in (self.base, self.refiner)]
        channels = [pipe.codec.latent_channels for pipe in (self.base, self.refiner)]
        if paths[0] != paths[1] or channels[0] != channels[1]:
            raise ConflictError(
                f"a refiner on {paths[1]} with {channels[1]} channels after a model on {paths[0]} with {channels[0]}",
                "models made for one another",
            )

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        negative: str = "",
        num: int = 1,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        on_step: OnStep | None = None,
        **asked: Any,
    ) -> Pictures:
        """As a call of the base; `asked` (steps, guidance, size, ...) goes to both, and what is left out is each model's own. LoRAs and
        policies belong to one network and are refused. Raises `UsageError` as both do, and where one of them has no step to make.
        """
        if refused := sorted(asked.keys() & {"loras", "policies", "frame"}):
            raise UsageError(f"{refused[0]} for two models at once", "merge them into one of the models, or draw with each by itself")
        prompts, rows = _asked(prompt, num, seed, seeds)
        asked = {"steps": self.base.defaults.steps, "size": self.base.defaults.size, **asked}
        first, second = (pipe.settle(negative=negative, **asked) for pipe in (self.base, self.refiner))
        begin, cut = self._cut(self.base, first), self._cut(self.refiner, second)
        left, taken = self.base.times(first)[begin], self.refiner.times(second)[cut]
        if left != taken:
            raise ConflictError(
                f"the first model stops at t = {float(left):.4f}, the second goes on at {float(taken):.4f}", "one layout for both"
            )
        walked = self.base.walk(prompts, rows, replace(first, part=(0, begin)), on_step=on_step)
        found = self.refiner.pictures(prompts, rows, replace(second, part=(cut, None)), xt=walked.latents, on_step=on_step)
        settings = {**found.settings, "base": {"model": dict(self.base.identity), "at": self.at}}
        return replace(found, settings=settings, notes=tuple(dict.fromkeys((*self.base.notes, *walked.notes, *found.notes))))

    def _cut(self, pipe: TextToImage, settings: Draw) -> int:
        """The number of the first time that is the refiner's."""
        times, path = pipe.times(settings)[:-1], pipe.denoiser.meaning.path
        early = path.step(times) >= round(path.steps * (1 - self.at)) if isinstance(path, Betas) else times > 1 - self.at
        cut = int(early.sum())
        if not 0 < cut < len(times):
            raise UsageError(f"{settings.steps} steps, and at is {self.at}", "both models need at least one: more steps")
        return cut
