"""A published pipeline's folder, read into a `TextToImage` and written from one. Safetensors only; nothing is fetched or executed.

model_index.json     the pipeline's class, and of each component [library, class], [null, null] where there is none
transformer/, vae/, scheduler/, text_encoder*/, tokenizer*/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ...backbones import backbones
from ...backbones.checkpoints import FORMER_CLASS, class_of, formats, of_family
from ...backbones.checkpoints.folder import load_network, save_network
from ...core.denoiser import Denoiser, Meaning
from ...core.discrete import Betas
from ...core.errors import ConfigError, UnknownNameError, UsageError, WeightsError
from ...core.files import write_json
from ...core.memory import require_memory
from ...core.program import Network
from ...core.weights import pipeline_bytes, read_json
from ...text.captions import cleaner, lowered
from ...text.joined import Joined
from ...text.labels import Labels
from ...text.transformers_encoder import TransformersEncoder, empty_text_model, load_text_encoder
from ..bins import SIDES
from ..components import read_codec, refuse_pickles, save_codec
from ..identity import Identity
from ..settings import Defaults
from ..text_to_image import TextToImage
from .kinds import WAYS, ZEROS, Kind, Text, Ways, class_name, kind
from .schedulers import Scheduler, read, write


@dataclass(frozen=True)
class Wishes:
    """What `load` is asked of a published pipeline beside where it goes; see there. `text_tokens`, `instruction`: None = as in `ways`."""

    text_tokens: int | None = None
    clean_captions: bool = False
    instruction: str | None = None
    ways: Ways = "original"


def load_published(folder: Path, index: Mapping[str, Any], device: str, dtype: torch.dtype, wishes: Wishes | None = None) -> TextToImage:
    """The pipeline in `folder`, whose model_index.json is `index`; the network and codec are on the CPU, text encoders on `device`.

    Raises `UnknownNameError` for a class that is not supported, `WeightsError` for a missing component or file, `ConfigError` for a config
    that is not computed here, `UsageError` for a wish that would change nothing.
    """
    name = class_name(index)
    wishes = wishes or Wishes()
    made_of = _asked(name, kind(name, wishes.ways), wishes)
    _check_components(folder, index, name, made_of)
    scheduler = read_scheduler(folder, made_of)
    config = read_json(folder / made_of.component / "config.json")
    for component in (made_of.component, "vae"):
        refuse_pickles(folder / component)
    if (found := class_of(config)) != made_of.transformer:
        raise ConfigError(f"{folder / made_of.component / 'config.json'} is of a {found}", f"a {name} has a {made_of.transformer}")
    require_memory(f"the pipeline in {folder}", partial(pipeline_bytes, folder), dtype, device)
    net = load_network(folder / made_of.component)
    codec, shape = read_codec(folder / "vae"), cast(Any, net.config)
    return TextToImage(
        encoder=_encoder(folder, index, name, made_of, config, net, wishes, device, dtype),
        denoiser=Denoiser(net, network_meaning(made_of, scheduler)),
        codec=codec,
        # The class that stands for none is one beyond the classes.
        slots=tuple(replace(slot, value=float(shape.classes)) if slot.null == "value" else slot for slot in made_of.told(index)),
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
    return replace(own, time_map="whole") if scheduler.layout.whole and not made_of.exact else own


def _asked(name: str, made_of: Kind, wishes: Wishes) -> Kind:
    """`made_of` with what the user asked for. Raises `UsageError` where it would change nothing."""
    if wishes.text_tokens is not None and not any(text.tokens for text in made_of.texts):
        raise UsageError(f"text_tokens is {wishes.text_tokens}", f"the tokenizers of a {name} say how much they read")
    texts = made_of.texts
    if wishes.clean_captions:
        if not any(text.prepare is lowered for text in texts):
            raise UsageError(
                f"clean_captions, and a {name} reads prompts as they are", "it is for PixArt, which was trained on cleaned captions"
            )
        cleaned = cleaner()
        texts = tuple(replace(text, prepare=cleaned) if text.prepare is lowered else text for text in texts)
    if wishes.instruction is not None:
        if not any(text.instruction for text in texts):
            raise UsageError(f"the instruction {wishes.instruction!r}", f"a {name} reads prompts without one")
        texts = tuple(replace(text, instruction=wishes.instruction) if text.instruction else text for text in texts)
    return replace(made_of, texts=texts)


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
    if scheduler.solver == "renoise":
        steps, guidance = made_of.distilled.get(scheduler.shift, (steps, 1.0))
    # The sizes are those of codecs that shrink eightfold, which all released ones do.
    bins = side if made_of.binned and factor == 8 and side in SIDES else 0
    return Defaults(
        (side, side), steps, guidance, scheduler.solver, scheduler.shift, scheduler.layout,
        bins=bins, guide=made_of.guide, other_sizes=made_of.other_sizes,
    )  # fmt: skip


def _check_components(folder: Path, index: Mapping[str, Any], name: str, made_of: Kind) -> None:
    """Refuse a folder without a component that is needed, with one that would be ignored, or of another class than is computed."""
    needed: dict[str, tuple[str, ...]] = {
        made_of.component: (made_of.transformer, FORMER_CLASS),
        "vae": (made_of.codec,),
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
    folder: Path, index: Mapping[str, Any], name: str, made_of: Kind, config: Mapping[str, Any], net: Network, wishes: Wishes,
    device: str, dtype: torch.dtype,
) -> Joined | Labels:  # fmt: skip
    shape: Any = net.config
    if not made_of.texts:
        return Labels(name, shape.classes, index.get("id2label"))
    asked = made_of.settings(config)[2] if wishes.text_tokens is None else wishes.text_tokens

    def load(text: Text) -> TransformersEncoder:
        longest = (asked or text.tokens) if text.tokens else None
        layers = range(1, 2 + max(config["llama_layers"])) if text.taps else (text.layer,)
        return load_text_encoder(
            folder, text.folder, text.tokenizer, layers, longest, padding=text.padding, prepare=text.prepare, instruction=text.instruction,
            hidden=text.hidden, ends=text.taps, device=device, dtype=dtype,
        )  # fmt: skip

    parts = {text.folder: load(text) for text in made_of.texts if _has(index, text.folder)}
    absent = [text for text in made_of.texts if text.folder not in parts]
    return Joined(name, parts, made_of.joined, shape.text_width, sum(asked or text.tokens for text in absent))


def empty_texts(folder: Path, index: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The models of a published pipeline's text encoders, by folder, on meta."""
    texts = kind(class_name(index)).texts
    return {text.folder: empty_text_model(folder / text.folder) for text in texts if _has(index, text.folder)}


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
    scheduler = Scheduler(meaning if isinstance(meaning.path, Betas) else Meaning(), defaults.layout, defaults.solver, defaults.shift)
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
    index |= {part: [None, None] for part in (*made_of.optional, *made_of.unrun)}
    if "safety_checker" in made_of.unrun:
        index["requires_safety_checker"] = False
    if made_of.zeros is not None:
        index[ZEROS] = all(slot.null == "zeros" for slot in pipe.slots)
    if "text_encoder" in made_of.optional:
        index["requires_aesthetics_score"] = "aesthetic" in pipe.denoiser.net.slots
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


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))
