"""One component of a pipeline on disk: config.json beside safetensors, written whole and read strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..codecs.autoencoder import Autoencoder
from ..codecs.dc import DCCodec
from ..codecs.kl import KLCodec
from ..core.errors import ConfigError, UnknownNameError
from ..core.files import refuse_overwrite, write_json, write_tensors
from ..core.weights import WEIGHTS, Shards, assign_strictly, read_json

# By diffusers' class.
CODECS: Mapping[str, type[Autoencoder]] = {"AutoencoderKL": KLCodec, "AutoencoderDC": DCCodec}
# Names that attention had in the first autoencoders of published folders.
FORMER = re.compile(r"(.*\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)")
PRESENT = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def present_name(tensor: str) -> str:
    """The name that an autoencoder's tensor has today."""
    former = FORMER.fullmatch(tensor)
    return tensor if former is None else f"{former[1]}.{PRESENT[former[2]]}.{former[3]}"


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
    found = {present_name(name): tensor for name, tensor in Shards(folder).items()}
    assign_strictly(autoencoder, found, str(folder / WEIGHTS))
    return codec(autoencoder)
