"""Sampling's twin of an objective: a Process says which evaluations it needs next and how their results change the run.

    run = init(request, rows);  while not done(run): run = update(run, evaluate(calls(run)), rows)

One step is a pure function of the run, so it can be differentiated, checkpointed, resumed and tested alone. Lanes are named
evaluations (cond, uncond, reference, source, ...), each with its own input, noise level, condition and Call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from .call import Call
from .conditions import Conditions
from .rng import Rows
from .state import Stream


@dataclass(frozen=True)
class NetCall:
    """One evaluation: every input stream, each with its own noise level and known tokens, under `cond`."""

    streams: Mapping[str, Stream]
    cond: Conditions
    call: Call = field(default_factory=Call)


Request = TypeVar("Request", contravariant=True)
Run = TypeVar("Run")


class Process(Protocol[Request, Run]):
    """ODE and SDE solvers, few-step re-noising, confidence decoding, autoregression and nested heads all have this shape.

    `update` receives, by lane, whatever the evaluator made of the NetCalls (a prediction, logits, features).
    """

    def init(self, request: Request, rows: Rows) -> Run: ...

    def calls(self, run: Run) -> Mapping[str, NetCall]: ...

    def update(self, run: Run, outs: Mapping[str, Any], rows: Rows) -> Run: ...

    def done(self, run: Run) -> bool: ...


Evaluate = Callable[[Mapping[str, NetCall]], Mapping[str, Any]]


def finish(process: Process[Any, Run], run: Run, rows: Rows, evaluate: Evaluate) -> Run:
    """`run` carried on to its end. A process nested in another's `update` is driven so, with `rows.within(...)` of its own."""
    while not process.done(run):
        run = process.update(run, evaluate(process.calls(run)), rows)
    return run
