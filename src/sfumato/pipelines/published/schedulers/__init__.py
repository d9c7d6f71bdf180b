"""diffusers' scheduler configs <-> what they mean here: the path, what is predicted, how times are laid out, the solver, the shift.

Every field is used, has to hold one value, or is idle while those do. One that a config leaves out has diffusers' default.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from ....core.errors import ConfigError, UnknownNameError
from . import discrete, dpm, flow
from .table import Scheduler, Table

__all__ = ["TABLES", "Scheduler", "Table", "read", "write"]

TABLES: Mapping[str, Table] = {
    "DPMSolverMultistepScheduler": dpm.DPM,
    "DDIMScheduler": discrete.DDIM,
    "EulerDiscreteScheduler": discrete.EULER,
    "PNDMScheduler": discrete.PNDM,
    "FlowMatchEulerDiscreteScheduler": flow.EULER,
    "FlowMatchLCMScheduler": flow.LCM,
    "UniPCMultistepScheduler": dpm.UNIPC,
}


def read(config: Mapping[str, Any], even: bool = False) -> Scheduler:
    """What a scheduler_config.json means. `even`: the pipeline hands evenly spaced sigmas to a flow's scheduler (FLUX's does; SD3's leaves
    them to it, which shifts twice). Raises `UnknownNameError` for a scheduler class, `ConfigError` for a field, that is not supported.
    """
    name = str(config.get("_class_name", "?"))
    if name not in TABLES:
        raise UnknownNameError("scheduler class", name, TABLES)
    return TABLES[name].reads(TABLES[name].checked(name, config), even)


def write(scheduler: Scheduler, names: Collection[str] = tuple(TABLES)) -> dict[str, Any]:
    """A scheduler_config.json that `read` gives back as `scheduler`, every field written, of the first class among `names` that draws so.

    Raises `ConfigError` where none does.
    """
    # A folder does not say how far DDIM goes: it is read as the paper has it, and drawn by diffusers with its own stride.
    wanted = replace(scheduler, layout=replace(scheduler.layout, stride="next"))
    for name in names:
        config = TABLES[name].config(name, scheduler)
        try:
            if read(config, even=wanted.layout.kind == "paper") == wanted:
                return config
        except ConfigError:  # this class has other fields fixed
            continue
    raise ConfigError(f"no scheduler of diffusers draws with {scheduler}", "save in sfumato's own format")
