"""DPM-Solver++ (arXiv 2211.01095) on a discrete schedule or on a flow, and UniPC (arXiv 2302.04867) on a flow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ....core.denoiser import Meaning
from ....core.errors import ConfigError
from ....sampling.schedules import Layout
from .discrete import BETAS, meant, spaced, written
from .table import OTHER_SIGMAS, PLAIN, THRESHOLD, Scheduler, Table

_NAME = "DPMSolverMultistepScheduler"


def _dpm(said: Mapping[str, Any], even: bool) -> Scheduler:
    if said["use_flow_sigmas"]:
        return _dpm_on_a_flow(said)
    meaning, to_data = meant(_NAME, said), said["final_sigmas_type"] == "zero"
    if not to_data and (said["euler_at_final"] or not said["lower_order_final"]):
        raise ConfigError(
            f"{_NAME} to sigma_min with lower_order_final = {said['lower_order_final']} and euler_at_final = {said['euler_at_final']}",
            "True and False: below 15 steps the last one is of first order, else of second",
        )
    return Scheduler(meaning, spaced(said, to_data, spare=True), _solver(said))


def _dpm_on_a_flow(said: Mapping[str, Any]) -> Scheduler:
    """Betas, spacing and offset say nothing then; where it ends at the data, its last step is of first order."""
    needed = {"prediction_type": "flow_prediction", "final_sigmas_type": "zero", "num_train_timesteps": 1000}
    for field, value in needed.items():
        if said[field] != value:
            raise ConfigError(f"{_NAME} with use_flow_sigmas and {field} = {said[field]!r}", f"only {value!r} is computed here")
    return Scheduler(Meaning(), Layout("late", "fixed"), _solver(said), float(said["flow_shift"]))


def _solver(said: Mapping[str, Any]) -> str:
    if said["solver_order"] not in (1, 2):
        raise ConfigError(f"{_NAME} with solver_order = {said['solver_order']}", "1 or 2")
    return "dpm++2m" if said["solver_order"] == 2 else "euler"


def _dpm_written(scheduler: Scheduler) -> Mapping[str, Any]:
    order = {"solver_order": 2 if scheduler.solver == "dpm++2m" else 1}
    if scheduler.layout.kind == "late":
        return {**order, "prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": scheduler.shift}
    return {**written(scheduler), **order, "final_sigmas_type": "zero" if scheduler.layout.end == "data" else "sigma_min"}


DPM = Table(
    used={
        **BETAS,
        "timestep_spacing": "linspace",
        "solver_order": 2,
        "lower_order_final": True,
        "euler_at_final": False,
        "final_sigmas_type": "zero",
        "use_flow_sigmas": False,
        "flow_shift": 1.0,
    },
    fixed={
        **PLAIN,
        **OTHER_SIGMAS,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "use_lu_lambdas": False,
        "use_dynamic_shifting": False,
        "lambda_min_clipped": -math.inf,
        "variance_type": None,
    },
    idle={**THRESHOLD, "time_shift_type": "exponential"},
    reads=_dpm,
    writes=_dpm_written,
)

UNIPC = Table(
    used={"flow_shift": 1.0},
    fixed={
        **PLAIN,
        **OTHER_SIGMAS,
        "num_train_timesteps": 1000,
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "use_dynamic_shifting": False,
        "shift_terminal": None,
        "final_sigmas_type": "zero",
        "solver_order": 2,
        "solver_type": "bh2",
        "solver_p": None,
        "predict_x0": True,
        "disable_corrector": [],
        "lower_order_final": True,
        "rescale_betas_zero_snr": False,
    },
    # On a flow neither betas nor the spacing of steps are read.
    idle={
        **THRESHOLD,
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "timestep_spacing": "linspace",
        "steps_offset": 0,
        "time_shift_type": "exponential",
        "sigma_min": None,
        "sigma_max": None,
    },
    reads=lambda said, even: Scheduler(Meaning(), Layout("below", "fixed"), "unipc", float(said["flow_shift"])),
    writes=lambda scheduler: {"flow_shift": scheduler.shift},
    stated=frozenset({"prediction_type", "use_flow_sigmas"}),
)
