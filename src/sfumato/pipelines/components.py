"""One component of a pipeline on disk: config.json beside safetensors, written whole and read strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..codecs.kl import KLCodec
from ..core.errors import ConfigError, WeightsError
from ..core.files import read_tensors, refuse_overwrite, write_json, write_tensors
from ..core.weights import WEIGHTS, assign_strictly, read_json

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


def refuse_pickles(folder: Path) -> None:
    """Raise `WeightsError` where pickled weights lie in the place of safetensors; they are not opened."""
    if not any(folder.glob("*.safetensors")) and (pickled := [p.name for p in sorted(folder.glob("*")) if p.suffix in PICKLES]):
        raise WeightsError(f"{folder} holds pickled weights ({pickled[0]}), which can run code when opened", f"convert them to {WEIGHTS}")


def write_weights(module: nn.Module, folder: Path, config: Mapping[str, Any], dtype: torch.dtype | None) -> None:
    """Write `module` and its config; `dtype` None = as it is."""
    write_json(folder / "config.json", config)
    write_tensors(folder / WEIGHTS, {n: t.to(dtype or t.dtype) for n, t in module.state_dict().items()})


def save_codec(codec: KLCodec, folder: str | Path, overwrite: bool = False, dtype: torch.dtype | None = None) -> Path:
    """Write `codec` as a diffusers vae folder, which `load_codec` and diffusers' AutoencoderKL read. Returns the folder."""
    final = Path(folder)
    refuse_overwrite(final, overwrite)
    plain = {k: v for k, v in codec.autoencoder.config.items() if k != "_use_default_values"}
    write_weights(codec.autoencoder, final, dict(json.loads(json.dumps(plain))), dtype)
    return final


def read_autoencoder(folder: Path) -> AutoencoderKL:
    """diffusers' `AutoencoderKL` of a vae folder. Raises `ConfigError` for a field it does not know, `WeightsError` for weights."""
    from diffusers import AutoencoderKL

    config = {k: v for k, v in read_json(folder / "config.json").items() if not k.startswith("_")}
    try:
        with torch.device("meta"):
            autoencoder = AutoencoderKL(**config)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{folder / 'config.json'} is no AutoencoderKL config: {error}") from error
    assign_strictly(autoencoder, read_tensors(folder / WEIGHTS), str(folder / WEIGHTS))
    return autoencoder
