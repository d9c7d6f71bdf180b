"""Which pictures one call draws: prompts and the rows' seeds, checked; and a recorded batch imitated for one of its pictures."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.errors import UsageError
from ..core.rng import Rows

EXAMPLE = 'say what to draw, for example "a red heart, noto style"'


def rows_of(prompts: Sequence[str], num: int, seed: int, seeds: Sequence[int] | None) -> Rows:
    """A row for each of `num` pictures of each prompt: seeds count up from `seed` in every prompt, unless `seeds` has one per picture.

    Raises `UsageError` for no prompt, an empty one, or another number of seeds than of pictures.
    """
    if not prompts:
        raise UsageError("no prompt was given", EXAMPLE)
    for prompt in prompts:
        if not isinstance(prompt, str) or not prompt.strip():
            raise UsageError(f"the prompt {prompt!r} is empty", EXAMPLE)
    if num < 1:
        raise UsageError(f"num is {num}", "at least 1 picture of each prompt")
    chosen = tuple(seeds) if seeds is not None else tuple(seed + i for _ in prompts for i in range(num))
    if len(chosen) != len(prompts) * num:
        raise UsageError(f"{len(chosen)} seeds for {len(prompts) * num} pictures", "one seed per picture")
    return Rows(chosen)


def imitate(prompts: list[str], rows: Rows, frame: tuple[int, int, int]) -> tuple[list[str], Rows]:
    """A batch shaped as the recorded one, this picture standing at its old row. What else the batch holds does not matter."""
    if len(prompts) != 1 or not 0 <= frame[1] < frame[0]:
        raise UsageError(f"frame {frame} with {len(prompts)} prompts", "a frame (rows, row, text tokens) goes with one picture")
    return prompts * frame[0], Rows(rows.seeds * frame[0])
