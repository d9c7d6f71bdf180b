"""Pictures that go on from something: another picture (SDEdit; Meng et al., arXiv 2108.01073), or where a first model left off (Stable
Diffusion XL's refiner; arXiv 2307.01952, section 2.5).

    redraw      the picture's latents, noised to a level and denoised again
    Refined     one model walks the first part of the way, another the rest, from the same noise level
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Unpack

import torch
from torch import Tensor

from ..core.discrete import Betas
from ..core.errors import ConflictError, UnknownNameError, UsageError
from ..sampling.loop import OnStep
from .conditioning import MICRO
from .pictures import Pictures
from .requests import Options, rows_of
from .settings import Draw, by, otherwise, settled_guide
from .text_to_image import TextToImage

STRENGTH = 0.3  # refines a picture without changing what is in it


def redraw(
    pipe: TextToImage,
    prompt: str | Sequence[str],
    picture: Tensor,
    strength: float = STRENGTH,
    *,
    num: int = 1,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    on_step: OnStep | None = None,
    **options: Unpack[Options],
) -> Pictures:
    """`picture` (3, H, W), or one for each of the pictures to draw (B, 3, H, W), in [-1, 1]: noised as far as the last `strength` of the
    steps go (rounded down, at least one) and denoised under `prompt`. The result has its size.

    `options` as in a call. Raises `UsageError` for a picture of another shape, and what `redrawn` and a call refuse.
    """
    prompts, rows = rows_of(prompt, num, seed, seeds, options.get("frame"))
    pictures = picture if picture.ndim == 4 else picture[None]
    if pictures.ndim != 4 or pictures.shape[1] != 3 or len(pictures) not in (1, len(rows)):
        raise UsageError(f"a picture of the shape {tuple(picture.shape)} for {len(rows)} to draw", "(3, H, W), or one for each")
    settings = redrawn(pipe, (pictures.shape[2], pictures.shape[3]), strength, **options)
    with torch.no_grad():
        x0 = pipe.codec.encode(pictures.to(next(pipe.codec.parameters()))).float().expand(len(rows), -1, -1, -1)
    found = pipe.pictures(prompts, rows, settings, x0=x0, on_step=on_step)
    return replace(found, settings={**found.settings, "strength": strength})


def redrawn(pipe: TextToImage, under: tuple[int, int], strength: float, **options: Unpack[Options]) -> Draw:
    """The settings that `redraw` draws with over a picture of the size `under` (height, width). Raises `UsageError` for a strength outside
    (0, 1], for another size than the picture's, and for what a call refuses.
    """
    check_strength(strength)
    pipe.check_start()
    if (asked := options.get("size") or under) != under:
        raise UsageError(f"size {by(asked)} of a picture of {by(under)}", "a picture is redrawn at its own size: resize it before")
    if options.get("binned"):
        raise UsageError("binned, and a picture to start from", "it is redrawn at its own size")
    settings = pipe.settle(**(options | {"size": under, "binned": False}))
    settings = replace(settings, part=(settings.steps - max(1, int(settings.steps * strength)), None))
    times, channels = pipe.times(settings)[:-1], pipe.codec.latent_channels
    settled_guide(options.get("guide"), pipe.defaults.guide, settings.weight, times, channels)
    return settings


def check_strength(strength: float) -> None:
    """Raise `UsageError` for a strength outside (0, 1]."""
    if not 0.0 < strength <= 1.0:
        raise UsageError(f"strength is {strength}", "above 0, which changes nothing, up to 1, which keeps next to nothing; 0.3 refines")


@dataclass(frozen=True)
class Refined:
    """`base` walks the noise levels down to where `at` of the way is done, `refiner` the rest: for a schedule of N steps, those below
    round(N (1 - at)). Raises `ConflictError` for models whose latents or noise levels differ.
    """

    base: TextToImage
    refiner: TextToImage
    at: float = 0.8

    def __post_init__(self) -> None:
        check_at(self.at)
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
        num: int = 1,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        on_step: OnStep | None = None,
        then: Options | None = None,
        **options: Unpack[Options],
    ) -> Pictures:
        """As a call of the base, whose settings the pictures have; the refiner's are beside them, as "refiner", with `at` and the length of
        its longest text.

        `options` go to both, `micro` to whichever reads it, and what is left out is each model's own, steps and size the base's; `then`:
        what the refiner has otherwise. LoRAs and policies belong to one network and are refused. Raises `UsageError` as both do, and where
        one of them has no step to make.
        """
        prompts, rows = rows_of(prompt, num, seed, seeds, options.get("frame"))
        first, second = self.settle(then, **options)
        walked = self.base.walk(prompts, rows, first, on_step=on_step)
        found = self.refiner.pictures(prompts, rows, second, xt=walked.latents, on_step=on_step)
        refiner = {"at": self.at, "tokens": found.frames[0][2], **found.settings}
        return replace(
            found,
            frames=tuple((count, row, walked.tokens) for count, row, _ in found.frames),
            settings={**self.base.record(first), "refiner": refiner},
            notes=tuple(dict.fromkeys((*self.base.notes, *walked.notes, *found.notes))),
        )

    def settle(self, then: Options | None = None, **options: Unpack[Options]) -> tuple[Draw, Draw]:
        """The settings of both, each with the part of the way that it walks. Raises as a call does, before anything is drawn."""
        for asked in (options, then or Options()):
            if refused := [name for name in ("loras", "policies") if asked.get(name)]:
                raise UsageError(f"{refused[0]} for two models at once", "merge them into one of the models, or draw with each by itself")
        self.refiner.check_start()
        own, (firsts, seconds) = self.base.defaults, self._shared_out(options.get("micro") or {})
        options |= {"steps": otherwise(options.get("steps"), own.steps), "size": options.get("size") or own.size}
        first = self.base.settle(**(options | {"micro": firsts}))
        second = self.refiner.settle(**(options | {"micro": seconds} | (then or {})))
        begin, cut = self._cut(self.base, first), self._cut(self.refiner, second)
        left, taken = self.base.times(first)[begin], self.refiner.times(second)[cut]
        if left != taken:
            raise ConflictError(
                f"the first model stops at t = {float(left):.4f}, the second goes on at {float(taken):.4f}", "one layout for both"
            )
        return replace(first, part=(0, begin)), replace(second, part=(cut, None))

    def _shared_out(self, micro: Mapping[str, Sequence[float]]) -> tuple[dict[str, Sequence[float]], dict[str, Sequence[float]]]:
        """What each of them reads. Raises `UnknownNameError` for what neither does."""
        base, refiner = ([name for name in MICRO if name in pipe.denoiser.net.slots] for pipe in (self.base, self.refiner))
        for name in micro:
            if name not in (*base, *refiner):
                raise UnknownNameError("micro-conditioning of these two models", name, {*base, *refiner})
        firsts, seconds = ({name: micro[name] for name in reads if name in micro} for reads in (base, refiner))
        return firsts, seconds

    def _cut(self, pipe: TextToImage, settings: Draw) -> int:
        """The number of the first time that is the refiner's."""
        times, path = pipe.times(settings)[:-1], pipe.denoiser.meaning.path
        early = path.step(times) >= round(path.steps * (1 - self.at)) if isinstance(path, Betas) else times > 1 - self.at
        cut = int(early.sum())
        if not 0 < cut < len(times):
            told = f"{settings.steps} steps, of which the refiner takes those after {self.at:g} of the way"
            raise UsageError(told, "both models need at least one: more --steps, or another --refine-at (`at`)")
        return cut


def check_at(at: float) -> None:
    """Raise `UsageError` for a hand-over outside (0, 1)."""
    if not 0.0 < at < 1.0:
        raise UsageError(f"the refiner goes on at {at} (--refine-at)", "between 0 and 1: the part of the way that the first model goes")
