"""What one kind of training asks of the loop: which modules train in which phase, and the loss of a batch.

A Task never writes a loop, moves a device, steps an optimizer or saves a file: `training/loop.py` owns all of that, for every Task.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from .rng import Draws

Batch = Mapping[str, Any]


@dataclass(frozen=True)
class Phase:
    """One optimizer step's worth of work: the modules named in `trains` learn, everything else is frozen.

    `data` names the batch stream to read; `every` = n runs the phase on each n-th step (DMD2's slow generator).
    Every phase a task will ever run appears in `phases(0)`: optimizers are made from it.
    """

    name: str
    trains: tuple[str, ...]
    data: str = "train"
    every: int = 1


@dataclass(frozen=True)
class Loss:
    """`total`: the scalar to minimise. `metrics`: scalars to log, detached by the loop."""

    total: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


class Task(Protocol):
    """`modules`: every network the Task touches, by name, trained or frozen.

    `phases(step)`: what runs at this step, in order. `loss(phase, batch, carry, draws)`: the loss of one micro-batch; `carry`
    passes values (a generated image, say) from one phase of a step to the next; each micro-batch has its own, empty at the step's start.
    """

    @property
    def modules(self) -> Mapping[str, nn.Module]: ...

    def phases(self, step: int) -> Sequence[Phase]: ...

    def loss(self, phase: Phase, batch: Batch, carry: MutableMapping[str, Any], draws: Draws) -> Loss: ...
