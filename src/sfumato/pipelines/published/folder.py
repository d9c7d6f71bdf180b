"""A published pipeline's folder, read into a `TextToImage` and written from one. Safetensors only; nothing is fetched or executed.

model_index.json     the pipeline's class, and of each component [library, class], [null, null] where there is none
transformer/, vae/, scheduler/, text_encoder*/, tokenizer*/
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ...backbones import backbones
from ...backbones.checkpoints import formats, of_family
from ...backbones.checkpoints.folder import load_network, save_network
from ...backbones.checkpoints.legacy import LEGACY
from ...core.denoiser import Denoiser, Meaning
from ...core.discrete import Betas
from ...core.errors import ConfigError, UnknownNameError, UsageError, WeightsError
from ...core.files import sha256, write_json
from ...core.program import Network
from ...core.weights import read_json
from ...text.joined import Joined
from ...text.labels import Labels
from ...text.transformers_encoder import TransformersEncoder, load_text_encoder
from ..components import read_codec, refuse_pickles, save_codec
from ..settings import Defaults
from ..text_to_image import TextToImage
from .kinds import Kind, Text, Ways, class_name, kind
from .schedulers import Scheduler, read, write


def load_published(
    folder: Path, index: Mapping[str, Any], device: str, dtype: torch.dtype,
    text_tokens: int | None = None, instruction: str | None = None, ways: Ways = "original",
) -> TextToImage:  # fmt: skip
    """The pipeline in `folder`, whose model_index.json is `index`; the network and codec stay on the CPU, text encoders go to `device`.

    `text_tokens`: how many tokens T5 or Gemma reads, `instruction`: what is put before prompts; None = as in `ways`. Raises
    `UnknownNameError` for a class that is not supported, `WeightsError` for a missing component or file, `ConfigError` for a config that
    is not computed here.
    """
    name = class_name(index)
    made_of = _asked(name, kind(name, ways), text_tokens, instruction)
    _check_components(folder, index, name, made_of)
    scheduler = read_scheduler(folder, made_of)
    config = read_json(folder / "transformer" / "config.json")
    for component in ("transformer", "vae"):
        refuse_pickles(folder / component)
    net = load_network(folder / "transformer")
    if (family := backbones.name_of(type(net))) != formats.get(made_of.transformer).family:
        raise ConfigError(f"{folder / 'transformer'} holds a {family}", f"a {name}'s transformer is a {made_of.transformer}")
    codec = read_codec(folder / "vae")
    return TextToImage(
        encoder=_encoder(folder, index, name, made_of, config, net, text_tokens, device, dtype),
        denoiser=Denoiser(net, network_meaning(made_of, scheduler, ways)),
        codec=codec,
        slots=made_of.slots,
        defaults=published_defaults(made_of, config, scheduler, codec.factor),
        identity={"name": folder.name, "sha256": _checksum(folder / "transformer"), "codec_sha256": _checksum(folder / "vae")},
    )


def network_meaning(made_of: Kind, scheduler: Scheduler, ways: Ways = "original") -> Meaning:
    """What the network's numbers are. Of a discrete schedule that is the scheduler's to say: fine-tuned networks keep their class and
    predict v, say.
    """
    own = formats.get(made_of.transformer).meaning
    if isinstance(own.path, Betas) != isinstance(scheduler.meaning.path, Betas):
        raise ConfigError(f"a {made_of.transformer} predicts {own}, its scheduler {scheduler.meaning}", "fetch both from one place")
    if isinstance(own.path, Betas):
        return scheduler.meaning
    return replace(own, time_map="whole") if scheduler.whole and ways == "diffusers" else own


def _asked(name: str, made_of: Kind, text_tokens: int | None, instruction: str | None) -> Kind:
    """`made_of` with what the user asked for. Raises `UsageError` where it would change nothing."""
    if text_tokens is not None and not any(text.tokens for text in made_of.texts):
        raise UsageError(f"text_tokens is {text_tokens}", f"the tokenizers of a {name} say how much they read")
    if instruction is None:
        return made_of
    if not any(text.instruction for text in made_of.texts):
        raise UsageError(f"the instruction {instruction!r}", f"a {name} reads prompts without one")
    return replace(made_of, texts=tuple(replace(t, instruction=instruction) if t.instruction else t for t in made_of.texts))


def read_scheduler(folder: Path, made_of: Kind) -> Scheduler:
    """What the folder's scheduler says, if it is one of the pipeline's."""
    path = folder / "scheduler" / "scheduler_config.json"
    config = read_json(path)
    name = str(config.get("_class_name", "?"))
    try:
        if name not in made_of.schedulers:
            raise UnknownNameError("scheduler class of this pipeline", name, made_of.schedulers)
        scheduler = read(config, made_of.even)
        if scheduler.layout.scaling == "tokens" and not made_of.sized:
            raise ConfigError("a shift that follows the size (use_dynamic_shifting)", "this pipeline was published with a fixed one")
        return scheduler
    except (ConfigError, UnknownNameError) as error:
        raise ConfigError(f"{path}: {error.message}", error.hint) from error


def published_defaults(made_of: Kind, config: Mapping[str, Any], scheduler: Scheduler, factor: int) -> Defaults:
    """How the pipeline was released to be sampled; `config`: the transformer's."""
    side = (made_of.side or int(config.get("sample_size", 128))) * factor
    steps, guidance, _ = made_of.settings(config)
    return Defaults(
        (side, side), steps, guidance, scheduler.solver, scheduler.shift, scheduler.layout,
        guide=made_of.guide, other_sizes=made_of.other_sizes,
    )  # fmt: skip


