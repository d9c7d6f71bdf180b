"""Checkpoints: one folder a step, complete or absent. Tensors in safetensors, everything else in JSON; nothing is pickled."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..core.errors import OutputError, WeightsError
from ..core.files import write_json
from .ema import Ema

Optimizers = dict[str, list[torch.optim.Optimizer]]


def save(folder: Path, step: int, modules: dict[str, nn.Module], emas: dict[str, Ema], optimizers: Optimizers, keep: int = 2) -> Path:
    """Write `folder/step-N` atomically and drop all but the newest `keep`. Raises `OutputError` on a full or read-only disk."""
    final, part = folder / f"step-{step:08d}", folder / f".step-{step:08d}.part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name, module in modules.items():
            save_file({n: t.detach().contiguous() for n, t in module.state_dict().items()}, part / f"{name}.safetensors")
        for name, ema in emas.items():
            save_file({n: t.contiguous() for n, t in ema.shadow.items()}, part / f"{name}.ema.safetensors")
        tensors, scalars = _flatten(optimizers)
        save_file(tensors | {"torch_rng": torch.get_rng_state()}, part / "optimizers.safetensors")
        write_json(part / "state.json", {"step": step, "optimizers": scalars})
        shutil.rmtree(final, ignore_errors=True)
        os.replace(part, final)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise OutputError(
            f"cannot write checkpoint {final}: {error}", "the last complete checkpoint is kept; free space and resume"
        ) from error
    for old in existing(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def existing(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(p for p in folder.glob("step-*") if (p / "state.json").is_file())


def load(checkpoint: Path, modules: dict[str, nn.Module], emas: dict[str, Ema], optimizers: Optimizers) -> int:
    """Restore everything in place; the step to go on from is returned. Raises `WeightsError` where a tensor is missing or misshapen."""
    try:
        state = json.loads((checkpoint / "state.json").read_text())
        for name, module in modules.items():
            module.load_state_dict(load_file(checkpoint / f"{name}.safetensors"), strict=True)
        for name, ema in emas.items():
            saved = load_file(checkpoint / f"{name}.ema.safetensors")
            for key, tensor in ema.shadow.items():
                tensor.copy_(saved[key])
        tensors = load_file(checkpoint / "optimizers.safetensors")
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise WeightsError(
            f"checkpoint {checkpoint} does not fit this run: {error}", "resume with the configuration it was made by"
        ) from error
    torch.set_rng_state(tensors.pop("torch_rng"))
    _restore(optimizers, tensors, state["optimizers"])
    return int(state["step"])


def _flatten(optimizers: Optimizers) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for phase, members in optimizers.items():
        for number, optimizer in enumerate(members):
            for index, state in optimizer.state_dict()["state"].items():
                for key, value in state.items():
                    name = f"{phase}.{number}.{index}.{key}"
                    if isinstance(value, Tensor):
                        tensors[name] = value.detach().contiguous()
                    else:
                        scalars[name] = value
    return tensors, scalars


def _restore(optimizers: Optimizers, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
    states: dict[tuple[str, int], dict[int, dict[str, Any]]] = {}
    for name, value in (tensors | scalars).items():
        phase, number, index, key = name.split(".", 3)
        states.setdefault((phase, int(number)), {}).setdefault(int(index), {})[key] = value
    for (phase, number), state in states.items():
        optimizer = optimizers[phase][number]
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
