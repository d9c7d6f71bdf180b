"""A transformer folder, ours or diffusers': config.json beside safetensors, one file or shards. Nothing in it is executed or unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ...core.config import from_dict
from ...core.denoiser import Denoiser
from ...core.errors import ConfigError, UnknownNameError
from ...core.files import refuse_overwrite, write_json, write_tensors
from ...core.memory import require_memory
from ...core.program import Network
from ...core.weights import WEIGHTS, Shards, assign_strictly, read_json
from .. import Family, backbones
from . import Format, class_of, formats, of_family


def load_network(folder: Path, dtype: torch.dtype | None = None) -> Network:
    """The network in `folder`, in eval mode; `dtype` None = as stored. Its config's `_class_name` says whose it is.

    Tensors are read, renamed and cast one at a time. Raises `WeightsError` (missing, damaged, tensors that do not fit), `TooLargeError`
    before any is read, and as `empty_network` does.
    """
    family, form, shape = read_shape(folder)
    stored = Shards(folder)
    net = _empty(family, shape if form is None else form.stored(shape, stored))
    require_memory(f"the network in {folder}", stored.bytes, dtype)
    pairs = stored.items() if form is None else form.to_ours(net.config, stored)
    assign_strictly(net, {n: t if dtype is None else t.to(dtype) for n, t in pairs}, str(folder))
    return net.eval()


def empty_network(folder: Path) -> tuple[Network, Format | None]:
    """The network that `folder`'s config describes, on meta, and the format of its weights: None = ours. No weight is read.

    Raises `WeightsError` (no config), `ConfigError` (a flag not understood), `UnknownNameError` (an unsupported class, with the nearest).
    """
    family, form, shape = read_shape(folder)
    return _empty(family, shape), form


def _empty(family: Family, shape: Any) -> Network:
    with torch.device("meta"), _Undrawn():
        return family.network(shape)


class _Undrawn(TorchFunctionMode):
    """Initial weights are not drawn: on meta there is nothing to fill, and torch's way of finding that out takes longer than loading."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        if getattr(func, "__name__", "") in ("normal_", "uniform_"):
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def read_shape(folder: Path) -> tuple[Family, Format | None, Any]:
    """The family of the network in `folder`, diffusers' format where it is theirs, and our config of it; no weights are read."""
    config = read_json(folder / "config.json")
    name = class_of(config)
    form: Format | None = None
    if name not in backbones:
        if name not in formats:
            raise UnknownNameError("transformer class", name, [*backbones, *formats])
        form = formats.get(name)
    family = backbones.get(name if form is None else form.family)
    try:
        own = {field: value for field, value in config.items() if field != "_class_name"}
        shape = from_dict(family.config, own if form is None else form.config(config))
    except ConfigError as error:
        raise ConfigError(f"{folder / 'config.json'}: {error.message}", error.hint) from error
    return family, form, shape


def load_denoiser(folder: Path, dtype: torch.dtype | None = None) -> Denoiser:
    """The network in `folder`, of a class of diffusers, with what its numbers mean: their times and signs become ours.

    Raises `UnknownNameError` for a class that is not diffusers', and what `load_network` raises.
    """
    return Denoiser(load_network(folder, dtype), formats.get(class_of(read_json(folder / "config.json"))).meaning)


def save_network(net: Network, folder: Path, overwrite: bool = False, dtype: torch.dtype | None = None) -> Path:
    """Write `net` as diffusers' class of its family, which `from_pretrained` reads; `dtype` None = as it is. Returns the folder.

    Raises `OutputError` when it exists, `ConfigError` or `WeightsError` when diffusers' class has no place for something of ours.
    """
    refuse_overwrite(folder, overwrite)
    form = of_family(backbones.name_of(type(net)))
    config, weights = form.published(net.config), form.to_theirs(net.config, net.state_dict())
    write_tensors(folder / WEIGHTS, {name: tensor.to(dtype or tensor.dtype) for name, tensor in weights.items()})
    write_json(folder / "config.json", config)
    return folder