def _check_components(folder: Path, index: Mapping[str, Any], name: str, made_of: Kind) -> None:
    """Refuse a folder without a component that is needed, with one that would be ignored, or of another class than is computed."""
    needed: dict[str, tuple[str, ...]] = {
        "transformer": (made_of.transformer, LEGACY),
        "vae": (made_of.codec,),
        "scheduler": made_of.schedulers,
    }
    needed |= {text.folder: text.classes for text in made_of.texts} | {text.tokenizer: () for text in made_of.texts}
    optional = {part for text in made_of.texts if text.optional for part in (text.folder, text.tokenizer)}
    for part, classes in needed.items():
        entry = index.get(part) or [None, None]
        if entry[1] is None:
            if part not in optional:
                raise WeightsError(f"{folder / 'model_index.json'} has no {part}", f"a {name} needs {', '.join(needed)}")
        elif classes and entry[1] not in classes:
            raise UnknownNameError(f"class of a {name}'s {part}", str(entry[1]), classes)
    for part, entry in index.items():
        if not part.startswith("_") and part not in needed and isinstance(entry, list) and entry[1] is not None:
            raise ConfigError(f"{folder / 'model_index.json'} has a {part} ({entry[1]})", f"a {name} is drawn from {', '.join(needed)}")


def _encoder(
    folder: Path, index: Mapping[str, Any], name: str, made_of: Kind, config: Mapping[str, Any], net: Network, text_tokens: int | None,
    device: str, dtype: torch.dtype,
) -> Joined | Labels:  # fmt: skip
    shape: Any = net.config
    if not made_of.texts:
        return Labels(name, shape.classes, index.get("id2label"))
    asked = made_of.settings(config)[2] if text_tokens is None else text_tokens

    def load(text: Text) -> TransformersEncoder:
        longest = (asked or text.tokens) if text.tokens else None
        return load_text_encoder(
            folder, text.folder, text.tokenizer, (text.layer,), longest, padding=text.padding, lower=text.lower, strip=text.strip,
            instruction=text.instruction, hidden=text.hidden, device=device, dtype=dtype,
        )  # fmt: skip

    parts = {text.folder: load(text) for text in made_of.texts if (index.get(text.folder) or [None, None])[1] is not None}
    absent = [text for text in made_of.texts if text.folder not in parts]
    return Joined(name, parts, made_of.joined, shape.text_width, sum(asked or text.tokens for text in absent))


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
    config = write(Scheduler(meaning if isinstance(meaning.path, Betas) else Meaning(), defaults.layout, defaults.solver, defaults.shift))
    if (family := of_family(backbones.name_of(type(pipe.denoiser.net))).class_name) != made_of.transformer:
        raise UsageError(f"a {name} with a {family}", f"its transformer is a {made_of.transformer}")
    write_json(folder / "scheduler" / "scheduler_config.json", config)
    _write_network(pipe, folder / "transformer", made_of, dtype)
    save_codec(pipe.codec, folder / "vae", dtype=dtype)
    index: dict[str, Any] = {"_class_name": name, "_diffusers_version": _diffusers_version()}
    index |= {"transformer": ["diffusers", made_of.transformer], "vae": ["diffusers", made_of.codec]}
    index["scheduler"] = ["diffusers", config["_class_name"]]
    index |= {part: [None, None] for part in made_of.optional}
    if isinstance(encoder, Labels):
        index |= {"id2label": encoder.published} if encoder.published else {}
    else:
        index |= _write_texts(encoder, made_of, folder)
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
    if made_of.side:
        return
    # Their pipelines read the default size, and PixArt's whether sizes are told, off sample_size; positions hang on side / patch / scale.
    config, side = read_json(folder / "config.json"), pipe.defaults.size[0] // pipe.codec.factor
    if config.get("interpolation_scale"):
        config["interpolation_scale"] = side / config["sample_size"] * config["interpolation_scale"]
    write_json(folder / "config.json", {**config, "sample_size": side})


def _diffusers_version() -> str:
    import diffusers

    return str(diffusers.__version__)


def _checksum(folder: Path) -> str:
    """sha256 of the folder's one weights file, or of its shards' digests in the order of their names."""
    files = sorted(folder.glob("*.safetensors"))
    digests = [sha256(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
