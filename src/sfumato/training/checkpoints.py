"""Checkpoints: one folder a step, complete or absent. Tensors in safetensors, everything else in JSON; nothing is pickled."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import OutputError, SfumatoError, WeightsError
from ..core.files import read_tensors, sha256, verify, write_json, write_tensors
from .ema import Ema

Optimizers = dict[str, list[torch.optim.Optimizer]]


def save(folder: Path, step: int, modules: dict[str, nn.Module], emas: dict[str, Ema], optimizers: Optimizers, keep: int = 2) -> Path:
    """Write `folder/step-N` atomically and drop all but the newest `keep`. Raises `OutputError` on a full or read-only disk."""
    final, part = folder / f"step-{step:08d}", folder / f".step-{step:08d}.part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name, module in modules.items():
            write_tensors(part / f"{name}.safetensors", module.state_dict())
        for name, ema in emas.items():
            write_tensors(part / f"{name}.ema.safetensors", ema.shadow)
        tensors, scalars = _flatten(optimizers)
        write_tensors(part / "optimizers.safetensors", tensors | {"torch_rng": torch.get_rng_state()})
        checksums = {p.name: sha256(p) for p in sorted(part.glob("*.safetensors"))}
        write_json(part / "state.json", {"step": step, "optimizers": scalars, "checksums": checksums})
        shutil.rmtree(final, ignore_errors=True)
        os.replace(part, final)
    except (OSError, OutputError) as error:
        raise OutputError(
            f"cannot write checkpoint {final}: {error}", "the last complete checkpoint is kept; free space and resume"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    for old in existing(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def existing(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(p for p in folder.glob("step-*") if (p / "state.json").is_file())


def load(checkpoint: Path, modules: dict[str, nn.Module], emas: dict[str, Ema], optimizers: Optimizers) -> int:
    """Restore everything in place and return the step to go on from; `WeightsError` where a tensor is missing, misshapen or damaged."""
    try:
        state = json.loads((checkpoint / "state.json").read_text())
        for file, expected in state.get("checksums", {}).items():
            verify(checkpoint / file, expected)
        for name, module in modules.items():
            module.load_state_dict(read_tensors(checkpoint / f"{name}.safetensors"), strict=True)
        for name, ema in emas.items():
            saved = read_tensors(checkpoint / f"{name}.ema.safetensors")
            for key, tensor in ema.shadow.items():
                tensor.copy_(saved[key])
        tensors = read_tensors(checkpoint / "optimizers.safetensors")
        random = tensors.pop("torch_rng")
        _restore(optimizers, tensors, state["optimizers"])
    except SfumatoError:
        raise
    except (OSError, KeyError, IndexError, RuntimeError, ValueError) as error:
        raise WeightsError(
            f"checkpoint {checkpoint} does not fit this run: {error}", "resume with the configuration it was made by"
        ) from error
    torch.set_rng_state(random)
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
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for index, parts in state.items():
            parts |= {key: _placed(value, parameters[index]) for key, value in parts.items() if isinstance(value, Tensor)}
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _placed(moment: Tensor, parameter: nn.Parameter) -> Tensor:
    """A parameter's moment in that parameter's memory layout: fused optimizers walk both as flat memory, channels last included."""
    if not moment.ndim:
        return moment
    if moment.shape != parameter.shape:
        raise ValueError(f"an optimizer moment is {tuple(moment.shape)} and its parameter {tuple(parameter.shape)}")
    return torch.empty_like(parameter, dtype=moment.dtype, requires_grad=False).copy_(moment)
