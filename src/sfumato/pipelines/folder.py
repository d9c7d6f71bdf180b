"""Pipelines on disk: the diffusers folder layout, safetensors only, every weight file with its checksum.

    model_index.json                        which class each component is
    transformer/  config.json  diffusion_pytorch_model.safetensors
    vae/          config.json  diffusion_pytorch_model.safetensors       (diffusers' AutoencoderKL loads it)
    scheduler/    scheduler_config.json                                  (diffusers' FlowMatchEulerDiscreteScheduler loads it)
    sfumato.json                            meaning of the prediction, conditioning slots, sampling defaults, text encoder, card, checksums

Nothing in a folder is ever executed or unpickled.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from ..backbones import backbones
from ..backbones.checkpoints.folder import empty_network, load_network
from ..codecs.kl import KLCodec
from ..core.conditions import Slot
from ..core.config import from_dict, to_dict
from ..core.denoiser import Denoiser, Meaning
from ..core.errors import ConfigError, OutputError, UnknownNameError, UsageError, WeightsError
from ..core.files import read_tensors, refuse_overwrite, sha256, verify, write_json, write_tensors
from ..core.program import Network
from ..core.weights import WEIGHTS, assign_strictly, read_json
from ..text import text_encoders
from .text_to_image import Defaults, TextToImage

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

T = TypeVar("T")
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


@dataclass(frozen=True)
class Record:
    """sfumato.json: what the diffusers layout has no place for. `checksums`: sha256 of each weight file."""

    name: str
    text_encoder: str
    meaning: Meaning
    slots: tuple[Slot, ...]
    defaults: Defaults
    checksums: dict[str, str]
    card: dict[str, Any] = field(default_factory=dict)


def assets() -> Path:
    """The folder of models that ship with the package."""
    return Path(str(resources.files("sfumato"))) / "assets"


def shipped() -> list[str]:
    """Names of the shipped pipelines."""
    folder = assets()
    return sorted(p.name for p in folder.iterdir() if (p / "model_index.json").is_file()) if folder.is_dir() else []


def load(name_or_dir: str | Path, *, device: str = "cpu", dtype: torch.dtype | None = None) -> TextToImage:
    """A pipeline by shipped name or folder. `dtype` None: fp32 on a CPU, bf16 elsewhere.

    Raises `UnknownNameError` with the nearest names, `WeightsError` naming a missing, damaged or pickled file.
    """
    folder = _find(name_or_dir)
    read_json(folder / "model_index.json")
    record = _config(Record, folder / "sfumato.json")
    for component in ("transformer", "vae"):
        file = f"{component}/{WEIGHTS}"
        _refuse_pickles(folder / component)
        if file not in record.checksums:
            raise WeightsError(f"{folder / 'sfumato.json'} has no checksum of {file}", "save the pipeline again")
        verify(folder / file, record.checksums[file])
    net = load_network(folder / "transformer")
    pipe = TextToImage(
        encoder=text_encoders.get(record.text_encoder)(),
        denoiser=Denoiser(net, record.meaning),
        codec=KLCodec(_autoencoder(folder / "vae")),
        slots=record.slots,
        defaults=record.defaults,
        identity={
            "name": record.name,
            "sha256": record.checksums[f"transformer/{WEIGHTS}"],
            "codec_sha256": record.checksums[f"vae/{WEIGHTS}"],
        },
        card=record.card,
    )
    pipe.denoiser.net.eval().requires_grad_(False)
    pipe.codec.eval().requires_grad_(False)
    try:
        return pipe.to(device, dtype or (torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16))
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"device {device!r} cannot be used: {str(error).splitlines()[0]}",
            "'cpu' always works; 'cuda' needs a GPU and a CUDA build of torch",
        ) from error


def structure(name_or_dir: str | Path) -> Network:
    """The network of a pipeline (a folder or a shipped name) or in a transformer's folder, on meta: its weights are not read.

    Raises as `empty_network` does, `UnknownNameError` with the nearest names for a model that is not there.
    """
    folder = Path(name_or_dir)
    if not (folder / "config.json").is_file():
        folder = _find(name_or_dir) / "transformer"
    return empty_network(folder)[0]


def save(pipe: TextToImage, folder: str | Path, overwrite: bool = False, dtype: torch.dtype | None = None) -> Path:
    """Write `pipe` to `folder`, complete or not at all; `dtype` of the stored weights, None = as they are. Returns the folder.

    Raises `OutputError` when it exists without `overwrite` or holds something else than a pipeline, or on a full or read-only disk.
    """
    final = Path(folder).resolve()
    refuse_overwrite(final, overwrite)
    if final.exists() and not (final / "model_index.json").is_file() and not (final.is_dir() and not any(final.iterdir())):
        raise OutputError(f"{final} holds something else than a pipeline and is left as it is", "choose another name")
    part, former = (final.parent / f".{final.name}.{kind}" for kind in ("part", "former"))
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        _write(pipe, part, final.name, dtype)
        if final.exists():
            shutil.rmtree(former, ignore_errors=True)
            os.replace(final, former)
        os.replace(part, final)
    except (OSError, OutputError) as error:
        raise OutputError(f"cannot write {final}: {error}", "free space, or name a folder you may write to") from error
    finally:
        if former.exists() and not final.exists():
            os.replace(former, final)
        for leftover in (part, former):
            shutil.rmtree(leftover, ignore_errors=True)
    return final


def save_codec(codec: KLCodec, folder: str | Path, overwrite: bool = False) -> Path:
    """Write `codec` as a diffusers vae folder, which `load_codec` and diffusers' AutoencoderKL read. Returns the folder."""
    final = Path(folder)
    refuse_overwrite(final, overwrite)
    _weights(codec.autoencoder, final, _vae_config(codec), None)
    return final


