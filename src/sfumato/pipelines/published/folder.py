"""A published pipeline's folder, read into a `TextToImage` and written from one. Safetensors only; nothing is fetched or executed.

model_index.json     the pipeline's class, and of each component [library, class], [null, null] where there is none
transformer/, vae/, scheduler/, text_encoder*/, tokenizer*/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...backbones import backbones
from ...backbones.checkpoints import FORMER_CLASS, class_of, formats, of_family
from ...backbones.checkpoints.folder import load_network, save_network
from ...codecs.kl import KLCodec
from ...core.denoiser import Denoiser, Meaning
from ...core.discrete import Betas
from ...core.errors import ConfigError, UnknownNameError, UsageError, WeightsError
from ...core.files import write_json
from ...core.weights import read_json
from ...text.captions import as_it_is, cleaner, lowered
from ...text.joined import Joined
from ...text.transformers_encoder import TransformersEncoder, empty_text_model, load_text_encoder
from ..bins import SIDES
from ..components import read_autoencoder, refuse_pickles, save_codec
from ..identity import Identity
from ..settings import Defaults
from ..text_to_image import TextToImage
from .kinds import ZEROS, Kind, Text, kind
from .schedulers import Scheduler, read, write


def load_published(
    folder: Path,
    index: Mapping[str, Any],
    device: str,
    dtype: torch.dtype,
    text_tokens: int | None = None,
    clean_captions: bool = False,
) -> TextToImage:
    """The pipeline in `folder`, whose model_index.json is `index`; the network and codec are on the CPU, text encoders on `device`.

    `text_tokens`: how many tokens T5 reads, None = as the original code.   `clean_captions`: see `text/captions.py`.
    Raises `UnknownNameError` for a class that is not supported,
    `WeightsError` for a missing component or file, `ConfigError` for a config that is not computed here.
    """
    name = str(index.get("_class_name", "?"))
    made_of = kind(name)
    _check_components(folder, index, name, made_of)
    scheduler = read_scheduler(folder, made_of)
    config = read_json(folder / made_of.component / "config.json")
    for component in (made_of.component, "vae"):
        refuse_pickles(folder / component)
    if (found := class_of(config)) != made_of.transformer:
        raise ConfigError(f"{folder / made_of.component / 'config.json'} is of a {found}", f"a {name} has a {made_of.transformer}")
    net = load_network(folder / made_of.component)
    codec = KLCodec(read_autoencoder(folder / "vae"))
    return TextToImage(
        encoder=_encoder(folder, index, name, made_of, config, text_tokens, clean_captions, device, dtype),
        denoiser=Denoiser(net, network_meaning(made_of, scheduler)),
        codec=codec,
        slots=made_of.told(index),
        defaults=published_defaults(made_of, config, scheduler, codec.factor),
        identity=Identity(folder.name, {"sha256": _weights(folder / made_of.component), "codec_sha256": _weights(folder / "vae")}),
        notes=tuple(f"this folder's {part} is not run here" for part in made_of.unrun if part == "safety_checker" and _has(index, part)),
    )


def _has(index: Mapping[str, Any], part: str) -> bool:
    return (index.get(part) or [None, None])[1] is not None


def network_meaning(made_of: Kind, scheduler: Scheduler) -> Meaning:
    """What the network's numbers are. Of a discrete schedule that is the scheduler's to say: fine-tuned networks keep their class and
    predict v, say. A flow's network itself says which way it points, the scheduler how finely it is told the time.
    """
    own = formats.get(made_of.transformer).meaning
    if isinstance(own.path, Betas) != isinstance(scheduler.meaning.path, Betas):
        raise ConfigError(f"a {made_of.transformer} predicts {own}, its scheduler {scheduler.meaning}", "fetch both from one place")
    if isinstance(own.path, Betas):
        return scheduler.meaning
    return replace(own, time_map="whole") if scheduler.meaning.time_map == "whole" else own


def read_scheduler(folder: Path, made_of: Kind) -> Scheduler:
    """What the folder's scheduler says, if it is one of the pipeline's."""
    path = folder / "scheduler" / "scheduler_config.json"
    config = read_json(path)
    name = str(config.get("_class_name", "?"))
    try:
        if name not in made_of.schedulers:
            raise UnknownNameError("scheduler class of this pipeline", name, made_of.schedulers)
        return read(config, made_of.even)
    except (ConfigError, UnknownNameError) as error:
        raise ConfigError(f"{path}: {error.message}", error.hint) from error


def published_defaults(made_of: Kind, config: Mapping[str, Any], scheduler: Scheduler, factor: int) -> Defaults:
    """How the pipeline was released to be sampled; `config`: the transformer's."""
    side = (made_of.side or int(config.get("sample_size", 128))) * factor
    steps, guidance, _ = made_of.settings(config)
    if scheduler.solver == "renoise":
        steps, guidance = made_of.distilled.get(scheduler.shift, (steps, 1.0))
    # The sizes are those of codecs that shrink eightfold, which all released ones do.
    bins = side if made_of.binned and factor == 8 and side in SIDES else 0
    return Defaults((side, side), steps, guidance, scheduler.solver, scheduler.shift, scheduler.layout, bins=bins)


