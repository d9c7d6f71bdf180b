"""The one training loop. It owns devices, precision, accumulation, clipping, EMA, checkpoints, resume, logs and sample pictures;
what is trained, and on which loss, is a Task (`core/task.py`).

A run is a pure function of its config: batches and random numbers are keyed by the step, so a run that was interrupted and resumed
gives the same weights, bit for bit, as one that was not (tests/training/test_resume.py).
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ..core.config import to_dict
from ..core.errors import CancelledError, ConfigError, NonFiniteError
from ..core.files import write_json
from ..core.rng import Draws
from ..core.task import Loss, Phase, Task
from . import checkpoints
from .batches import Stream
from .ema import Ema
from .optimizers import OptimizerConfig, build, set_rate


@dataclass(frozen=True)
class TrainConfig:
    """Steps count optimizer steps of the first phase; `accumulate` micro-batches make one step. `clip`: largest gradient norm, 0 = off.

    `ema`: decay, 0 = no average. `checkpoint_seconds`: wall time between checkpoints; `sample_every` steps between sample grids, 0 = none.
    """

    steps: int
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    accumulate: int = 1
    clip: float = 1.0
    ema: float = 0.999
    precision: Literal["bf16", "fp32"] = "bf16"
    device: str = "cpu"
    seed: int = 0
    log_every: int = 20
    sample_every: int = 0
    checkpoint_seconds: float = 180.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.accumulate < 1:
            raise ConfigError(f"steps is {self.steps} and accumulate {self.accumulate}", "both are at least 1")
        if self.log_every < 1 or self.clip < 0:
            raise ConfigError(f"log_every is {self.log_every} and clip {self.clip}", "at least 1 step, and a norm of 0 (off) or more")
        if not 0.0 <= self.ema < 1.0:
            raise ConfigError(f"ema is {self.ema}", "a decay in [0, 1)")


Sampler = Callable[[Path, int], None]


@dataclass
class Run:
    """A run's live state: what a checkpoint holds."""

    task: Task
    config: TrainConfig
    folder: Path
    modules: dict[str, nn.Module]
    optimizers: checkpoints.Optimizers
    emas: dict[str, Ema]
    step: int = 0

    def save(self) -> Path:
        return checkpoints.save(self.folder, self.step, self.modules, self.emas, self.optimizers)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside the block every trained module holds its averaged weights."""
        with contextlib.ExitStack() as stack:
            for name, ema in self.emas.items():
                stack.enter_context(ema.applied(self.modules[name]))
            yield

    def settle(self, net: nn.Module) -> None:
        """Give a trained `net` its averaged weights, through fp16 once, so that what is measured is what is saved."""
        with self.averaged():
            halved = {n: t.half().to(t.dtype) if t.is_floating_point() else t.clone() for n, t in net.state_dict().items()}
        net.load_state_dict(halved)
        net.eval()


def prepare(task: Task, config: TrainConfig, folder: Path) -> Run:
    """Place modules, build optimizers and averages, and restore the newest checkpoint in `folder` if there is one."""
    modules = {name: module.to(config.device) for name, module in task.modules.items()}
    phases = task.phases(0)
    trained = sorted({name for phase in phases for name in phase.trains})
    for name, module in modules.items():
        module.requires_grad_(name in trained).train(name in trained)
    optimizers = {phase.name: build([modules[n] for n in phase.trains], config.optimizer) for phase in phases}
    emas = {name: Ema(modules[name], config.ema) for name in trained} if config.ema else {}
    run = Run(task, config, folder, {n: modules[n] for n in trained}, optimizers, emas)
    if found := checkpoints.existing(folder):
        run.step = checkpoints.load(found[-1], run.modules, run.emas, optimizers)
    return run


def train(
    task: Task, data: Mapping[str, Stream], config: TrainConfig, folder: Path, sampler: Sampler | None = None, quiet: bool = False
) -> Run:
    """Train `task` for `config.steps` steps, resuming from `folder` when it holds a checkpoint. Returns the finished Run.

    `sampler(folder, step)` draws sample pictures with the averaged weights. Raises `NonFiniteError` naming step and phase when a
    loss or gradient is not finite (the last checkpoint is from before it), `CancelledError` after Ctrl-C (a checkpoint is written).
    """
    run = prepare(task, config, folder)
    write_json(folder / "config.json", {"task": type(task).__name__, **to_dict(config)})
    saved = time.monotonic()
    with _interruptible() as interrupted, _reporter(run, quiet) as report:
        while run.step < config.steps:
            carries: list[dict[str, Any]] = [{} for _ in range(config.accumulate)]
            metrics: dict[str, float] = {}
            for phase in task.phases(run.step):
                if run.step % phase.every == 0:
                    metrics |= _phase_step(run, phase, data[phase.data], carries)
            run.step += 1
            for name, ema in run.emas.items():
                ema.update(run.modules[name], run.step)
            report(metrics)
            if sampler and config.sample_every and run.step % config.sample_every == 0:
                _sample(run, sampler)
            if interrupted():
                raise CancelledError(f"stopped at step {run.step}; checkpoint {run.save()}", "run the same command to go on")
            if time.monotonic() - saved > config.checkpoint_seconds:
                run.save()
                saved = time.monotonic()
    run.save()
    return run


def _phase_step(run: Run, phase: Phase, stream: Stream, carries: list[dict[str, Any]]) -> dict[str, float]:
    config, device = run.config, torch.device(run.config.device)
    for name, module in run.task.modules.items():
        module.requires_grad_(name in phase.trains)
    if phase.name not in run.optimizers:
        raise ConfigError(f"phase {phase.name!r} first appears at step {run.step}", "name it in phases(0): optimizers are made from that")
    optimizers = run.optimizers[phase.name]
    sums: dict[str, torch.Tensor] = {}
    for micro, carry in enumerate(carries):
        batch = {k: _move(v, device) for k, v in stream.batch(run.step * config.accumulate + micro).items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            loss = run.task.loss(phase, batch, carry, Draws(config.seed, run.step, micro))
        _finite(loss, phase, run.step, config.precision)
        (loss.total / config.accumulate).backward()
        for key, value in {"loss": loss.total, **loss.metrics}.items():
            sums[key] = sums.get(key, torch.zeros(())) + value.detach().float().cpu() / config.accumulate
    parameters = [p for name in phase.trains for p in run.modules[name].parameters()]
    norm = nn.utils.clip_grad_norm_(parameters, config.clip or float("inf"))
    if not torch.isfinite(norm):
        raise NonFiniteError(f"the gradient of phase {phase.name!r} is {norm.item()} at step {run.step} ({config.precision})")
    set_rate(optimizers, config.optimizer.factor(run.step, config.steps))
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return {f"{phase.name}/{k}": float(v) for k, v in sums.items()} | {f"{phase.name}/grad_norm": float(norm)}


def _finite(loss: Loss, phase: Phase, step: int, precision: str) -> None:
    if not torch.isfinite(loss.total):
        parts = ", ".join(f"{k} {float(v.detach()):.4g}" for k, v in loss.metrics.items())
        total = float(loss.total.detach())
        raise NonFiniteError(
            f"the loss of phase {phase.name!r} is {total} at step {step} ({precision}; {parts})", "lower the learning rate"
        )


def _move(value: Any, device: torch.device) -> Any:
    return value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value


def _sample(run: Run, sampler: Sampler) -> None:
    training = {name: module.training for name, module in run.modules.items()}
    with run.averaged(), torch.no_grad():
        for module in run.modules.values():
            module.eval()
        sampler(run.folder, run.step)
    for name, module in run.modules.items():
        module.train(training[name])


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM set a flag that the loop reads between steps, so a step is never cut in half."""
    stopped: list[int] = []
    before = {}
    # Signals can be handled in the main thread only; elsewhere the caller's own handling stands.
    with contextlib.suppress(ValueError):
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, lambda received, frame: stopped.append(received))
    try:
        yield lambda: bool(stopped)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _reporter(run: Run, quiet: bool) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """A progress line on the terminal and TensorBoard scalars in `folder/logs`; values between logs are averaged."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run.folder / "logs"))
    window: dict[str, list[float]] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=quiet, refresh_per_second=1) as progress:
        line = progress.add_task("train", total=run.config.steps, completed=run.step)

        def report(metrics: Mapping[str, float]) -> None:
            for key, value in metrics.items():
                window.setdefault(key, []).append(value)
            progress.update(line, completed=run.step)
            if run.step % run.config.log_every == 0:
                means = {k: sum(v) / len(v) for k, v in window.items()}
                for key, value in means.items():
                    writer.add_scalar(key, value, run.step)
                progress.update(line, description=" ".join(f"{k.split('/')[-1]} {v:.4f}" for k, v in list(means.items())[:3]))
                window.clear()

        yield report
    writer.close()
