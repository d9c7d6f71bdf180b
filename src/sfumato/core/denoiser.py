"""A network together with what its numbers mean: path, prediction, time map. Solvers, losses and distillers ask it for x0, eps, v, flow
or score and never need to know what the network was trained to predict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import Tensor

from .call import Call
from .conditions import Conditions
from .errors import UnknownNameError
from .paths import Path, Prediction, View, path, view
from .program import Network
from .state import Out, Stream

TIME_MAPS: dict[str, Callable[[Tensor], Tensor]] = {"identity": lambda t: t, "reversed": lambda t: 1.0 - t}


@dataclass(frozen=True)
class Meaning:
    """What is saved beside the weights. `time_map` turns our t into the number the network was trained with: "reversed" is 0 at noise."""

    prediction: Prediction = "flow"
    path: str = "linear"
    time_map: Literal["identity", "reversed"] = "identity"

    def __post_init__(self) -> None:
        if self.time_map not in TIME_MAPS:
            raise UnknownNameError("time map", self.time_map, TIME_MAPS)


@dataclass(frozen=True)
class Denoiser:
    """Differentiable views of a network's prediction for the stream "image". x: (B, C, h, w), t: (B,) in [0, 1]."""

    net: Network
    meaning: Meaning = field(default_factory=Meaning)

    @property
    def path(self) -> Path:
        return path(self.meaning.path)

    def answer(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None = None) -> Out:
        """The network's raw answer, features and auxiliary losses included; each stream's t goes through the time map."""
        mapped = TIME_MAPS[self.meaning.time_map]
        if call is not None and call.t is None and "image" in streams:
            call = replace(call, t=streams["image"].t)
        out: Out = self.net({n: s if s.t is None else replace(s, t=mapped(s.t)) for n, s in streams.items()}, cond, call)
        return out

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
