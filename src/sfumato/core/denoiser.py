"""A network together with what its numbers mean: path, prediction, time map. Solvers, losses and distillers ask it for x0, eps, v, flow
or score and never need to know what the network was trained to predict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import Tensor

from .call import Call
from .conditions import Conditions
from .discrete import Betas
from .errors import ConfigError, UnknownNameError, UsageError
from .paths import Path, Prediction, View, path, view
from .precondition import Edm
from .program import Network
from .state import Out, Stream

TimeMap = Literal["identity", "reversed", "steps", "whole"]
TIME_MAPS: tuple[TimeMap, ...] = ("identity", "reversed", "steps", "whole")
# Networks read a time in [0, 1] and scale it by this themselves, so that a step k goes in as k / 1000.
TIME_SCALE = 1000.0


@dataclass(frozen=True)
class Meaning:
    """What is saved beside the weights. `path`: a name, or the discrete schedule that the network was trained on.

    `time_map` turns our t into the number the network was trained with: "reversed" is 0 at noise, "steps" is the schedule's step, "whole"
    the thousandth at or below t (diffusers' DPM-Solver and UniPC tell a flow network nothing finer).
    `precondition`: the network is the inner one of EDM, which tells it the noise in its own way; what comes out is then x0.
    """

    prediction: Prediction = "flow"
    path: str | Betas = "linear"
    time_map: TimeMap = "identity"
    precondition: Edm | None = None

    def __post_init__(self) -> None:
        if self.time_map not in TIME_MAPS:
            raise UnknownNameError("time map", self.time_map, TIME_MAPS)
        if self.time_map == "steps" and not isinstance(self.path, Betas):
            raise ConfigError(f"the time map 'steps' on the path {self.path!r}", "steps are those of a discrete schedule of betas")
        if self.precondition is not None and (self.prediction, self.time_map) != ("x0", "identity"):
            raise ConfigError(
                f"EDM's precondition with the prediction {self.prediction!r} and the time map {self.time_map!r}",
                "a preconditioned network predicts x0, and is told ln(s) / 4",
            )

    def network_time(self, t: Tensor) -> Tensor:
        """What the network is told for t in [0, 1], of t's shape and type."""
        if self.time_map == "steps" and isinstance(self.path, Betas):
            return (self.path.step(t) / TIME_SCALE).to(t)
        if self.time_map == "whole":
            return (t.double() * TIME_SCALE).floor().div(TIME_SCALE).to(t)
        return 1.0 - t if self.time_map == "reversed" else t


@dataclass(frozen=True)
class Denoiser:
    """Differentiable views of a network's prediction for the stream "image". x: (B, C, h, w), t: (B,) in [0, 1]."""

    net: Network
    meaning: Meaning = field(default_factory=Meaning)

    @property
    def path(self) -> Path:
        return path(self.meaning.path)

    def answer(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None = None) -> Out:
        """The network's answer, features and auxiliary losses included; each stream's t goes through the time map, the image through the
        precondition.
        """
        mapped, edm = self.meaning.network_time, self.meaning.precondition
        if call is not None and call.t is None and "image" in streams:
            call = replace(call, t=streams["image"].t)
        told = {n: s if s.t is None else replace(s, t=mapped(s.t)) for n, s in streams.items()}
        if edm is None:
            out: Out = self.net(told, cond, call)
            return out
        x, t = streams["image"].x, streams["image"].t
        if t is None:
            raise UsageError("the image stream has no noise level t", "EDM's precondition depends on it")
        c = edm.coefficients(*self.path.at(t, x))
        out = self.net({**told, "image": replace(streams["image"], x=c.into * x, t=c.noise)}, cond, call)
        return replace(out, pred={**out.pred, "image": c.skip * x + c.out * out.pred["image"].float()})

    def out(self, x: Tensor, t: Tensor, cond: Conditions, call: Call | None = None) -> Out:
        """`answer` for the image stream alone."""
        return self.answer({"image": Stream(x, t=t)}, cond, call)

    def view(self, x: Tensor, t: Tensor, cond: Conditions, call: Call | None = None) -> View:
        """Every side of one evaluation."""
        return self.interpret(self.out(x, t, cond, call).pred["image"], x, t)

    def interpret(self, prediction: Tensor, x: Tensor, t: Tensor) -> View:
        """Every side of a raw prediction already made at (x, t)."""
        return view(self.path, self.meaning.prediction, prediction, x, t)

    def x0(self, x: Tensor, t: Tensor, cond: Conditions, call: Call | None = None) -> Tensor:
        return self.view(x, t, cond, call).x0

    def eps(self, x: Tensor, t: Tensor, cond: Conditions, call: Call | None = None) -> Tensor:
        return self.view(x, t, cond, call).eps

    def score(self, x: Tensor, t: Tensor, cond: Conditions, call: Call | None = None) -> Tensor:
        return self.view(x, t, cond, call).score

    def flow(self, x: Tensor, t: Tensor, cond: Conditions, call: Call | None = None) -> Tensor:
        return self.view(x, t, cond, call).flow
