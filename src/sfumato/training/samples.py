"""Sample pictures while training, drawn by the pipeline itself: the preview is the product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..core.files import write_with
from ..pipelines.sheet import contact_sheet
from ..pipelines.text_to_image import TextToImage

PROMPTS = (
    "grinning face, fluent 3d style",
    "red heart, noto style",
    "sunflower, twemoji style",
    "cat face, fluent flat style",
    "hamburger, noto style",
    "sport utility vehicle, twemoji style",
    "umbrella, fxemoji style",
    "rocket, emojione style",
)
SCENE_PROMPTS = (
    "a red apple and two umbrellas, noto style",
    "a rocket to the left of a sunflower, twemoji style",
    "three hamburgers, fluent flat style",
    "a blue heart above a cat face, fluent 3d style",
)
"""Half a grid of these is drawn when scenes are learnt beside drawings."""


@dataclass(frozen=True)
class SampleGrid:
    """A loop's sampler: draws `prompts` with `pipe` as it stands, at the `size` of a step, and writes `folder/samples/step-N.png`."""

    pipe: TextToImage
    size: Callable[[int], tuple[int, int]]
    prompts: tuple[str, ...] = PROMPTS
    seed: int = 0

    def __call__(self, folder: Path, step: int) -> None:
        pictures = self.pipe(self.prompts, seed=self.seed, size=self.size(step))
        sheet = contact_sheet(list(pictures), list(self.prompts), columns=4)
        write_with(folder / "samples" / f"step-{step:06d}.png", lambda path: sheet.save(path, "PNG"))
