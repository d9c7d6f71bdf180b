"""The one sampling loop: evaluate what the process asks for, batching lanes that share a network call; report, preview, cancel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from ..core.call import Call
from ..core.conditions import Conditions, concatenate
from ..core.denoiser import Denoiser
from ..core.errors import CancelledError
from ..core.process import NetCall, Process
from ..core.rng import Rows
from ..core.state import Out, Stream
from .solvers import Walk


@dataclass(frozen=True)
class Step:
    """What a callback sees after a step. `estimate`: the x_0 (B, C, h, w) the model expects, a latent preview."""

    index: int
    total: int
    estimate: Tensor


OnStep = Callable[[Step], bool | None]


class Batched:
    """A run's conditions, put into one batch and prepared once for all steps; by the lanes that run together."""

    def __init__(self) -> None:
        self._made: dict[tuple[bool, tuple[int, ...]], tuple[Sequence[Conditions], Conditions]] = {}

    def of(self, denoiser: Denoiser, conds: Sequence[Conditions], plain: bool) -> Conditions:
        """`conds` as one batch. `plain`: neither a policy nor an adapter acts, so what no step changes is computed now."""
        key = (plain, tuple(map(id, conds)))
        if key not in self._made:
            batch = concatenate(conds)
            # The parts are kept with it, so that no other object can take their place under the same id.
            self._made[key] = (conds, denoiser.net.prepare(batch) if plain else batch)
        return self._made[key][1]


def evaluate(denoiser: Denoiser, calls: Mapping[str, NetCall], batched: Batched | None = None) -> dict[str, Out]:
    """Answer all lanes. Lanes with nothing but an image, no tap, the same observers or no policy, and the same adapters that ask for no
    lane or none, run as one batch. `batched`: what a run that asks step after step keeps of its conditions.
    """
    outs: dict[str, Out] = {}
    alike: dict[tuple[int, ...], dict[str, NetCall]] = {}
    for lane, c in calls.items():
        if _bare(c.streams) and not _special(c.call):
            alike.setdefault((id(c.call.adapters) if c.call.adapters else 0, *map(id, c.call.sessions)), {})[lane] = c
        else:
            outs[lane] = denoiser.answer(c.streams, c.cond, c.call)
    for batch in alike.values():
        outs |= _together(denoiser, batch, batched or Batched())
    return outs


def _bare(streams: Mapping[str, Stream]) -> bool:
    image = streams.get("image")
    return len(streams) == 1 and image is not None and image.t is not None and image.known is image.keep is image.pos is None


def _special(call: Call) -> bool:
    laned = not all(getattr(adapter, "laneless", False) for adapter in call.adapters.values())
    return bool(laned or call.taps or call.noise) or not all(s.footprint.observes for s in call.sessions)


def _together(denoiser: Denoiser, calls: Mapping[str, NetCall], batched: Batched) -> dict[str, Out]:
    members = list(calls.values())
    images = [c.streams["image"] for c in members]
    x, t = torch.cat([i.x for i in images]), torch.cat([i.t for i in images if i.t is not None])
    ends = list(accumulate(len(i.x) for i in images))
    rows = {lane: slice(end - len(i.x), end) for lane, i, end in zip(calls, images, ends, strict=True)}
    call = replace(members[0].call, lane="+".join(calls), t=t, together=rows)
    cond = batched.of(denoiser, [c.cond for c in members], plain=not call.acts)
    out = denoiser.out(x, t, cond, call)
    parts = {name: pred.split([len(i.x) for i in images]) for name, pred in out.pred.items()}
    return {lane: Out({name: part[i] for name, part in parts.items()}, {}, out.aux) for i, lane in enumerate(calls)}


class Standing(Protocol):
    """A run on a walk along times; see `OdeRun`."""

    @property
    def walk(self) -> Walk: ...

    @property
    def estimate(self) -> Tensor | None: ...


Request = TypeVar("Request", contravariant=True)
Run = TypeVar("Run", bound=Standing)
Result = TypeVar("Result", covariant=True)


class Drawing(Process[Request, Run], Protocol[Request, Run, Result]):
    """A process that walks `times` and ends in a result: `Ode` in latents, `Joint` in several streams."""

    @property
    def denoiser(self) -> Denoiser: ...

    @property
    def times(self) -> Tensor: ...

    def result(self, run: Run) -> Result: ...


@torch.no_grad()
def draw(process: Drawing[Request, Run, Result], request: Request, rows: Rows, on_step: OnStep | None = None) -> Result:
    """Run `process` to its end and return its result. `on_step` returning False stops the run with `CancelledError`."""
    run = process.init(request, rows)
    total, batched = len(process.times) - 1, Batched()
    while not process.done(run):
        before = run.walk.index
        run = process.update(run, evaluate(process.denoiser, process.calls(run), batched), rows)
        if on_step is None or run.walk.index == before or run.estimate is None:
            continue
        if on_step(Step(run.walk.index, total, run.estimate)) is False:
            raise CancelledError(f"stopped after step {run.walk.index} of {total}")
    return process.result(run)
