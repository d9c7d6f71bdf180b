"""How much memory is free, and the refusal to load what would not fit: asked before the first weight is read.

On a CPU the free memory is what Linux would give before it ends a process: unused memory, caches that can be dropped and swap, but no more
than the control group of this process (a container) still allows. Elsewhere it is not known, and nothing is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from .errors import SfumatoError

_MEMINFO = Path("/proc/meminfo")
_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
# Of both generations of control groups: the controller in the list of own groups, its folder, and its files for the limit, what is in
# use, and (in memory.stat) what of that is a cache.
_GENERATIONS = (
    ("", "", "memory.max", "memory.current", "file"),
    ("memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"),
)


class TooLargeError(SfumatoError):
    """Weights that need more memory than there is; the message says how much, the hint what would fit."""


def free_memory(device: str | torch.device = "cpu") -> int | None:
    """Bytes free on `device`; None where that is not known."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    return min((found for found in (_machine(), *_groups()) if found is not None), default=None)


def require_memory(
    what: str, needed: Callable[[torch.dtype | None], int], dtype: torch.dtype | None, device: str | torch.device = "cpu"
) -> None:
    """Raise `TooLargeError` where `needed(dtype)` bytes of `what` are more than is free on `device`. `dtype` None = as stored."""
    free, wanted = free_memory(device), needed(dtype)
    if free is None or wanted <= free:
        return
    half = needed(torch.bfloat16)
    raise TooLargeError(
        f"{what} needs {_gb(wanted)} of memory{'' if dtype is None else f' in {_name(dtype)}'}, and {_gb(free)} is free on {device}",
        f"bfloat16 needs {_gb(half)}, which fits"
        if half <= free
        else f"even bfloat16 needs {_gb(half)}: free memory, or use a larger machine",
    )


def _machine() -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        return sum(1024 * int(lines[name].split()[0]) for name in ("MemAvailable", "SwapFree"))
    except (OSError, KeyError, ValueError):
        return None


def _groups() -> Iterator[int]:
    """What is left to each control group around this process that has a limit."""
    try:
        own = [line.split(":", 2)[1:] for line in _OWN_GROUPS.read_text().splitlines()]
    except OSError:
        return
    for controller, folder, limit, usage, cache in _GENERATIONS:
        for path in (Path(path.lstrip("/")) for controllers, path in own if controller in controllers.split(",")):
            # A container may see its own group as the root.
            for group in {_GROUPS / folder / parent for parent in (path, *path.parents)}:
                try:
                    most, used = int((group / limit).read_text()), int((group / usage).read_text())
                    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                    yield max(most - used + int(stat[cache]), 0)
                except (OSError, KeyError, ValueError):
                    continue  # no limit ("max"), or not to be seen from here


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
