"""A LoRA file as it lies on disk: its tensors and, where PEFT or diffusers wrote it, the config that alpha stands in."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..core.errors import WeightsError
from ..core.files import read_tensors
from ..core.weights import PICKLES, pickled, read_json

# As PEFT and diffusers name them in a folder.
IN_A_FOLDER = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")
METADATA = "lora_adapter_metadata"


@dataclass(frozen=True)
class Raw:
    """path: as the user named it.   file: the safetensors file there.   configs: PEFT's LoraConfig by component of a pipeline, "" where the
    file is of one alone.
    """

    path: str
    file: Path
    tensors: Mapping[str, Tensor]
    configs: Mapping[str, Mapping[str, Any]]

    def alpha(self, component: str, module: str, rank: int) -> float:
        """alpha of a component's module whose tensors do not say it: its config's, by its patterns where they match (as PEFT matches
        them), else the rank. With rank-stabilised scaling, the alpha that alpha / rank must have to be alpha / sqrt(rank).
        """
        config = self.configs.get(component, self.configs.get("", {}))
        patterns = config.get("alpha_pattern") or {}
        matching = (value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module))
        alpha = float(next(matching, config.get("lora_alpha", rank)))
        return alpha * rank**0.5 if config.get("use_rslora") else alpha


def read_raw(path: str | Path) -> Raw:
    """Read a file or a folder with one. Raises `WeightsError`: missing, pickled, damaged, or a config that is not a plain LoRA's."""
    file = file_of(path)
    if not file.is_file():
        raise WeightsError(f"there is no LoRA file {path}", "name a .safetensors file, or a folder that PEFT or diffusers saved one in")
    if file.suffix in PICKLES:
        raise pickled(file)
    tensors = read_tensors(file)
    if not tensors:
        raise WeightsError(f"{file} is empty", "train or fetch it again")
    return Raw(str(path), file, tensors, _configs(file))


def file_of(path: str | Path) -> Path:
    """The file itself, or the one in a folder of PEFT's or diffusers'. Raises `WeightsError` for a folder without one or with several."""
    path = Path(path)
    if not path.is_dir():
        return path
    inside = sorted(path.glob("*.safetensors"))
    named = [path / name for name in IN_A_FOLDER if (path / name).is_file()]
    if named:
        return named[0]
    if len(inside) == 1:
        return inside[0]
    pickles = sorted(p for p in path.iterdir() if p.suffix in PICKLES)
    if not inside and pickles:
        return pickles[0]
    held = f"{len(inside)} .safetensors files" if inside else "no .safetensors file"
    raise WeightsError(f"the folder {path} holds {held}", f"name the file itself, or a folder with {' or '.join(IN_A_FOLDER)}")


def _configs(file: Path) -> dict[str, dict[str, Any]]:
    """PEFT's config beside its file, or those that diffusers puts into a file's header, by component."""
    beside = file.parent / "adapter_config.json"
    if file.name == IN_A_FOLDER[0] and beside.is_file():
        configs = {"": read_json(beside)}
    else:
        try:
            header = json.loads(_header(file).get(METADATA, "{}"))
            configs = {}
            for key, value in header.items():
                component, dot, name = key.partition(".")
                configs.setdefault(component if dot else "", {})[name if dot else key] = value
        except (ValueError, AttributeError) as error:
            raise WeightsError(f"damaged file {file}: its {METADATA} is no JSON object", "fetch it again") from error
    for config in configs.values():
        _check(config, file)
    return configs


def _check(config: Mapping[str, Any], file: Path) -> None:
    """Raise `WeightsError` for a config that is not a plain LoRA's."""
    for name, plain, what in (
        ("peft_type", ("LORA", None), "an adapter of another kind"),
        ("use_dora", (False, None), "DoRA, which also rescales the base weight"),
        ("fan_in_fan_out", (False, None), "made for transposed weights"),
        ("use_qalora", (False, None), "QALoRA, whose A reads pooled inputs"),
        ("alora_invocation_tokens", (None,), "an adapter that acts after certain words only"),
    ):
        if config.get(name) not in plain:
            raise WeightsError(f"{file} is {what} ({name} is {config[name]!r})", "plain LoRA is what is computed here")
    patterns = config.get("alpha_pattern") or {}
    alphas = [config.get("lora_alpha", 0), *(patterns.values() if isinstance(patterns, dict) else "?")]
    if not all(isinstance(alpha, int | float) and math.isfinite(alpha) for alpha in alphas) or not all(map(_is_pattern, patterns)):
        raise WeightsError(
            f"damaged config of {file}: its alphas are {alphas}", "a finite number each, by patterns that are regular expressions"
        )


def _is_pattern(text: str) -> bool:
    try:
        return re.compile(text) is not None
    except re.error:
        return False


def _header(file: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        return dict(opened.metadata() or {})
