"""What a scheduler config says here, and the form in which each class of diffusers tells it: a table of its fields, read and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ....core.denoiser import Meaning
from ....core.errors import ConfigError, UnknownNameError
from ....sampling.schedules import Layout

# What a config keeps of the scheduler that the pipeline was first published with, where its own class does not know it.
LEFT_OVER = frozenset({"skip_prk_steps", "clip_sample", "set_alpha_to_one", "sample_max_value"})
# Fields of several classes. Thresholding alone reads the second.
PLAIN = {"trained_betas": None, "thresholding": False}
THRESHOLD = {"dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
OTHER_SIGMAS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}


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

    `reads(said, even)`: what the used fields say; see `read`.   `writes(scheduler)`: fields that say it, of which the used ones count.
    `stated`: fixed fields that a config has to name, for diffusers' own default is another value.
    """

    used: Mapping[str, Any]
    fixed: Mapping[str, Any]
    idle: Mapping[str, Any]
    reads: Callable[[Mapping[str, Any], bool], Scheduler]
    writes: Callable[[Scheduler], Mapping[str, Any]]
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

    def config(self, name: str, scheduler: Scheduler) -> dict[str, Any]:
        """A whole scheduler_config.json of the class `name`."""
        said = {field: value for field, value in self.writes(scheduler).items() if field in self.used}
        return {"_class_name": name, **self.idle, **self.fixed, **self.used, **said}
