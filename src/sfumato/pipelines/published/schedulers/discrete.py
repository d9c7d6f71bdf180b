"""Schedulers of a discrete schedule of betas: DDIM, PNDM without its Runge-Kutta steps (PLMS), Euler in sigmas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from ....core.denoiser import Meaning
from ....core.discrete import Betas
from ....core.errors import ConfigError
from ....core.paths import Prediction
from ....sampling.schedules import Layout
from .table import OTHER_SIGMAS, PLAIN, THRESHOLD, Scheduler, Table

PREDICTIONS: dict[str, Prediction] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
# The cap of squaredcos_cap_v2; beta_start and beta_end say nothing there.
SQUARED_COSINE = (0.0, 0.999)
BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "steps_offset": 0,
}


def meant(name: str, said: Mapping[str, Any], zero: Literal["zero", "tiny"] = "tiny") -> Meaning:
    """What the fields `BETAS` of a `name` mean; `zero`: what is computed with where betas are rescaled to a terminal SNR of zero."""
    if said["prediction_type"] not in PREDICTIONS:
        raise ConfigError(f"{name} with prediction_type = {said['prediction_type']!r}", f"one of {', '.join(PREDICTIONS)}")
    curve = said["beta_schedule"]
    ends = SQUARED_COSINE if curve == "squaredcos_cap_v2" else (float(said["beta_start"]), float(said["beta_end"]))
    terminal = zero if said.get("rescale_betas_zero_snr") else "trained"
    betas = Betas(curve, *ends, steps=said["num_train_timesteps"], terminal=terminal)
    return Meaning(PREDICTIONS[said["prediction_type"]], betas, "steps")


def spaced(said: Mapping[str, Any], to_data: bool, spare: bool = False) -> Layout:
    """The layout that timestep_spacing and steps_offset ask for."""
    kind = said["timestep_spacing"]
    if kind not in ("linspace", "leading", "trailing"):
        raise ConfigError(f"timestep_spacing is {kind!r}", "linspace, leading or trailing")
    # The other spacings do not read the offset, there as here.
    offset = said["steps_offset"] if kind == "leading" else 0
    return Layout(kind, offset=offset, spare=spare, end="data" if to_data else "first")


def written(scheduler: Scheduler) -> dict[str, Any]:
    """The fields that these classes share; none where `scheduler` walks no discrete schedule."""
    betas, layout = scheduler.meaning.path, scheduler.layout
    if not isinstance(betas, Betas):
        return {}
    return {
        "num_train_timesteps": betas.steps,
        "beta_start": betas.start,
        "beta_end": betas.end,
        "beta_schedule": betas.curve,
        "rescale_betas_zero_snr": betas.terminal != "trained",
        "prediction_type": {ours: theirs for theirs, ours in PREDICTIONS.items()}.get(scheduler.meaning.prediction),
        "timestep_spacing": layout.kind,
        "steps_offset": layout.offset,
        "set_alpha_to_one": layout.end == "data",
    }


def _ddim(said: Mapping[str, Any], even: bool) -> Scheduler:
    return Scheduler(meant("DDIMScheduler", said, "zero"), spaced(said, said["set_alpha_to_one"]), "euler")


DDIM = Table(
    used={**BETAS, "timestep_spacing": "leading", "set_alpha_to_one": True},
    fixed={**PLAIN, "clip_sample": False},
    idle={**THRESHOLD, "clip_sample_range": 1.0},
    reads=_ddim,
    writes=written,
    stated=frozenset({"clip_sample"}),
)


def _pndm(said: Mapping[str, Any], even: bool) -> Scheduler:
    meaning = meant("PNDMScheduler", said)
    if not said["skip_prk_steps"] or meaning.prediction != "eps":
        raise ConfigError(
            f"PNDMScheduler with skip_prk_steps = {said['skip_prk_steps']} and prediction_type = {said['prediction_type']!r}",
            "True and 'epsilon': other steps are not computed here",
        )
    return Scheduler(meaning, spaced({**said, "timestep_spacing": "leading"}, said["set_alpha_to_one"]), "plms")


PNDM = Table(
    used={**{k: v for k, v in BETAS.items() if "snr" not in k}, "set_alpha_to_one": False, "skip_prk_steps": False},
    # With the other spacings the next step is not the one it goes to.
    fixed={"trained_betas": None, "timestep_spacing": "leading"},
    idle={},
    reads=_pndm,
    writes=lambda scheduler: {**written(scheduler), "skip_prk_steps": True},
)


def _euler(said: Mapping[str, Any], even: bool) -> Scheduler:
    if said["timestep_spacing"] == "linspace":
        raise ConfigError("EulerDiscreteScheduler with timestep_spacing = 'linspace'", "leading or trailing: no fractional steps here")
    noise: Literal["bare", "scaled"] = "bare" if said["timestep_spacing"] == "leading" else "scaled"
    return Scheduler(meant("EulerDiscreteScheduler", said), replace(spaced(said, to_data=True), noise=noise), "euler")


EULER = Table(
    used={**BETAS, "timestep_spacing": "linspace"},
    fixed={
        "trained_betas": None,
        "final_sigmas_type": "zero",
        **OTHER_SIGMAS,
        "interpolation_type": "linear",
        "timestep_type": "discrete",
        "sigma_min": None,
        "sigma_max": None,
    },
    idle={},
    reads=_euler,
    writes=written,
)
