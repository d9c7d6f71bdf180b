"""What one call asks for: prompts and the rows' seeds, checked, and the options beside them, listed once for all that draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from ..core.call import Policy
from ..core.errors import UnknownNameError, UsageError
from ..core.rng import Rows
from ..sampling.guidance import Guide
from ..sampling.schedules import Layout
from ..surgery import Lora

EXAMPLE = 'say what to draw, for example "a red heart, noto style"'


class Options(TypedDict, total=False):
    """Options of a call; what is left out or None is the model's own.

    negative: what to keep out of the picture.   steps: of the solver.   solver: its name.
    guidance: weight of classifier-free guidance, or the number that the network is told (FLUX.1 dev); cfg: that weight on top of such a
    number, refused elsewhere.   guide: where guidance acts.
    size: (height, width) in pixels.   binned: whether to draw at the nearest trained size and to resize (PixArt).
    shift: of a flow's times.   layout: how the times are laid out.
    micro: micro-conditioning, the numbers of a training picture that the network reads, by slot ("original_size": (height, width),
    "crop": (top, left), ... of Stable Diffusion XL), instead of those of a whole picture.
    policies: what rides on the run; an `Extrapolation` among them takes the place of the model's own way with other sizes.
    loras: from `TextToImage.lora`; they add up, and a weight may be one number for each picture.
    frame: (rows, row, text tokens) of an earlier batch to imitate, so that one of its pictures comes out bit for bit.
    """

    negative: str
    steps: int | None
    guidance: float | None
    cfg: float | None
    solver: str | None
    size: tuple[int, int] | None
    binned: bool | None
    shift: float | None
    layout: Layout | None
    guide: Guide | None
    micro: Mapping[str, Sequence[float]] | None
    policies: Sequence[Policy]
    loras: Sequence[Lora]
    frame: tuple[int, int, int] | None


def refuse_unknown(options: Options) -> None:
    """Raise `UnknownNameError` for an option that no call has; a type checker sees it sooner."""
    for name in options:
        if name not in Options.__annotations__:
            raise UnknownNameError("option of a call", name, Options.__annotations__)


def rows_of(
    prompt: str | Sequence[str], num: int, seed: int, seeds: Sequence[int] | None, frame: tuple[int, int, int] | None = None
) -> tuple[list[str], Rows]:
    """Each prompt `num` times, and a row for each picture: seeds count up from `seed` in every prompt, unless `seeds` has one per picture.
    With a `frame`, a batch shaped as the recorded one, this picture standing at its old row; what else it holds does not matter.

    Raises `UsageError` for no prompt, an empty one, another number of seeds than of pictures, a frame of more than one.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        raise UsageError("no prompt was given", EXAMPLE)
    for one in prompts:
        if not isinstance(one, str) or not one.strip():
            raise UsageError(f"the prompt {one!r} is empty", EXAMPLE)
    if num < 1:
        raise UsageError(f"num is {num}", "at least 1 picture of each prompt")
    chosen = tuple(seeds) if seeds is not None else tuple(seed + i for _ in prompts for i in range(num))
    if len(chosen) != len(prompts) * num:
        raise UsageError(f"{len(chosen)} seeds for {len(prompts) * num} pictures", "one seed per picture")
    if frame is None:
        return [p for p in prompts for _ in range(num)], Rows(chosen)
    if len(chosen) != 1 or not 0 <= frame[1] < frame[0]:
        raise UsageError(f"frame {frame} with {len(chosen)} pictures", "a frame (rows, row, text tokens) goes with one picture")
    return prompts * frame[0], Rows(chosen * frame[0])
