"""A pipeline that was read from a published folder, written into one: what its class in diffusers loads."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ...backbones import backbones
from ...backbones.checkpoints import of_family
from ...backbones.checkpoints.folder import read_shape, save_network
from ...core.config import to_dict
from ...core.denoiser import Meaning
from ...core.discrete import Betas
from ...core.errors import UsageError
from ...core.files import write_json
from ...core.weights import read_json
from ...text.joined import Joined
from ...text.labels import Labels
from ..components import save_codec
from ..settings import by
from ..text_to_image import TextToImage
from .folder import network_meaning
from .kinds import WAYS, Kind, kind
from .schedulers import Scheduler, write


def save_published(pipe: TextToImage, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write `pipe` into the new `folder` as the diffusers pipeline it came from; `dtype` of network and codec, None = as they are.

    Raises `UsageError` for a pipeline that diffusers has no class for.
    """
    if not isinstance(pipe.encoder, Joined | Labels):
        raise UsageError(
            f"diffusers has no pipeline class that reads prompts with {pipe.encoder.name!r}", "save it in sfumato's own format"
        )
    name = pipe.encoder.name
    made_of, defaults, encoder = kind(name), pipe.defaults, pipe.encoder
    meaning = pipe.denoiser.meaning
    # A scheduler counts in steps, whatever its network is told.
    walked = replace(meaning, time_map="steps") if isinstance(meaning.path, Betas) else Meaning()
    scheduler = Scheduler(walked, defaults.layout, defaults.solver, defaults.shift)
    if meaning not in [network_meaning(kind(name, ways), scheduler) for ways in WAYS]:
        raise UsageError(f"a {name} whose network means {meaning}", "save it in sfumato's own format")
    config = write(scheduler, made_of.schedulers)
    if (family := of_family(backbones.name_of(type(pipe.denoiser.net))).class_name) != made_of.transformer:
        raise UsageError(f"a {name} with a {family}", f"its transformer is a {made_of.transformer}")
    write_json(folder / "scheduler" / "scheduler_config.json", config)
    _write_network(pipe, folder / made_of.component, made_of, dtype)
    save_codec(pipe.codec, folder / "vae", dtype=dtype)
    index: dict[str, Any] = {"_class_name": name, "_diffusers_version": _diffusers_version()}
    index |= {made_of.component: ["diffusers", made_of.transformer], "vae": ["diffusers", made_of.codec]}
    index["scheduler"] = ["diffusers", config["_class_name"]]
    index |= {part: [None, None] for part in (*made_of.optional, *made_of.unrun, *made_of.idle)}
    index |= made_of.written(pipe, folder)
    index |= _write_texts(encoder, made_of, folder) if isinstance(encoder, Joined) else {}
    write_json(folder / "model_index.json", index)


def _write_texts(encoder: Joined, made_of: Kind, folder: Path) -> dict[str, Any]:
    """The encoders and tokenizers, and their entries of a model_index.json."""
    index: dict[str, Any] = {}
    for text in made_of.texts:
        part = encoder.parts.get(text.folder)
        index[text.folder] = index[text.tokenizer] = [None, None]
        if part is not None:
            part.model.save_pretrained(folder / text.folder)
            part.published_tokenizer.save_pretrained(folder / text.tokenizer)
            index[text.folder] = ["transformers", type(part.model).__name__]
            index[text.tokenizer] = ["transformers", type(part.published_tokenizer).__name__]
    return index


def _write_network(pipe: TextToImage, folder: Path, made_of: Kind, dtype: torch.dtype | None) -> None:
    save_network(pipe.denoiser.net, folder, dtype=dtype)
    config, shape = read_json(folder / "config.json"), read_shape(folder)[2]
    if "sample_size" not in config:
        return
    # Their pipelines read the default size, and PixArt's whether sizes are told, off sample_size; positions hang on side / patch / scale.
    height, width = (side // pipe.codec.factor for side in pipe.defaults.size)
    if config.get("interpolation_scale"):
        config["interpolation_scale"] = height / config["sample_size"] * config["interpolation_scale"]
    write_json(folder / "config.json", {**config, "sample_size": height if height == width else [height, width]})
    before, after = to_dict(shape), to_dict(read_shape(folder)[2])
    if changed := [name for name, value in before.items() if not _alike(value, after[name])]:
        raise UsageError(
            f"a default size of {by(pipe.defaults.size)} would make {after[changed[0]]} of the network's {changed[0]} {before[changed[0]]}",
            "diffusers has one number for both: give the pipeline's defaults the size that its network was trained at",
        )


def _alike(one: Any, other: Any) -> bool:
    """Equal, but for the last bits of a quotient."""
    return math.isclose(one, other, rel_tol=1e-9) if isinstance(one, float) else one == other


def _diffusers_version() -> str:
    import diffusers

    return str(diffusers.__version__)
