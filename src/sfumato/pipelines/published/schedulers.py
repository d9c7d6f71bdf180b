"""diffusers' scheduler configs <-> what they mean here: the path, what is predicted, how times are laid out, the solver, the shift.

Every field is used, has to hold one value, or is idle while those do. One that a config leaves out has diffusers' default.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from ...core.denoiser import Meaning
from ...core.discrete import Betas
from ...core.errors import ConfigError, UnknownNameError
from ...core.paths import Prediction
from ...sampling.schedules import Layout

PREDICTIONS: dict[str, Prediction] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
# What a config keeps of the scheduler that the pipeline was first published with, where its own class does not know it.
LEFT_OVER = frozenset({"skip_prk_steps", "clip_sample", "set_alpha_to_one", "sample_max_value"})
# The cap of squaredcos_cap_v2; beta_start and beta_end say nothing there.
SQUARED_COSINE = (0.0, 0.999)


@dataclass(frozen=True)
class Scheduler:
    """What a scheduler config says. `meaning`: of a discrete schedule; a flow's network itself says which way it counts and points, and
    `layout.whole` whether diffusers tells it thousandths of its time.
    """

    meaning: Meaning
    layout: Layout
    solver: str
    shift: float = 1.0


@dataclass(frozen=True)
class Table:
    """One scheduler class: `used` and `idle` fields with diffusers' defaults, and `fixed` ones with the only value computed here.

    `stated`: fixed fields that a config has to name, for diffusers' own default is another value.
    """

    used: Mapping[str, Any]
    fixed: Mapping[str, Any]
    idle: Mapping[str, Any]
    stated: frozenset[str] = frozenset()

    def checked(self, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """The used fields. Raises `ConfigError` for an unknown field and for a value that nothing here computes with."""
        known = {**self.used, **self.fixed, **self.idle}
        for field, value in config.items():
            if field.startswith("_") or (field in LEFT_OVER and field not in known):
                continue
            if field not in known:
                raise ConfigError(UnknownNameError(f"field of a {name} config", field, known).args[0])
            if field in self.fixed and value != self.fixed[field]:
                raise ConfigError(f"{name} with {field} = {value!r}", f"only {self.fixed[field]!r} is computed here")
        if silent := sorted(self.stated - config.keys()):
            raise ConfigError(f"{name} without {silent[0]}", f"say {self.fixed[silent[0]]!r}: diffusers' default is not computed here")
        return {field: config.get(field, default) for field, default in self.used.items()}


_BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "steps_offset": 0,
}
_PLAIN = {"trained_betas": None, "thresholding": False}
# Read by thresholding alone.
_THRESHOLD = {"dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
_OTHER_SIGMAS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}

_SHIFTED = {
    "shift": 1.0,
    "use_dynamic_shifting": False,
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
}
_FLOW_FIXED = {
    **_OTHER_SIGMAS,
    "num_train_timesteps": 1000,
    "invert_sigmas": False,
    "shift_terminal": None,
    "time_shift_type": "exponential",
}

TABLES = {
    "DPMSolverMultistepScheduler": Table(
        used={
            **_BETAS,
            "timestep_spacing": "linspace",
            "solver_order": 2,
            "lower_order_final": True,
            "euler_at_final": False,
            "final_sigmas_type": "zero",
            "use_flow_sigmas": False,
            "flow_shift": 1.0,
        },
        fixed={
            **_PLAIN,
            **_OTHER_SIGMAS,
            "algorithm_type": "dpmsolver++",
            "solver_type": "midpoint",
            "use_lu_lambdas": False,
            "use_dynamic_shifting": False,
            "lambda_min_clipped": -math.inf,
            "variance_type": None,
        },
        idle={**_THRESHOLD, "time_shift_type": "exponential"},
    ),
    "DDIMScheduler": Table(
        used={**_BETAS, "timestep_spacing": "leading", "set_alpha_to_one": True},
        fixed={**_PLAIN, "clip_sample": False},
        idle={**_THRESHOLD, "clip_sample_range": 1.0},
        stated=frozenset({"clip_sample"}),
    ),
    "EulerDiscreteScheduler": Table(
        used={**_BETAS, "timestep_spacing": "linspace"},
        fixed={
            "trained_betas": None,
            "final_sigmas_type": "zero",
            **_OTHER_SIGMAS,
            "interpolation_type": "linear",
            "timestep_type": "discrete",
            "sigma_min": None,
            "sigma_max": None,
        },
        idle={},
    ),
    "PNDMScheduler": Table(
        used={**{k: v for k, v in _BETAS.items() if "snr" not in k}, "set_alpha_to_one": False, "skip_prk_steps": False},
        # With the other spacings the next step is not the one it goes to.
        fixed={"trained_betas": None, "timestep_spacing": "leading"},
        idle={},
    ),
    "FlowMatchEulerDiscreteScheduler": Table(_SHIFTED, {**_FLOW_FIXED, "stochastic_sampling": False}, {}),
    "FlowMatchLCMScheduler": Table(_SHIFTED, {**_FLOW_FIXED, "scale_factors": None}, {"upscale_mode": "bicubic"}),
    "UniPCMultistepScheduler": Table(
        used={"flow_shift": 1.0},
        fixed={
            **_PLAIN,
            **_OTHER_SIGMAS,
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
            **_THRESHOLD,
            "beta_start": 0.0001,
            "beta_end": 0.02,
            "beta_schedule": "linear",
            "timestep_spacing": "linspace",
            "steps_offset": 0,
            "time_shift_type": "exponential",
            "sigma_min": None,
            "sigma_max": None,
        },
        stated=frozenset({"prediction_type", "use_flow_sigmas"}),
    ),
}


def read(config: Mapping[str, Any], even: bool = False) -> Scheduler:
    """What a scheduler_config.json means. `even`: the pipeline hands evenly spaced sigmas to a flow's scheduler (FLUX's does; SD3's leaves
    them to it, which shifts twice). Raises `UnknownNameError` for a scheduler class, `ConfigError` for a field, that is not supported.
    """
    name = str(config.get("_class_name", "?"))
    if name not in TABLES:
        raise UnknownNameError("scheduler class", name, TABLES)
    said = TABLES[name].checked(name, config)
    if name == "FlowMatchEulerDiscreteScheduler":
        return _flow(said, even)
    if name == "FlowMatchLCMScheduler":
        return replace(_flow(said, even), solver="renoise")
    if name == "UniPCMultistepScheduler":
        return Scheduler(Meaning(), Layout("below", "fixed"), "unipc", float(said["flow_shift"]))
    if said.get("use_flow_sigmas"):
        return _late(name, said)
    if said["prediction_type"] not in PREDICTIONS:
        raise ConfigError(f"{name} with prediction_type = {said['prediction_type']!r}", f"one of {', '.join(PREDICTIONS)}")
    meaning = Meaning(PREDICTIONS[said["prediction_type"]], _schedule(name, said), "steps")
    if name == "DDIMScheduler":
        return Scheduler(meaning, _spacing(said, said["set_alpha_to_one"], spare=False), "euler")
    if name == "PNDMScheduler":
        if not said["skip_prk_steps"] or meaning.prediction != "eps":
            raise ConfigError(
                f"{name} with skip_prk_steps = {said['skip_prk_steps']} and prediction_type = {said['prediction_type']!r}",
                "True and 'epsilon': other steps are not computed here",
            )
        return Scheduler(meaning, Layout("leading", offset=said["steps_offset"], end=_end(said["set_alpha_to_one"])), "plms")
    if name == "EulerDiscreteScheduler":
        if said["timestep_spacing"] == "linspace":
            raise ConfigError(f"{name} with timestep_spacing = 'linspace'", "leading or trailing: fractional steps are not computed here")
        noise: Literal["bare", "scaled"] = "bare" if said["timestep_spacing"] == "leading" else "scaled"
        return Scheduler(meaning, replace(_spacing(said, True, spare=False), noise=noise), "euler")
    to_data = said["final_sigmas_type"] == "zero"
    if not to_data and (said["euler_at_final"] or not said["lower_order_final"]):
        raise ConfigError(
            f"{name} to sigma_min with lower_order_final = {said['lower_order_final']} and euler_at_final = {said['euler_at_final']}",
            "True and False: below 15 steps the last one is of first order, else of second",
        )
    return Scheduler(meaning, _spacing(said, to_data, spare=True), _order(name, said))


def _flow(said: Mapping[str, Any], even: bool) -> Scheduler:
    if not said["use_dynamic_shifting"]:
        return Scheduler(Meaning(), Layout("paper" if even else "released", "fixed"), "euler", float(said["shift"]))
    if not even:
        raise ConfigError(
            "a shift that follows the size (use_dynamic_shifting) in a pipeline that leaves sigmas to its scheduler", "FLUX's does"
        )
    ends = ("base_image_seq_len", "base_shift", "max_image_seq_len", "max_shift")
    tokens = cast(tuple[float, float, float, float], tuple(float(said[end]) for end in ends))
    return Scheduler(Meaning(), Layout("paper", "tokens", tokens), "euler")


def _late(name: str, said: Mapping[str, Any]) -> Scheduler:
    """DPM-Solver on a flow. Betas, spacing and offset say nothing then; where it ends at the data, its last step is of first order."""
    needed = {"prediction_type": "flow_prediction", "final_sigmas_type": "zero", "num_train_timesteps": 1000}
    for field, value in needed.items():
        if said[field] != value:
            raise ConfigError(f"{name} with use_flow_sigmas and {field} = {said[field]!r}", f"only {value!r} is computed here")
    return Scheduler(Meaning(), Layout("late", "fixed"), _order(name, said), float(said["flow_shift"]))


def _order(name: str, said: Mapping[str, Any]) -> str:
    if said["solver_order"] not in (1, 2):
        raise ConfigError(f"{name} with solver_order = {said['solver_order']}", "1 or 2")
    return "dpm++2m" if said["solver_order"] == 2 else "euler"


def _schedule(name: str, said: Mapping[str, Any]) -> Betas:
    curve = said["beta_schedule"]
    ends = SQUARED_COSINE if curve == "squaredcos_cap_v2" else (float(said["beta_start"]), float(said["beta_end"]))
    terminal: Literal["trained", "zero", "tiny"] = "trained"
    if said.get("rescale_betas_zero_snr"):
        terminal = "zero" if name == "DDIMScheduler" else "tiny"
    return Betas(curve, *ends, steps=said["num_train_timesteps"], terminal=terminal)


def _spacing(said: Mapping[str, Any], to_data: bool, spare: bool) -> Layout:
    kind = said["timestep_spacing"]
    if kind not in ("linspace", "leading", "trailing"):
        raise ConfigError(f"timestep_spacing is {kind!r}", "linspace, leading or trailing")
    # The other spacings do not read the offset, there as here.
    offset = said["steps_offset"] if kind == "leading" else 0
    return Layout(kind, offset=offset, spare=spare, end=_end(to_data))


def _end(to_data: bool) -> Literal["data", "first"]:
    return "data" if to_data else "first"


def write(scheduler: Scheduler, names: Collection[str] = tuple(TABLES)) -> dict[str, Any]:
    """A scheduler_config.json that `read` gives back as `scheduler`, every field written, of the first class among `names` that draws so.

    Raises `ConfigError` where none does.
    """
    # A folder does not say how far DDIM goes: it is read as the paper has it, and drawn by diffusers with its own stride.
    wanted = replace(scheduler, layout=replace(scheduler.layout, stride="next"))
    said = _written(scheduler) if isinstance(scheduler.meaning.path, Betas) else _written_flow(scheduler)
    for name in names:
        table = TABLES[name]
        config = {"_class_name": name, **table.idle, **table.fixed, **table.used, **{k: v for k, v in said.items() if k in table.used}}
        try:
            if read(config, even=wanted.layout.kind == "paper") == wanted:
                return config
        except ConfigError:  # this class has other fields fixed
            continue
    raise ConfigError(f"no scheduler of diffusers draws with {scheduler}", "save in sfumato's own format")


def _written_flow(scheduler: Scheduler) -> dict[str, Any]:
    layout, (low, base, high, most) = scheduler.layout, scheduler.layout.tokens
    said = {"shift": scheduler.shift, "use_dynamic_shifting": layout.scaling == "tokens", "base_shift": base, "max_shift": most}
    said |= {"base_image_seq_len": int(low), "max_image_seq_len": int(high), "flow_shift": scheduler.shift}
    solver = {"prediction_type": "flow_prediction", "solver_order": 2 if scheduler.solver == "dpm++2m" else 1}
    return said | {"use_flow_sigmas": layout.kind == "late", **solver}


def _written(scheduler: Scheduler) -> dict[str, Any]:
    betas, meaning, layout = scheduler.meaning.path, scheduler.meaning, scheduler.layout
    assert isinstance(betas, Betas)
    return {
        "num_train_timesteps": betas.steps,
        "beta_start": betas.start,
        "beta_end": betas.end,
        "beta_schedule": betas.curve,
        "rescale_betas_zero_snr": betas.terminal != "trained",
        "prediction_type": {ours: theirs for theirs, ours in PREDICTIONS.items()}.get(meaning.prediction),
        "timestep_spacing": layout.kind,
        "steps_offset": layout.offset,
        "solver_order": 2 if scheduler.solver == "dpm++2m" else 1,
        "skip_prk_steps": True,
        "final_sigmas_type": "zero" if layout.end == "data" else "sigma_min",
        "set_alpha_to_one": layout.end == "data",
    }
