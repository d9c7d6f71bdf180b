"""ODE solvers as pure steps, all on the straight path y_s = (1 - s) x_0 + s eps, where dy/ds = eps - x_0.

Any other path is this one rescaled: y = x / (alpha + sigma), s = sigma / (alpha + sigma). So each solver is written once, next
to its equation. A solver asks for one evaluation at a time: `place(run)` says where, `advance(run, seen)` uses the answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ..core.errors import UsageError
from ..core.registry import Registry


@dataclass(frozen=True)
class Seen:
    """What an evaluation said at one place: x0 and eps (B, ...), fp32."""

    x0: Tensor
    eps: Tensor

    @property
    def flow(self) -> Tensor:
        return self.eps - self.x0


@dataclass(frozen=True)
class Walk:
    """Where a solver stands: y at grid point `index` of `times` (from noise to data), and what it remembers from before."""

    y: Tensor
    times: tuple[float, ...]
    index: int = 0
    memory: tuple[Seen, ...] = ()
    trial: Tensor | None = None

    @property
    def now(self) -> float:
        return self.times[self.index]

    @property
    def next(self) -> float:
        return self.times[self.index + 1]

    @property
    def done(self) -> bool:
        return self.index == len(self.times) - 1

    def move(self, y: Tensor, memory: tuple[Seen, ...] = ()) -> Walk:
        return replace(self, y=y, index=self.index + 1, memory=memory, trial=None)


class Solver(Protocol):
    """`order`: evaluations per step."""

    evaluations: int

    def place(self, walk: Walk) -> tuple[Tensor, float]: ...

    def advance(self, walk: Walk, seen: Seen) -> Walk: ...


solvers: Registry[type[Solver]] = Registry("solver")


@solvers.add("euler")
class Euler:
    """y' = y + (s' - s) (eps - x_0)."""

    evaluations = 1

    def place(self, walk: Walk) -> tuple[Tensor, float]:
        return walk.y, walk.now

    def advance(self, walk: Walk, seen: Seen) -> Walk:
        return walk.move(walk.y + (walk.next - walk.now) * seen.flow)


@solvers.add("heun")
class Heun:
    """The trapezoid rule (Karras et al., arXiv 2206.00364, algorithm 1): an Euler trial, then the mean of both slopes.

    The last step, to s = 0, is Euler.
    """

    evaluations = 2

    def place(self, walk: Walk) -> tuple[Tensor, float]:
        return (walk.y, walk.now) if walk.trial is None else (walk.trial, walk.next)

    def advance(self, walk: Walk, seen: Seen) -> Walk:
        ds = walk.next - walk.now
        if walk.trial is not None:
            return walk.move(walk.y + ds * (walk.memory[0].flow + seen.flow) / 2)
        trial = walk.y + ds * seen.flow
        if walk.next == 0.0:
            return walk.move(trial)
        return replace(walk, trial=trial, memory=(seen,))


@solvers.add("dpm++2m")
class DPMSolverPP2M:
    """DPM-Solver++(2M), data prediction (Lu et al., arXiv 2211.01095, algorithm 2):

    with lambda = log((1 - s) / s), h = lambda' - lambda, r = h_before / h,

    y' = (s' / s) y - (1 - s') (e^-h - 1) D,    D = (1 + 1 / 2r) x_0 - (1 / 2r) x_0_before.

    The first step is of first order, and so is the last one where lambda is infinite or there are fewer than 15 (diffusers' rule; the
    original's is 10). Both differ only on grids that end before the data.
    """

    evaluations = 1

    def place(self, walk: Walk) -> tuple[Tensor, float]:
        return walk.y, walk.now

    def advance(self, walk: Walk, seen: Seen) -> Walk:
        s, s_next = walk.now, walk.next
        h = _lambda(s_next) - _lambda(s)
        data = seen.x0
        settling = walk.index == len(walk.times) - 2 and len(walk.times) - 1 < 15
        if walk.memory and s_next > 0.0 and not settling:
            h_before = _lambda(s) - _lambda(walk.times[walk.index - 1])
            weight = h / (2 * h_before)
            data = (1 + weight) * seen.x0 - weight * walk.memory[0].x0
        y = (s_next / s) * walk.y - (1 - s_next) * math.expm1(-h) * data
        return walk.move(y, (seen,))


@solvers.add("plms")
class PLMS:
    """Linear multistep of fourth order on eps (Liu et al., arXiv 2202.09778; as Stable Diffusion's first release draws):

    y' = (1 - s') (y - s e) / (1 - s) + s' e,    e = (55 eps - 59 eps_1 + 37 eps_2 - 9 eps_3) / 24, eps_k of k steps before.

    While there are fewer: the first step is made twice, the second time with the mean of eps at both of its ends; the next two are of
    second and third order.
    """

    evaluations = 1
    weights = ((1.0,), (1.5, -0.5), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))

    def place(self, walk: Walk) -> tuple[Tensor, float]:
        return (walk.y, walk.now) if walk.trial is None else (walk.trial, walk.next)

    def advance(self, walk: Walk, seen: Seen) -> Walk:
        if walk.trial is not None:
            return walk.move(self._moved(walk, (walk.memory[0].eps + seen.eps) / 2), walk.memory)
        known = (seen, *walk.memory)[:4]
        eps = torch.stack([w * one.eps for w, one in zip(self.weights[len(known) - 1], known, strict=True)]).sum(0)
        y = self._moved(walk, eps)
        if not walk.memory and len(walk.times) > 2:
            return replace(walk, trial=y, memory=known)
        return walk.move(y, known)

    def _moved(self, walk: Walk, eps: Tensor) -> Tensor:
        s, s_next = walk.now, walk.next
        if s == 1.0:
            raise UsageError("plms goes by eps, which says nothing of the data where the walk begins, in pure noise", "another solver")
        return (1 - s_next) * (walk.y - s * eps) / (1 - s) + s_next * eps


def _lambda(s: float) -> float:
    """Half the log-SNR of the straight path at s; infinite at its ends."""
    if s in (0.0, 1.0):
        return math.inf if s == 0.0 else -math.inf
    return math.log((1 - s) / s)


def start(y: Tensor, times: Tensor) -> Walk:
    """A walk from y (fp32) along `times` (steps + 1,)."""
    return Walk(y.to(torch.float32), tuple(float(t) for t in times))
