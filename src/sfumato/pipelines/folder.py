"""Pipelines on disk: the diffusers folder layout, safetensors only, every weight file with its checksum.

    model_index.json                        which class each component is
    transformer/  config.json  diffusion_pytorch_model.safetensors
    vae/          config.json  diffusion_pytorch_model.safetensors       (diffusers' AutoencoderKL loads it)
    scheduler/    scheduler_config.json                                  (diffusers' FlowMatchEulerDiscreteScheduler loads it)
    sfumato.json                            meaning of the prediction, conditioning slots, sampling defaults, text encoder, card, checksums

Nothing in a folder is ever executed or unpickled.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from ..backbones import backbones
from ..backbones.checkpoints.folder import empty_network, load_network
from ..codecs.autoencoder import Autoencoder
from ..core.conditions import Slot
from ..core.config import from_dict, to_dict
from ..core.denoiser import Denoiser, Meaning
from ..core.errors import ConfigError, OutputError, UnknownNameError, UsageError, WeightsError
from ..core.files import refuse_overwrite, sha256, verify, write_json
from ..core.program import Network
from ..core.weights import PICKLES, WEIGHTS, pickled, read_json, refuse_others, require_weights
from ..text import text_encoders
from .components import read_codec, save_codec, write_weights
from .settings import Defaults
from .text_to_image import TextToImage

T = TypeVar("T")


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


def load(
    name_or_dir: str | Path,
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    text_tokens: int | None = None,
    clean_captions: bool = False,
    instruction: str | None = None,
    ways: Literal["original", "diffusers"] = "original",
) -> TextToImage:
    """A pipeline by shipped name or folder, ours or diffusers' of a published model. `dtype` None: fp32 on a CPU, bf16 elsewhere.

    Of published pipelines: `ways`, where their original code and diffusers differ; `text_tokens`: how many tokens T5 or Gemma reads;
    `instruction`: what is put before every prompt (Sana, Lumina-Image 2.0), "" = nothing; None = as in `ways`.
    `clean_captions`: prompts are stripped of markup, links and the like as PixArt's captions were; needs ftfy and beautifulsoup4.
    Raises `UnknownNameError` with the nearest names, `UsageError` for an option that would change nothing, `WeightsError` naming a missing,
    damaged or pickled file, `ConfigError` for what a published config asks and nothing here computes.
    """
    folder = find(name_or_dir)
    index = read_json(folder / "model_index.json")
    dtype = dtype or (torch.float32 if torch.device(_known(device)).type == "cpu" else torch.bfloat16)
    values = {"text_tokens": text_tokens, "clean_captions": clean_captions, "instruction": instruction, "ways": ways}
    asked = {name: value for name, value in values.items() if value not in (None, False, "original")}
    if text_tokens is not None and text_tokens < 1:
        raise UsageError(f"text_tokens is {text_tokens}", "at least 1; left out, as many as the model was trained with")
    if is_published(folder, index):
        from .published.folder import Wishes, load_published

        if ways != "original":
            _require_difference(folder, index, ways)
        pipe = load_published(folder, index, device, dtype, Wishes(text_tokens, clean_captions, instruction, ways))
        pipe = replace(pipe, loaded=asked)
    elif asked:
        name, value = next(iter(asked.items()))
        raise UsageError(
            f"{name} is {value!r}, and the text encoder of {folder.name} is fixed", "it is for pipelines in diffusers' folders"
        )
    else:
        pipe = _own(folder)
    pipe.denoiser.net.eval().requires_grad_(False)
    pipe.codec.eval().requires_grad_(False)
    try:
        return pipe.to(device, dtype)
    except (RuntimeError, AssertionError) as error:
        raise _unusable(device, error) from error


def _require_difference(folder: Path, index: Mapping[str, Any], ways: Literal["original", "diffusers"]) -> None:
    """Raise `UsageError` where a published pipeline is drawn alike in both ways."""
    from .published.folder import read_settled
    from .published.kinds import class_name, kind

    name = class_name(index)
    one, other = (read_settled(folder, index, kind(name, way))[0] for way in ("original", ways))
    if replace(one, settled=other.settled) == other:
        raise UsageError(f"ways is {ways!r}, and {folder.name}, a {name}, is drawn alike in both", "leave it out: the picture is the same")


def network_folder(folder: Path) -> Path:
    """Where a pipeline's network lies: "transformer", in published folders of a U-Net "unet"."""
    return folder / "unet" if (folder / "unet").is_dir() else folder / "transformer"


def is_published(folder: Path, index: Mapping[str, Any]) -> bool:
    """Whether a folder is diffusers' and not ours."""
    return index.get("_library") != "sfumato" and not (folder / "sfumato.json").is_file()


def read_record(folder: Path) -> Record:
    """The sfumato.json of a folder of ours, strictly."""
    return _config(Record, folder / "sfumato.json")


