"""Trained networks in a folder: `NAME.safetensors` in fp16 beside `NAME.json`, which holds their checksum and all that is told of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from .errors import SfumatoError, WeightsError
from .files import read_tensors, sha256, verify, write_json, write_tensors

Made = TypeVar("Made")


def keep(folder: Path, name: str, nets: Mapping[str, nn.Module], content: Mapping[str, Any]) -> None:
    """Write `name`.safetensors (floating-point numbers in fp16) and then `name`.json into `folder`."""
    state = nn.ModuleDict(nets).state_dict()
    path = folder / f"{name}.safetensors"
    write_tensors(path, {n: t.half() if t.is_floating_point() else t for n, t in state.items()})
    write_json(folder / f"{name}.json", {"sha256": sha256(path), **content})


def fetch(folder: Path, name: str, build: Callable[[Mapping[str, Any]], Made], nets: Callable[[Made], Mapping[str, nn.Module]]) -> Made:
    """What `build` makes of `name`.json, its `nets` filled with the weights beside it; the checksum is verified first.

    Raises `WeightsError` when a file is missing or damaged, or when weights and description are not of one network.
    """
    path, described = folder / f"{name}.safetensors", folder / f"{name}.json"
    try:
        content = json.loads(described.read_text(encoding="utf-8"))
        made, expected = build(content), content["sha256"]
    except FileNotFoundError as error:
        raise WeightsError(f"no {name} in {folder}: {described.name} is missing", f"train one: sfumato train {name}") from error
    except (OSError, ValueError, KeyError, TypeError, SfumatoError) as error:
        raise WeightsError(f"damaged file {described}: {error!r}", f"get it again, or sfumato train {name}") from error
    verify(path, expected)
    try:
        state = {n: t.float() if t.is_floating_point() else t for n, t in read_tensors(path).items()}
        nn.ModuleDict(nets(made)).load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise WeightsError(f"{path} does not fit its {described.name}: {error}", f"the two files must come from one {name}") from error
    return made
