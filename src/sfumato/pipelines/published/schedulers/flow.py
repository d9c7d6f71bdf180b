"""Schedulers of a flow: Euler, and the few-step one that noises its estimate again (LCM)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from ....core.denoiser import Meaning
from ....core.errors import ConfigError
from ....sampling.schedules import Layout
from .table import OTHER_SIGMAS, Scheduler, Table

_ENDS = ("base_image_seq_len", "base_shift", "max_image_seq_len", "max_shift")
_USED = {
    "shift": 1.0,
    "use_dynamic_shifting": False,
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
}
_FIXED = {
    **OTHER_SIGMAS,
    "num_train_timesteps": 1000,
    "invert_sigmas": False,
    "shift_terminal": None,
    "time_shift_type": "exponential",
}


def _euler(said: Mapping[str, Any], even: bool) -> Scheduler:
    if not said["use_dynamic_shifting"]:
        return Scheduler(Meaning(), Layout("paper" if even else "released", "fixed"), "euler", float(said["shift"]))
    if not even:
        raise ConfigError(
            "a shift that follows the size (use_dynamic_shifting) in a pipeline that leaves sigmas to its scheduler", "FLUX's does"
        )
    tokens = cast(tuple[float, float, float, float], tuple(float(said[end]) for end in _ENDS))
    return Scheduler(Meaning(), Layout("paper", "tokens", tokens), "euler")


def _written(scheduler: Scheduler) -> Mapping[str, Any]:
    low, base, high, most = scheduler.layout.tokens
    ends = dict(zip(_ENDS, (int(low), base, int(high), most), strict=True))
    return {"shift": scheduler.shift, "use_dynamic_shifting": scheduler.layout.scaling == "tokens", **ends}


EULER = Table(_USED, {**_FIXED, "stochastic_sampling": False}, {}, _euler, _written)
LCM = Table(
    _USED,
    {**_FIXED, "scale_factors": None},
    {"upscale_mode": "bicubic"},
    reads=lambda said, even: replace(_euler(said, even), solver="renoise"),
    writes=_written,
)