def _check_components(folder: Path, index: Mapping[str, Any], name: str, made_of: Kind) -> None:
    """Refuse a folder without a component that is needed, with one that would be ignored, or of another class than is computed."""
    needed: dict[str, tuple[str, ...]] = {
        made_of.component: (made_of.transformer, FORMER_CLASS),
        "vae": ("AutoencoderKL",),
        "scheduler": made_of.schedulers,
    }
    needed |= {text.folder: text.classes for text in made_of.texts} | {text.tokenizer: () for text in made_of.texts}
    optional = {part for text in made_of.texts if text.optional for part in (text.folder, text.tokenizer)}
    for part, classes in needed.items():
        if not _has(index, part):
            if part not in optional:
                raise WeightsError(f"{folder / 'model_index.json'} has no {part}", f"a {name} needs {', '.join(needed)}")
        elif classes and index[part][1] not in classes:
            raise UnknownNameError(f"class of a {name}'s {part}", str(index[part][1]), classes)
    for part, entry in index.items():
        if not part.startswith("_") and part not in {*needed, *made_of.unrun} and isinstance(entry, list) and entry[1] is not None:
            raise ConfigError(f"{folder / 'model_index.json'} has a {part} ({entry[1]})", f"a {name} is drawn from {', '.join(needed)}")


def _encoder(
    folder: Path, index: Mapping[str, Any], name: str, made_of: Kind, config: Mapping[str, Any], text_tokens: int | None,
    clean: bool, device: str, dtype: torch.dtype,
) -> Joined:  # fmt: skip
    asked = made_of.settings(config)[2] if text_tokens is None else text_tokens

    if clean and not any(text.prepare is lowered for text in made_of.texts):
        raise UsageError(
            f"clean_captions, and a {name} reads prompts as they are", "it is for PixArt, which was trained on cleaned captions"
        )
    cleaned = cleaner() if clean else as_it_is

    def load(text: Text) -> TransformersEncoder:
        longest = (asked or text.tokens) if text.tokens else None
        layers = range(1, 2 + max(config["llama_layers"])) if text.taps else (text.layer,)
        return load_text_encoder(
            folder,
            text.folder,
            text.tokenizer,
            layers,
            longest,
            padding=text.padding,
            prepare=cleaned if clean and text.prepare is lowered else text.prepare,
            ends=text.taps,
            device=device,
            dtype=dtype,
        )

    parts = {text.folder: load(text) for text in made_of.texts if _has(index, text.folder)}
    absent = [text for text in made_of.texts if text.folder not in parts]
    width = next(config[name] for name in ("joint_attention_dim", "caption_channels", "cross_attention_dim") if name in config)
    width = width[0] if made_of.joined == "tapped" else width
    return Joined(name, parts, made_of.joined, int(width), sum(asked or text.tokens for text in absent))


def empty_texts(folder: Path, index: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The models of a published pipeline's text encoders, by folder, on meta."""
    texts = kind(str(index.get("_class_name", "?"))).texts
    return {
        text.folder: empty_text_model(folder / text.folder) for text in texts if (index.get(text.folder) or [None, None])[1] is not None
    }


def save_published(pipe: TextToImage, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write `pipe` into the new `folder` as the diffusers pipeline it came from; `dtype` of network and codec, None = as they are.

    Raises `UsageError` for a pipeline that diffusers has no class for.
    """
    if not isinstance(pipe.encoder, Joined):
        raise UsageError(
            f"diffusers has no pipeline class that reads prompts with {pipe.encoder.name!r}", "save it in sfumato's own format"
        )
    name = pipe.encoder.name
    made_of, defaults, encoder = kind(name), pipe.defaults, pipe.encoder
    meaning = pipe.denoiser.meaning
    if not isinstance(meaning.path, Betas):
        meaning = Meaning(time_map="whole" if meaning.time_map == "whole" else "identity")
    config = write(Scheduler(meaning, defaults.layout, defaults.solver, defaults.shift), made_of.schedulers)
    if (family := of_family(backbones.name_of(type(pipe.denoiser.net))).class_name) != made_of.transformer:
        raise UsageError(f"a {name} with a {family}", f"its transformer is a {made_of.transformer}")
    write_json(folder / "scheduler" / "scheduler_config.json", config)
    _write_network(pipe, folder / made_of.component, made_of, dtype)
    save_codec(pipe.codec, folder / "vae", dtype=dtype)
    index: dict[str, Any] = {"_class_name": name, "_diffusers_version": _diffusers_version()}
    index |= {made_of.component: ["diffusers", made_of.transformer], "vae": ["diffusers", "AutoencoderKL"]}
    index["scheduler"] = ["diffusers", config["_class_name"]]
    index |= {part: [None, None] for part in (*made_of.optional, *made_of.unrun)}
    if "safety_checker" in made_of.unrun:
        index["requires_safety_checker"] = False
    if made_of.zeros is not None:
        index[ZEROS] = all(slot.null == "zeros" for slot in pipe.slots)
    if "text_encoder" in made_of.optional:
        index["requires_aesthetics_score"] = "aesthetic" in pipe.denoiser.net.slots
    for text in made_of.texts:
        part = encoder.parts.get(text.folder)
        index[text.folder] = index[text.tokenizer] = [None, None]
        if part is not None:
            part.model.save_pretrained(folder / text.folder)
            part.published_tokenizer.save_pretrained(folder / text.tokenizer)
            index[text.folder] = ["transformers", type(part.model).__name__]
            index[text.tokenizer] = ["transformers", type(part.published_tokenizer).__name__]
    write_json(folder / "model_index.json", index)


def _write_network(pipe: TextToImage, folder: Path, made_of: Kind, dtype: torch.dtype | None) -> None:
    save_network(pipe.denoiser.net, folder, dtype=dtype)
    if made_of.side:
        return
    # Their pipelines read the default size, and PixArt's whether sizes are told, off sample_size; positions hang on side / patch / scale.
    config, side = read_json(folder / "config.json"), pipe.defaults.size[0] // pipe.codec.factor
    if "interpolation_scale" in config:
        config["interpolation_scale"] = side / config["sample_size"] * config["interpolation_scale"]
    write_json(folder / "config.json", {**config, "sample_size": side})


def _diffusers_version() -> str:
    import diffusers

    return str(diffusers.__version__)


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))
