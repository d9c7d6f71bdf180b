"""Things that nobody mistakes for each other, chosen from a cast by how they look."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from sfumato.core.errors import DataError

from .cast import Cast


def distinct(cast: Cast, classes: int) -> tuple[str, ...]:
    """Things that differ to the eye: drawn for training in every style of `cast`, each from another subgroup of the emoji.

    First the one that looks least like the mean of all, then again and again the one least like its nearest among those chosen: the
    root mean square over all styles of differences in 12 x 12 pixels. Raises `DataError` when there are fewer than `classes`.
    """
    known = [t for t in cast.things if [f.split for f in cast.by_concept[t].values()] == ["train"] * len(cast.styles)]
    groups = {thing: cast.by_concept[thing][cast.styles[0]].subgroup for thing in known}
    if len(set(groups.values())) < classes:
        raise DataError(
            f"{len(set(groups.values()))} kinds of things are drawn for training in each of {', '.join(cast.styles)}",
            f"{classes} are needed: sfumato data emoji fetches them all",
        )
    looks = np.stack([_look(cast, thing) for thing in known])
    far = _apart(looks, looks.mean(0))
    chosen: list[str] = []
    while len(chosen) < classes:
        free = [groups[thing] not in {groups[c] for c in chosen} for thing in known]
        best = int(np.where(free, far, -1.0).argmax())
        near = _apart(looks, looks[best])
        far = near if not chosen else np.minimum(far, near)
        chosen.append(known[best])
    return tuple(sorted(chosen))


def _apart(looks: npt.NDArray[np.float64], one: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.sqrt(np.square(looks - one).mean(1))


def _look(cast: Cast, thing: str, side: int = 12) -> npt.NDArray[np.float64]:
    """A thing in each style on mid grey, its longer side filling the square: all values in a row."""
    values: list[npt.NDArray[np.float64]] = []
    for style in cast.styles:
        sprite = Image.fromarray(cast.sprite(cast.by_concept[thing][style].drawing, "", cast.stored))
        square = Image.new("RGB", (max(sprite.size),) * 2, (128, 128, 128))
        square.paste(sprite, tuple((square.width - n) // 2 for n in sprite.size), sprite)  # type: ignore[arg-type]
        values.append(np.asarray(square.resize((side, side), Image.Resampling.BOX), float).ravel() / 255)
    return np.concatenate(values)
