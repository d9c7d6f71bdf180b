"""The times that a model is walked through, and where each number came from: read off a pipeline's configs, without its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..backbones.checkpoints.folder import read_shape
from ..core.config import to_dict
from ..core.denoiser import Meaning
from ..core.discrete import Betas
from ..core.paths import path
from ..core.weights import read_json
from ..sampling.schedules import Layout
from .components import codec_factor
from .folder import find, is_published, network_folder, read_record
from .settings import Defaults, by, walk_times


@dataclass(frozen=True)
class Stop:
    """A place on the walk: t, x = alpha x0 + sigma eps, half the log-SNR, what the network is told (None where it is not asked), and the
    step of a discrete schedule that this is.
    """

    t: float
    alpha: float
    sigma: float
    half_log_snr: float
    told: float | None
    step: float | None


@dataclass(frozen=True)
class Timetable:
    """`stops`: from noise to where the last step lands. `origins`: (what, its value, where it came from)."""

    model: str
    stops: tuple[Stop, ...]
    origins: tuple[tuple[str, str, str], ...]

    def record(self) -> dict[str, Any]:
        """JSON-ready; infinities become None."""
        stops = [{n: v if v is None or math.isfinite(v) else None for n, v in vars(stop).items()} for stop in self.stops]
        return {
            "model": self.model,
            "stops": stops,
            "origins": [dict(zip(("what", "value", "from"), o, strict=True)) for o in self.origins],
        }


def timetable(
    name_or_dir: str | Path,
    steps: int | None = None,
    size: tuple[int, int] | None = None,
    shift: float | None = None,
    layout: Layout | None = None,
) -> Timetable:
    """The times of a model, by shipped name or folder; what is None is the model's own. Raises as `load` and a call of the pipeline do."""
    folder = find(name_or_dir)
    index = read_json(folder / "model_index.json")
    network = network_folder(folder)
    _, _, shape = read_shape(network)
    factor = codec_factor(read_json(folder / "vae" / "config.json"))
    if is_published(folder, index):
        from .published.folder import network_meaning, published_defaults, read_settled
        from .published.kinds import class_name, kind

        made_of, files = read_settled(folder, index, kind(class_name(index)))
        meaning, said = network_meaning(made_of, files.scheduler), "scheduler/scheduler_config.json"
        defaults = published_defaults(made_of, files, factor)
        home = f"as {index['_class_name']} was released"
    else:
        record = read_record(folder)
        meaning, defaults, said = record.meaning, record.defaults, "sfumato.json: defaults"
        home = said
    patch = factor * int(getattr(shape, "patch", 1))
    asked = {"steps": steps, "size": size, "shift": shift, "layout": layout}
    defaults = defaults if layout is None else replace(defaults, layout=layout)
    steps, size = defaults.steps if steps is None else steps, defaults.drawn_at(size or defaults.size, patch)[1]
    used = defaults.own_shift(size, patch) if shift is None else shift
    stops = _stops(meaning, walk_times(defaults.layout, steps, used, meaning.path))

    def source(name: str, own: str) -> str:
        return own if asked[name] is None else f"--{name}"

    origins = [
        ("steps", str(steps), source("steps", home)),
        ("size", by(size), source("size", f"{network.name}/config.json: sample_size" if home != said else said)),
        ("path", _path(meaning), said if home != said else "sfumato.json: meaning"),
        ("layout", _layout(defaults.layout), source("layout", said)),
        ("solver", defaults.solver, said),
    ]
    if not defaults.layout.discrete:
        origins.insert(3, ("shift", f"{used:.6g}", source("shift", _why(defaults, size, patch, said))))
    return Timetable(folder.name, stops, tuple(origins))


def _stops(meaning: Meaning, times: torch.Tensor) -> tuple[Stop, ...]:
    walked = path(meaning.path)
    alpha, sigma, told = (f(times).tolist() for f in (walked.alpha, walked.sigma, meaning.network_time))
    steps = meaning.path.step(times).tolist() if isinstance(meaning.path, Betas) else [None] * len(times)
    # Nothing is evaluated where the walk ends; the data is no step.
    asked = [True] * (len(times) - 1) + [False]
    return tuple(
        Stop(t, a, s, math.inf if s == 0 else -math.inf if a == 0 else math.log(a / s), o if ask else None, k if t > 0 else None)
        for t, a, s, o, k, ask in zip(times.tolist(), alpha, sigma, told, steps, asked, strict=True)
    )


def _path(meaning: Meaning) -> str:
    if not isinstance(meaning.path, Betas):
        return f"{meaning.path}, predicts {meaning.prediction}"
    betas = meaning.path
    return f"{betas.curve} betas {betas.start:g} to {betas.end:g}, {betas.steps} steps, end {betas.terminal}; predicts {meaning.prediction}"


def _layout(layout: Layout) -> str:
    changed: Mapping[str, Any] = {n: v for n, v in to_dict(layout).items() if v != to_dict(Layout())[n] and n != "kind"}
    return ", ".join([layout.kind, *(f"{n} {v}" for n, v in changed.items())])


def _why(defaults: Defaults, size: tuple[int, int], patch: int, said: str) -> str:
    """Where a shift that nobody asked for comes from."""
    if defaults.layout.scaling == "tokens":
        return f"{said}: exp(mu) at {size[0] * size[1] // patch**2} tokens"
    if defaults.layout.scaling == "pixels" and size != defaults.size:
        return f"{said}: {defaults.shift:g} at {by(defaults.size)}, times sqrt of the pixels"
    return said
