"""Several streams drawn at once, beside others that are given: one network for a picture, a caption, either from the other, or both
(UniDiffuser, Bao et al., arXiv 2303.06555).

    given                                         t = 0 of a stream          drawn     all at one t
    guidance without a null condition             e = u + w (c - u),   u: the same network, new noise at t = 1 in the other side's place

w = 1 + s of the paper, whose scale s = 7 is w = 8. The streams that are drawn are laid flat beside each other in one vector, which an `Ode`
walks as it walks any other: this process stands around that one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from ..core.conditions import Conditions
from ..core.denoiser import Denoiser
from ..core.discrete import Betas
from ..core.errors import UsageError
from ..core.process import NetCall
from ..core.rng import Rows
from ..core.state import Out, Stream
from .ode import DrawRequest, Ode, OdeRun
from .solvers import Walk

# A picture's latents and its embedding share a time.
SIDES = (("image", "clip"), ("text",))


@dataclass(frozen=True)
class JointRequest:
    """`shapes` of all streams' items; those in `given` (B, ...) are there already, the others are drawn.   cond: the slots of all lanes.

    against: streams that stand at t = 0 in the unconditional lane, instead of noise that says nothing.
    """

    shapes: Mapping[str, tuple[int, ...]]
    given: Mapping[str, Tensor] = field(default_factory=dict)
    cond: Conditions = field(default_factory=Conditions)
    against: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class JointRun:
    """A run between two evaluations: the inner one over the flat vector, and this step's noise of what is ignored."""

    inner: OdeRun
    request: JointRequest
    ignored: Mapping[str, Tensor]
    estimate: Tensor | None = None

    @property
    def walk(self) -> Walk:
        return self.inner.walk

    @cached_property
    def drawn(self) -> Mapping[str, tuple[int, ...]]:
        return {name: shape for name, shape in self.request.shapes.items() if name not in self.request.given}


@dataclass(frozen=True)
class Joint:
    """`ode`: how the vector is walked; its guidance acts on all of it, so a guide may have nothing but an interval."""

    ode: Ode

    def __post_init__(self) -> None:
        guide = self.ode.guidance.guide
        if guide.channels or guide.renorm != "none":
            raise UsageError(
                f"a guide with channels {guide.channels} and renorm {guide.renorm!r}",
                "several streams are guided as one: an interval alone",
            )
        if any(session.footprint.hooks & {"outputs", "latents"} for session in self.ode.sessions):
            raise UsageError("a policy that changes outputs or latents", "here they are several streams; policies inside the network act")

    @property
    def denoiser(self) -> Denoiser:
        return self.ode.denoiser

    @property
    def times(self) -> Tensor:
        return self.ode.times

    @property
    def silent(self) -> float:
        """The t of a stream that says nothing. A network that is told step k of N for t = (k + 1) / N is told N here: a step further."""
        meaning = self.denoiser.meaning
        return 1.0 + 1.0 / meaning.path.steps if meaning.time_map == "steps" and isinstance(meaning.path, Betas) else 1.0

    def init(self, request: JointRequest, rows: Rows) -> JointRun:
        if strangers := sorted({*request.given, *request.against} - set(request.shapes)):
            raise UsageError(f"the stream {strangers[0]!r}", f"there are {', '.join(request.shapes)}")
        if len(request.given) == len(request.shapes):
            raise UsageError("every stream is given", "at least one is drawn")
        for side in SIDES:
            if 0 < sum(name in request.given for name in side) < len(side):
                raise UsageError(f"of {' and '.join(side)} one is given, the other not", "they share a time: both, or neither")
        drawn = {name: shape for name, shape in request.shapes.items() if name not in request.given}
        noise = flat({name: rows.normal(shape, "noise" if name == "image" else f"noise of {name}") for name, shape in drawn.items()})
        lanes = dict.fromkeys(("cond", "uncond"), request.cond)
        inner = self.ode.init(DrawRequest(tuple(noise.shape[1:]), lanes, noise=noise), rows)
        given = {name: x.to(self.ode.device) for name, x in request.given.items()}
        against = {name: x.to(self.ode.device) for name, x in request.against.items()}
        return JointRun(inner, replace(request, given=given, against=against), self._ignored(request, rows, 0))

    def calls(self, run: JointRun) -> dict[str, NetCall]:
        inner = self.ode.calls(run.inner)
        call = inner["cond"]
        vector = call.streams["image"]
        now = {name: replace(vector, x=x) for name, x in parted(vector.x, run.drawn).items()}
        given = {name: _at(x, 0.0) for name, x in run.request.given.items()}
        lanes = {"cond": replace(call, streams={**now, **given})}
        for lane, side in self._unconditional(run).items() if "uncond" in inner else ():
            silent = {name: _at(run.ignored[name], self.silent) for name in run.request.shapes if name not in side}
            against = {name: _at(x, 0.0) for name, x in run.request.against.items() if name not in side}
            streams = {**silent, **against, **{name: now[name] for name in side}}
            lanes[lane] = NetCall(streams, call.cond, replace(call.call, lane=lane))
        return lanes

    def update(self, run: JointRun, outs: Mapping[str, Out], rows: Rows) -> JointRun:
        told = {"cond": outs["cond"].pred}
        if len(outs) > 1:
            told["uncond"] = {name: outs[lane].pred[name] for lane, side in self._unconditional(run).items() for name in side}
        vectors = {lane: Out({"image": flat({name: pred[name] for name in run.drawn})}) for lane, pred in told.items()}
        inner = self.ode.update(run.inner, vectors, rows)
        estimate = None if inner.estimate is None else parted(inner.estimate, run.drawn).get("image")
        return replace(run, inner=inner, ignored=self._ignored(run.request, rows, inner.walk.index), estimate=estimate)

    def done(self, run: JointRun) -> bool:
        return run.walk.done

    def result(self, run: JointRun) -> dict[str, Tensor]:
        """The streams (B, ...) that were drawn."""
        return parted(self.ode.result(run.inner), run.drawn)

    def _unconditional(self, run: JointRun) -> dict[str, tuple[str, ...]]:
        """Lanes without the other side, and the streams of the side that each answers for."""
        sides = [side for side in SIDES if all(name in run.drawn for name in side)]
        return {"uncond": sides[0]} if len(sides) == 1 else {f"uncond {side[0]}": side for side in sides}

    def _ignored(self, request: JointRequest, rows: Rows, step: int) -> dict[str, Tensor]:
        return {name: rows.normal(shape, f"ignored {name}", step).to(self.ode.device) for name, shape in request.shapes.items()}


def flat(streams: Mapping[str, Tensor]) -> Tensor:
    """(B, D) of streams (B, ...), in their order."""
    return torch.cat([x.flatten(1) for x in streams.values()], dim=1)


def parted(vector: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The streams that `flat` laid beside each other; `shapes` of their items."""
    parts = vector.split([prod(shape) for shape in shapes.values()], dim=1)
    return {name: part.unflatten(1, shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def _at(x: Tensor, t: float) -> Stream:
    return Stream(x, t=torch.full((len(x),), t, dtype=torch.float32, device=x.device))
