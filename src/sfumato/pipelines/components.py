"""One component of a pipeline on disk: config.json beside safetensors, written whole and read strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..codecs.autoencoder import Autoencoder
from ..codecs.dc import DCCodec
from ..codecs.kl import KLCodec
from ..core.errors import ConfigError, UnknownNameError, WeightsError
from ..core.files import read_tensors, refuse_overwrite, write_json, write_tensors
from ..core.weights import WEIGHTS, assign_strictly, read_json

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
# By diffusers' class.
CODECS: Mapping[str, type[Autoencoder]] = {"AutoencoderKL": KLCodec, "AutoencoderDC": DCCodec}


def refuse_pickles(folder: Path) -> None:
    """Raise `WeightsError` where pickled weights lie in the place of safetensors; they are not opened."""
    if not any(folder.glob("*.safetensors")) and (pickled := [p.name for p in sorted(folder.glob("*")) if p.suffix in PICKLES]):
        raise WeightsError(f"{folder} holds pickled weights ({pickled[0]}), which can run code when opened", f"convert them to {WEIGHTS}")


def write_weights(module: nn.Module, folder: Path, config: Mapping[str, Any], dtype: torch.dtype | None) -> None:
    """Write `module` and its config; `dtype` None = as it is."""
    write_json(folder / "config.json", config)
    write_tensors(folder / WEIGHTS, {n: t.to(dtype or t.dtype) for n, t in module.state_dict().items()})


def save_codec(codec: Autoencoder, folder: str | Path, overwrite: bool = False, dtype: torch.dtype | None = None) -> Path:
    """Write `codec` as a diffusers vae folder, which `load_codec` and diffusers' own class read. Returns the folder."""
    final = Path(folder)
    refuse_overwrite(final, overwrite)
    plain = {k: v for k, v in codec.autoencoder.config.items() if k != "_use_default_values"}
    described = {"_class_name": type(codec.autoencoder).__name__, **json.loads(json.dumps(plain))}
    write_weights(codec.autoencoder, final, described, dtype)
    return final


def codec_class(config: Mapping[str, Any]) -> tuple[str, type[Autoencoder]]:
    """diffusers' class of a vae folder's config, and ours; a config that names none is a KL codec's. Raises `UnknownNameError`."""
    name = str(config.get("_class_name", "AutoencoderKL"))
    if name not in CODECS:
        raise UnknownNameError("autoencoder class", name, CODECS)
    return name, CODECS[name]


def codec_factor(config: Mapping[str, Any]) -> int:
    """Pixels per latent cell of the codec with this config, without building it."""
    return int(2 ** (len(config.get(codec_class(config)[1].levels, ())) - 1))


def read_codec(folder: Path) -> Autoencoder:
    """The codec in a vae folder. Raises `UnknownNameError` for its class, `ConfigError` for a field it does not know, `WeightsError`."""
    import diffusers

    config = read_json(folder / "config.json")
    name, codec = codec_class(config)
    try:
        with torch.device("meta"):
            autoencoder = getattr(diffusers, name)(**{k: v for k, v in config.items() if not k.startswith("_")})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{folder / 'config.json'} is no {name} config: {error}") from error
    assign_strictly(autoencoder, read_tensors(folder / WEIGHTS), str(folder / WEIGHTS))
    return codec(autoencoder)
