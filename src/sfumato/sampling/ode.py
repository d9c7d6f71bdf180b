"""The ODE process: a solver walking a denoiser's probability-flow ODE from noise, or from any point of the path, under guidance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from ..core.call import Adapter, Call, Session
from ..core.conditions import Conditions
from ..core.denoiser import Denoiser
from ..core.errors import UsageError
from ..core.process import NetCall
from ..core.rng import Rows
from ..core.state import Out, Stream, require_finite
from .guidance import ClassifierFree
from .solvers import Euler, Seen, Solver, Walk, start


@dataclass(frozen=True)
class DrawRequest:
    """What to draw: `shape` (C, h, w) of a latent, conditions by lane, and optionally a latent (B, C, h, w) to start from: a clean one,
    `x0`, noised to the grid's first time (image to image), or one that is as noisy as that, `xt` (where another walk left off).
    `noise` (B, C, h, w), None = drawn.
    """

    shape: tuple[int, ...]
    conds: Mapping[str, Conditions]
    x0: Tensor | None = None
    xt: Tensor | None = None
    noise: Tensor | None = None


@dataclass(frozen=True)
class OdeRun:
    """A run between two evaluations. `estimate`: the latest x_0, for previews."""

    walk: Walk
    conds: Mapping[str, Conditions]
    estimate: Tensor | None = None


@dataclass(frozen=True)
class Ode:
    """`times`: from t near 1 to 0 (see `schedules.grid`). The state is fp32; `device`: where the network runs; `adapters`: by Linear name,
    in every lane.

    `noise`: what stands at the first time without an x0. "whole": noise, and the time has to be 1; "bare": noise, even where the time is
    below 1, as the spacing "leading" has it; "scaled": noise times sigma.
    `landings` (steps,), for Euler alone: where each step ends; x is then taken for one of the next time. None: it ends there.
    """

    denoiser: Denoiser
    solver: Solver
    times: Tensor
    guidance: ClassifierFree = field(default_factory=ClassifierFree)
    sessions: tuple[Session, ...] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    adapters: Mapping[str, Adapter] = field(default_factory=dict)
    noise: Literal["whole", "bare", "scaled"] = "whole"
    landings: Tensor | None = None

    def __post_init__(self) -> None:
        if self.landings is not None and not isinstance(self.solver, Euler):
            raise UsageError(f"a fixed stride with the solver {type(self.solver).__name__}", "it is DDIM's, which is 'euler' here")

    def init(self, request: DrawRequest, rows: Rows) -> OdeRun:
        noise = (rows.normal(request.shape, "noise") if request.noise is None else request.noise).to(self.device)
        first = self.times[0].to(self.device)
        if request.x0 is request.xt is None and float(first) != 1.0 and self.noise == "whole":
            raise UsageError(f"the grid starts at t = {float(first):.3f}", "give x0 to start from, or a grid that starts at 1")
        alpha, sigma = self._at(self.times)
        if request.xt is not None:
            x = request.xt.to(self.device)
        elif request.x0 is not None:
            x = self.denoiser.path.mix(request.x0.to(self.device), noise, first)
        else:
            x = noise * sigma[0].to(noise) if self.noise == "scaled" else noise
        walk = start(x / (alpha[0] + sigma[0]).float().to(x), sigma / (alpha + sigma))
        return OdeRun(walk, {lane: cond.to(self.device) for lane, cond in request.conds.items()})

    def calls(self, run: OdeRun) -> dict[str, NetCall]:
        y, t = self._place(run)
        alpha, sigma = self._at(torch.tensor(t, dtype=torch.float64))
        x = y * float(alpha + sigma)
        times = torch.full((len(x),), t, dtype=torch.float32, device=x.device)
        call = Call(self.sessions, self.adapters, step=run.walk.index, t=times)
        return {lane: NetCall({"image": Stream(x, t=times)}, run.conds[lane], replace(call, lane=lane)) for lane in self.guidance.lanes(t)}

    def update(self, run: OdeRun, outs: Mapping[str, Out], rows: Rows) -> OdeRun:
        y, t = self._place(run)
        for session in reversed(self.sessions):
            outs = session.outputs(outs, run.walk.index)
        prediction = self.guidance.combine({lane: out.pred["image"] for lane, out in outs.items()}, t)
        require_finite(prediction, f"the prediction at step {run.walk.index + 1}, t = {t:.3f}")
        alpha, sigma = self._at(torch.tensor(t, dtype=torch.float64))
        times = torch.full((len(y),), t, dtype=torch.float32, device=y.device)
        seen = self.denoiser.interpret(prediction, y * float(alpha + sigma), times)
        # A prediction of eps says nothing of x_0 where alpha = 0; better told here than as a NaN of the next step.
        require_finite(seen.x0, f"the x_0 that step {run.walk.index + 1} infers from {self.denoiser.meaning.prediction} at t = {t:.3f}")
        fresh = rows.normal(tuple(y.shape[1:]), "renoise", run.walk.index).to(y) if self.solver.draws else None
        walk = self._advance(run.walk, Seen(seen.x0, seen.eps, fresh))
        if walk.index > run.walk.index:
            for session in reversed(self.sessions):
                walk = replace(walk, y=session.latents(walk.y, run.walk.index))
        return replace(run, walk=walk, estimate=seen.x0)

    def done(self, run: OdeRun) -> bool:
        return run.walk.done

    def result(self, run: OdeRun) -> Tensor:
        """The latents (B, C, h, w) of a finished run."""
        # A schedule may end at its first trained step, where x is not quite y.
        alpha, sigma = self._at(self.times[-1])
        return run.walk.y * float(alpha + sigma)

    def _advance(self, walk: Walk, seen: Seen) -> Walk:
        if self.landings is None:
            return self.solver.advance(walk, seen)
        then = walk.index + 1
        (alpha, sigma), (alpha_then, sigma_then) = self._at(self.landings[walk.index]), self._at(self.times[then])
        aimed = replace(walk, times=(*walk.times[:then], float(sigma / (alpha + sigma)), *walk.times[then + 1 :]))
        y = self.solver.advance(aimed, seen).y
        return walk.move(y * float((alpha + sigma) / (alpha_then + sigma_then)))

    def _place(self, run: OdeRun) -> tuple[Tensor, float]:
        """y to evaluate at, and the path's own time there (the grid's, not the straight path's)."""
        y, s = self.solver.place(run.walk)
        index = run.walk.times.index(s, run.walk.index)
        return y, float(self.times[index])

    def _at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        path = self.denoiser.path
        return path.alpha(t), path.sigma(t)
