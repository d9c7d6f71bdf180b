"""Drawing what is asked, picture by picture on disk: an interrupted evaluation goes on where it stopped and ends in the same numbers."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..core.config import from_dict
from ..core.errors import ConfigError, DataError, NonFiniteError, UsageError
from ..core.files import write_json, write_with
from .report import Cost, to_uint8

Progress = Callable[[int, int], None]


class Pipe(Protocol):
    """What is evaluated. The result has `.images`: (B, 3, H, W) float in [-1, 1], one row per prompt."""

    def __call__(self, prompts: Sequence[str], *, seeds: Sequence[int], steps: int, guidance: float) -> Any: ...


@dataclass(frozen=True)
class Order:
    """What every picture of an evaluation is drawn with; picture i has seed `seed + i`. `weights`: bytes of the model's, 0 = unknown."""

    seed: int
    steps: int
    guidance: float
    batch: int
    size: int
    weights: int = 0


@dataclass(frozen=True)
class Drawn:
    """`images` (N, 3, size, size) uint8 of the prompts at `places`; `failed`: why there is none, by place. `cost`: of drawing them all."""

    images: Tensor
    places: tuple[int, ...]
    failed: Mapping[int, str]
    cost: Cost


def draw(
    pipe: Pipe, prompts: Sequence[str], order: Order, folder: Path, progress: Progress | None = None, seeds: Sequence[int] | None = None
) -> Drawn:
    """Keep each picture as a PNG in `folder`; those already there are read. One with NaN is left out and named.

    `seeds`: of each picture, where they are not `order.seed` counted up.

    Raises `NonFiniteError` when no picture is whole, `UsageError` for pictures of another size than `order.size`.
    """
    seeds = [order.seed + i for i in range(len(prompts))] if seeds is None else seeds
    paths = [folder / f"{i:06d}.png" for i in range(len(prompts))]
    missing = [i for i, path in enumerate(paths) if not path.is_file()]
    failed: dict[int, str] = {}
    if progress:
        progress(len(prompts) - len(missing), len(prompts))
    for start in range(0, len(missing), order.batch):
        rows = missing[start : start + order.batch]
        began = time.monotonic()
        drawn = _attempt(pipe, rows, prompts, order, seeds)
        _spend(folder, len(rows), time.monotonic() - began, order)
        for row, picture in drawn.items():
            if isinstance(picture, str):
                failed[row] = picture
            else:
                _save(picture, paths[row])
        if progress:
            progress(len(prompts) - len(missing) + start + len(rows), len(prompts))
    if len(failed) == len(prompts):
        raise NonFiniteError(f"none of {len(prompts)} pictures is whole: {failed[0]}", "nothing to judge; is the model's dtype too small?")
    places = tuple(i for i in range(len(prompts)) if i not in failed)
    return Drawn(read_pictures([paths[i] for i in places], order.size), places, failed, _spent(folder))


def _attempt(pipe: Pipe, rows: Sequence[int], prompts: Sequence[str], order: Order, seeds: Sequence[int]) -> dict[int, Tensor | str]:
    """The picture (3, H, W) of each row, or why it has none. A pipe that refuses a whole batch for one picture is asked for each alone."""
    asked = [prompts[i] for i in rows]
    try:
        images: Tensor = pipe(asked, seeds=[seeds[i] for i in rows], steps=order.steps, guidance=order.guidance).images
    except NonFiniteError as error:
        if len(rows) == 1:
            return {rows[0]: error.message}
        return {i: found for row in rows for i, found in _attempt(pipe, [row], prompts, order, seeds).items()}
    if tuple(images.shape) != (len(rows), 3, order.size, order.size):
        seen = f"this judge sees pictures of {order.size} x {order.size}"
        raise UsageError(f"the model drew {tuple(images.shape)} for {len(rows)} prompts", seen)
    broken = f"the picture holds NaN or infinity ({images.dtype})"
    return {i: image if bool(image.isfinite().all()) else broken for i, image in zip(rows, images, strict=True)}


def _save(picture: Tensor, path: Path) -> None:
    from PIL import Image

    encoded = Image.fromarray(to_uint8(picture[None])[0].permute(1, 2, 0).contiguous().numpy())
    write_with(path, lambda temporary: encoded.save(temporary, format="PNG"))


def read_pictures(paths: Sequence[Path], size: int) -> Tensor:
    """(N, 3, size, size) uint8. Raises `DataError` naming a file that cannot be read, or the sizes found where not all are `size`."""
    from PIL import Image

    found: list[Tensor] = []
    for path in paths:
        try:
            with Image.open(path) as opened:
                found.append(torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1))
        except OSError as error:
            raise DataError(f"cannot read the kept picture {path}: {error}", "delete it and evaluate again: it is drawn anew") from error
    odd = [path.name for path, picture in zip(paths, found, strict=True) if picture.shape[1:] != (size, size)]
    if odd:
        sizes = Counter(f"{p.shape[2]}x{p.shape[1]}" for p in found)
        told = ", ".join(f"{count} of {name}" for name, count in sizes.most_common())
        named = ", ".join(odd[:5]) + (", ..." if len(odd) > 5 else "")
        raise DataError(
            f"the pictures in {paths[0].parent} are of several sizes or another one ({told}); not {size}x{size}: {named}",
            "delete those and evaluate again: they are drawn anew",
        )
    return torch.stack(found)


def _spend(folder: Path, pictures: int, seconds: float, order: Order) -> None:
    """Add to the cost kept beside the pictures, so that it outlives an interruption."""
    before = _spent(folder)
    gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    write_json(
        folder.parent / "cost.json",
        {
            "pictures": before.pictures + pictures,
            "seconds": before.seconds + seconds,
            "memory": max(before.memory, gpu or order.weights),
            "kind": "peak on the GPU" if gpu else "weights",
        },
    )


def _spent(folder: Path) -> Cost:
    path = folder.parent / "cost.json"
    try:
        return from_dict(Cost, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Cost(0, 0.0, 0, "weights")
    except (OSError, ValueError, ConfigError) as error:
        raise DataError(f"damaged file {path}: {error}", "remove it: only time and memory are lost") from error


def claim(out: Path, plan: dict[str, Any]) -> None:
    """Write the plan, or make sure that the one in `out` is the same; more or fewer pairs of the same order are the same plan."""
    path = out / "plan.json"
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            shared = min(len(found["prompts"]), len(plan["prompts"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"damaged file {path}: {error!r}", "name another folder, or remove this one") from error
        pairs = {name: (found.get(name), plan[name]) for name in plan if name != "prompts"}
        changed = [f"{name} ({there} there, {now} now)" for name, (there, now) in pairs.items() if there != now]
        changed += ["prompts"] if found["prompts"][:shared] != plan["prompts"][:shared] else []
        if changed:
            raise UsageError(
                f"{out} holds another evaluation; different: {', '.join(changed)}", "another folder with --out, or remove this one"
            )
        if shared == len(plan["prompts"]):
            return
    write_json(path, plan)
