"""ODE solvers as pure steps, all on the straight path y_s = (1 - s) x_0 + s eps, where dy/ds = eps - x_0.

Any other path is this one rescaled: y = x / (alpha + sigma), s = sigma / (alpha + sigma). So each solver is written once, next
to its equation. A solver asks for one evaluation at a time: `place(run)` says where, `advance(run, seen)` uses the answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ..core.errors import UsageError
from ..core.registry import Registry


@dataclass(frozen=True)
class Seen:
    """What an evaluation said at one place: x0 and eps (B, ...), fp32. `fresh`: new noise, for a solver that draws."""

    x0: Tensor
    eps: Tensor
    fresh: Tensor | None = None

    @property
    def flow(self) -> Tensor:
        return self.eps - self.x0


@dataclass(frozen=True)
class Walk:
    """Where a solver stands: y at grid point `index` of `times` (from noise to data), and what it remembers from before.

    `trial`: a y to be evaluated within a step.   `before`: the y that the last step was taken from.
    """

    y: Tensor
    times: tuple[float, ...]
    index: int = 0
    memory: tuple[Seen, ...] = ()
    trial: Tensor | None = None
    before: Tensor | None = None

    @property
    def now(self) -> float:
        return self.times[self.index]

    @property
    def next(self) -> float:
        return self.times[self.index + 1]

    @property
    def done(self) -> bool:
        return self.index == len(self.times) - 1

    def move(self, y: Tensor, memory: tuple[Seen, ...] = (), before: Tensor | None = None) -> Walk:
        return replace(self, y=y, index=self.index + 1, memory=memory, trial=None, before=before)


class Solver(Protocol):
    """`evaluations` per step.   `draws`: each step needs fresh noise (`Seen.fresh`)."""

    evaluations: int
    draws: bool

    def place(self, walk: Walk) -> tuple[Tensor, float]: ...

    def advance(self, walk: Walk, seen: Seen) -> Walk: ...


solvers: Registry[type[Solver]] = Registry("solver")


@solvers.add("euler")
class Euler:
    """y' = y + (s' - s) (eps - x_0)."""

    evaluations, draws = 1, False

    def place(self, walk: Walk) -> tuple[Tensor, float]:
        return walk.y, walk.now

    def advance(self, walk: Walk, seen: Seen) -> Walk:
        return walk.move(walk.y + (walk.next - walk.now) * seen.flow)


@solvers.add("heun")
class Heun:
    """The trapezoid rule (Karras et al., arXiv 2206.00364, algorithm 1): an Euler trial, then the mean of both slopes.

    The last step, to s = 0, is Euler.
    """

    evaluations, draws = 2, False

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

    evaluations, draws = 1, False

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
        return walk.move(_towards(data, walk.y, s, s_next), (seen,))


@solvers.add("unipc")
class UniPC:
    """UniPC of second order, data prediction, B(h) = e^h - 1 (Zhao et al., arXiv 2302.04867, "bh2"): with lambda and h as above, m_i the
    x_0 at step i, r = (lambda_before - lambda) / h and B = e^-h - 1,

        predicted   y' = (s' / s) y - (1 - s') B (m + (m_before - m) / 2r)
        corrected   y' = (s' / s) y - (1 - s') B (m + a (m_before - m) / r + b (m' - m))

    where m' is seen at the predicted y', which costs no evaluation: the next step begins there anyway. a and b make the correction exact
    for m linear in lambda. The first step is of first order, with (a, b) = (0, 1/2), and so is the last, which is not corrected.
    """

    evaluations, draws = 1, False

    def place(self, walk: Walk) -> tuple[Tensor, float]:
        return walk.y, walk.now

    def advance(self, walk: Walk, seen: Seen) -> Walk:
        y = walk.y if walk.before is None else self._corrected(walk, walk.before, seen)
        data = seen.x0
        if walk.memory and walk.index < len(walk.times) - 2:
            r = _ratio(walk.times[walk.index - 1 : walk.index + 2])
            data = data + (walk.memory[0].x0 - data) / (2 * r)
        return walk.move(_towards(data, y, walk.now, walk.next), (seen, *walk.memory[:1]), before=y)

    def _corrected(self, walk: Walk, before: Tensor, seen: Seen) -> Tensor:
        last, *earlier = (m.x0 for m in walk.memory)
        s, s_next = walk.times[walk.index - 1 : walk.index + 1]
        if not earlier:
            return _towards(last + (seen.x0 - last) / 2, before, s, s_next)
        r, h = _ratio(walk.times[walk.index - 2 : walk.index + 1]), _lambda(s_next) - _lambda(s)
        # Moments of e^lambda over the step, in units of B. Only a first step, which is above, is infinitely long.
        first = (-math.expm1(-h) / h - 1) / math.expm1(-h)
        second = 2 * ((math.expm1(-h) / h + 1) / h - 0.5) / math.expm1(-h)
        a = (second - first) / (r - 1)
        return _towards(last + a * (earlier[0] - last) / r + (first - a) * (seen.x0 - last), before, s, s_next)


@solvers.add("renoise")
class Renoise:
    """y' = (1 - s') x_0 + s' noise: leap to the data and add new noise, as consistency models and distilled networks are drawn (Song et
    al., arXiv 2303.01469, algorithm 1). The last step, to s = 0, ends at x_0.
    """

    evaluations, draws = 1, True

    def place(self, walk: Walk) -> tuple[Tensor, float]:
        return walk.y, walk.now

    def advance(self, walk: Walk, seen: Seen) -> Walk:
        if seen.fresh is None:
            raise UsageError("a renoising step without fresh noise", "the process draws it: Seen(x0, eps, fresh)")
        return walk.move((1 - walk.next) * seen.x0 + walk.next * seen.fresh)


def _towards(data: Tensor, y: Tensor, s: float, s_next: float) -> Tensor:
    """The exact step from s to s' where x_0 is `data` all along: (s' / s) y - (1 - s') (e^-h - 1) data."""
    return (s_next / s) * y - (1 - s_next) * math.expm1(_lambda(s) - _lambda(s_next)) * data


def _ratio(times: Sequence[float]) -> float:
    """(lambda_0 - lambda_1) / (lambda_2 - lambda_1): how far the time before lies behind, in steps; negative."""
    before, now, to = map(_lambda, times)
    return (before - now) / (to - now)


@solvers.add("plms")
class PLMS:
    """Linear multistep of fourth order on eps (Liu et al., arXiv 2202.09778; as Stable Diffusion's first release draws):

    y' = (1 - s') (y - s e) / (1 - s) + s' e,    e = (55 eps - 59 eps_1 + 37 eps_2 - 9 eps_3) / 24, eps_k of k steps before.

    While there are fewer: the first step is made twice, the second time with the mean of eps at both of its ends; the next two are of
    second and third order.
    """

    evaluations, draws = 1, False
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