def _own(folder: Path) -> TextToImage:
    record = read_record(folder)
    for component in ("transformer", "vae"):
        file = f"{component}/{WEIGHTS}"
        refuse_others(folder / component)
        if file not in record.checksums:
            raise WeightsError(f"{folder / 'sfumato.json'} has no checksum of {file}", "save the pipeline again")
        verify(folder / file, record.checksums[file])
    return TextToImage(
        encoder=text_encoders.get(record.text_encoder)(),
        denoiser=Denoiser(load_network(folder / "transformer"), record.meaning),
        codec=read_codec(folder / "vae"),
        slots=record.slots,
        defaults=record.defaults,
        identity={
            "name": record.name,
            "sha256": record.checksums[f"transformer/{WEIGHTS}"],
            "codec_sha256": record.checksums[f"vae/{WEIGHTS}"],
        },
        card=record.card,
    )


def _known(device: str) -> str:
    try:
        torch.device(device)
    except RuntimeError as error:
        raise _unusable(device, error) from error
    return device


def _unusable(device: str, error: Exception) -> UsageError:
    return UsageError(
        f"device {device!r} cannot be used: {str(error).splitlines()[0]}",
        "'cpu' always works; 'cuda' needs a GPU and a CUDA build of torch",
    )


def structure(name_or_dir: str | Path) -> Network:
    """The network of a pipeline (a folder or a shipped name) or in a transformer's folder, on meta: its weights are not read.

    Raises as `empty_network` does, `UnknownNameError` with the nearest names for a model that is not there.
    """
    folder = Path(name_or_dir)
    if not (folder / "config.json").is_file():
        folder = network_folder(find(name_or_dir))
    return empty_network(folder)[0]


def text_structures(name_or_dir: str | Path) -> dict[str, nn.Module]:
    """The text encoders' models of a published pipeline, by folder, on meta; none of a model of ours and in a bare transformer's folder."""
    folder = Path(name_or_dir)
    if (folder / "config.json").is_file():
        return {}
    folder = find(name_or_dir)
    index = read_json(folder / "model_index.json")
    if not is_published(folder, index):
        return {}
    from .published.folder import empty_texts

    return empty_texts(folder, index)


def save(
    pipe: TextToImage,
    folder: str | Path,
    overwrite: bool = False,
    dtype: torch.dtype | None = None,
    format: Literal["sfumato", "diffusers"] = "sfumato",
) -> Path:
    """Write `pipe` to `folder`, complete or not at all; `dtype` of the stored weights, None = as they are. Returns the folder.

    format "diffusers": a published pipeline goes back into the folder that its class in diffusers loads. "sfumato" has no place for text
    encoders, so that it is for those that ship.
    Raises `OutputError` when it exists without `overwrite` or holds something else than a pipeline, or on a full or read-only disk.
    """
    if format not in ("sfumato", "diffusers"):
        raise UnknownNameError("format", format, ("sfumato", "diffusers"))
    final = Path(folder).resolve()
    refuse_overwrite(final, overwrite)
    if final.exists() and not (final / "model_index.json").is_file() and not (final.is_dir() and not any(final.iterdir())):
        raise OutputError(f"{final} holds something else than a pipeline and is left as it is", "choose another name")
    part, former = (final.parent / f".{final.name}.{kind}" for kind in ("part", "former"))
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        if format == "diffusers":
            from .published.saving import save_published

            save_published(pipe, part, dtype)
        else:
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


def load_codec(name_or_dir: str | Path) -> Autoencoder:
    """The codec in a diffusers vae folder, or that of a pipeline (a folder or a shipped name), in fp32. Raises `WeightsError`."""
    folder = Path(name_or_dir)
    if not (folder / "config.json").is_file():
        folder = find(name_or_dir) / "vae"
    require_weights(folder)
    return read_codec(folder).float().eval().requires_grad_(False)


def _write(pipe: TextToImage, folder: Path, name: str, dtype: torch.dtype | None) -> None:
    if pipe.encoder.name not in text_encoders:
        raise UsageError(f"the text encoder {pipe.encoder.name!r} has no place in sfumato's format", 'save(FOLDER, format="diffusers") has')
    net = pipe.denoiser.net
    family = backbones.name_of(type(net))
    write_weights(net, folder / "transformer", {"_class_name": family, **to_dict(net.config)}, dtype)
    save_codec(pipe.codec, folder / "vae", dtype=dtype)
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
            "vae": ["diffusers", type(pipe.codec.autoencoder).__name__],
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


def find(name_or_dir: str | Path) -> Path:
    """The folder of a shipped name, or the folder itself. Raises `UnknownNameError`, and `WeightsError` where it holds no pipeline."""
    folder = Path(name_or_dir)
    if not folder.is_dir() and str(name_or_dir) in shipped():
        folder = assets() / str(name_or_dir)
    if not folder.is_dir():
        raise UnknownNameError("model", str(name_or_dir), shipped())
    if not (folder / "model_index.json").is_file():
        if found := [path for path in sorted(folder.rglob("*")) if path.suffix in PICKLES]:
            raise pickled(found[0])
        raise WeightsError(f"{folder} is no pipeline folder: it has no model_index.json", f"shipped models: {', '.join(shipped())}")
    return folder


def _config(cls: type[T], path: Path) -> T:
    """A JSON file as `cls`, strictly; a `ConfigError` names the file."""
    try:
        return from_dict(cls, read_json(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", error.hint) from error