def load_codec(name_or_dir: str | Path) -> KLCodec:
    """The codec in a diffusers vae folder, or that of a pipeline (a folder or a shipped name), in fp32. Raises `WeightsError`."""
    folder = Path(name_or_dir)
    if not (folder / "config.json").is_file():
        folder = _find(name_or_dir) / "vae"
    _refuse_pickles(folder)
    return KLCodec(_autoencoder(folder)).float().eval().requires_grad_(False)


def _vae_config(codec: KLCodec) -> dict[str, Any]:
    plain = {k: v for k, v in codec.autoencoder.config.items() if k != "_use_default_values"}
    return dict(json.loads(json.dumps(plain)))


def _write(pipe: TextToImage, folder: Path, name: str, dtype: torch.dtype | None) -> None:
    net = pipe.denoiser.net
    family = backbones.name_of(type(net))
    _weights(net, folder / "transformer", {"_class_name": family, **to_dict(net.config)}, dtype)
    _weights(pipe.codec.autoencoder, folder / "vae", _vae_config(pipe.codec), dtype)
    write_json(
        folder / "scheduler" / "scheduler_config.json",
        {
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "num_train_timesteps": 1000,
            "shift": pipe.defaults.shift,
            "use_dynamic_shifting": False,
        },
    )
    write_json(
        folder / "model_index.json",
        {
            "_class_name": "TextToImage",
            "_library": "sfumato",
            "transformer": ["sfumato", family],
            "vae": ["diffusers", "AutoencoderKL"],
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        },
    )
    files = [f"transformer/{WEIGHTS}", f"vae/{WEIGHTS}"]
    write_json(
        folder / "sfumato.json",
        {
            "name": pipe.identity.get("name", name),
            "text_encoder": pipe.encoder.name,
            "meaning": to_dict(pipe.denoiser.meaning),
            "slots": [to_dict(slot) for slot in pipe.slots],
            "defaults": to_dict(pipe.defaults),
            "card": dict(pipe.card),
            "checksums": {file: sha256(folder / file) for file in files},
        },
    )


def _weights(module: nn.Module, folder: Path, config: Mapping[str, Any], dtype: torch.dtype | None) -> None:
    write_json(folder / "config.json", config)
    write_tensors(folder / WEIGHTS, {n: t.to(dtype or t.dtype) for n, t in module.state_dict().items()})


def _find(name_or_dir: str | Path) -> Path:
    folder = Path(name_or_dir)
    if not folder.is_dir() and str(name_or_dir) in shipped():
        folder = assets() / str(name_or_dir)
    if not folder.is_dir():
        raise UnknownNameError("model", str(name_or_dir), shipped())
    if not (folder / "model_index.json").is_file():
        pickled = [p.name for p in sorted(folder.rglob("*")) if p.suffix in PICKLES]
        if pickled:
            raise WeightsError(
                f"{folder} holds pickled weights ({pickled[0]}), which can run code when opened", "convert them to safetensors first"
            )
        raise WeightsError(f"{folder} is no pipeline folder: it has no model_index.json", f"shipped models: {', '.join(shipped())}")
    return folder


def _config(cls: type[T], path: Path) -> T:
    """A JSON file as `cls`, strictly; a `ConfigError` names the file."""
    try:
        return from_dict(cls, read_json(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", error.hint) from error


def _refuse_pickles(folder: Path) -> None:
    if not (folder / WEIGHTS).is_file() and (pickled := [p.name for p in sorted(folder.glob("*")) if p.suffix in PICKLES]):
        raise WeightsError(f"{folder} holds pickled weights ({pickled[0]}), which can run code when opened", f"convert them to {WEIGHTS}")


def _autoencoder(folder: Path) -> AutoencoderKL:
    from diffusers import AutoencoderKL

    config = {k: v for k, v in read_json(folder / "config.json").items() if not k.startswith("_")}
    try:
        with torch.device("meta"):
            autoencoder = AutoencoderKL(**config)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{folder / 'config.json'} is no AutoencoderKL config: {error}") from error
    assign_strictly(autoencoder, read_tensors(folder / WEIGHTS), str(folder / WEIGHTS))
    return autoencoder
