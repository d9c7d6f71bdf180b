"""Closed forms of an operator's work, the roofline they are measured against, and Amdahl's law (arXiv 2312.14385; Williams et al. 2009).

Counts are exact: FLOPs of products, and the bytes that have to be moved at least once, at `itemsize` bytes a number.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from .profiler import Work


def linear(rows: int, width_in: int, width_out: int, itemsize: int = 2) -> Work:
    """`rows` vectors through a matrix."""
    return Work(0.0, 2 * rows * width_in * width_out, itemsize * (rows * width_in + width_in * width_out + rows * width_out), 1)


def attention(queries: int, keys: int, width: int, heads: int = 1, itemsize: int = 2, fused: bool = True) -> Work:
    """Scores, softmax and weighted sum; `width` of all heads together. Not fused, scores and probabilities are each written and read."""
    scores = 0 if fused else 4 * itemsize * heads * queries * keys
    return Work(0.0, 4 * queries * keys * width, itemsize * 2 * (queries + keys) * width + scores, 1)


def convolution(kernel: int, channels_in: int, channels_out: int, rows: int, columns: int, itemsize: int = 2) -> Work:
    """A square kernel over a picture whose size it keeps."""
    cells, weights = rows * columns, kernel**2 * channels_in * channels_out
    return Work(0.0, 2 * weights * cells, itemsize * (channels_in * cells + weights + channels_out * cells), 1)


def amdahl(share: float, speedup: float) -> float:
    """How many times faster all becomes when `share` of the time becomes `speedup` times faster."""
    return 1 / (1 - share + share / speedup)


@dataclass(frozen=True)
class Machine:
    """flops: products a second at best.   bandwidth: bytes a second at best."""

    name: str
    flops: float
    bandwidth: float

    @property
    def ridge(self) -> float:
        """The intensity (FLOPs a byte) above which products and not memory set the pace."""
        return self.flops / self.bandwidth

    def attainable(self, intensity: float) -> float:
        """FLOPs a second that an operator of this intensity can reach."""
        return min(self.flops, intensity * self.bandwidth)


def measured(device: torch.device, dtype: torch.dtype, tries: int = 5) -> Machine:
    """What this machine reaches now with one large matrix product and one large copy: the best of `tries` each, after a warm-up."""
    gpu = device.type == "cuda"
    side, count = (8192, 1 << 28) if gpu else (1024, 1 << 24)
    a, b, big = (torch.ones(shape, device=device, dtype=dtype) for shape in ((side, side), (side, side), (count,)))
    other = torch.empty_like(big)
    name = torch.cuda.get_device_name(device) if gpu else f"CPU, torch threads: {torch.get_num_threads()}"
    products = 2 * side**3 / _fastest(lambda: a @ b, gpu, tries)
    return Machine(name, products, 2 * big.numel() * big.element_size() / _fastest(lambda: other.copy_(big), gpu, tries))


def _fastest(work: Callable[[], object], gpu: bool, tries: int) -> float:
    best = float("inf")
    for _ in range(tries + 1):
        if gpu:
            torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        if gpu:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best
