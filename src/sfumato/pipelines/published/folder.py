"""A published pipeline's folder, read into a `TextToImage`. Safetensors only; nothing is fetched or executed.

model_index.json     the pipeline's class, and of each component [library, class], [null, null] where there is none
transformer/, vae/, scheduler/, text_encoder*/, tokenizer*/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...backbones.checkpoints import FORMER_CLASS, class_of, formats
from ...backbones.checkpoints.folder import load_network
from ...core.denoiser import Denoiser, Meaning
from ...core.discrete import Betas
from ...core.errors import ConfigError, UnknownNameError, UsageError, WeightsError
from ...core.memory import require_memory
from ...core.program import Network
from ...core.weights import Shards, pipeline_bytes, read_json, require_weights
from ...text.captions import cleaner, lowered
from ...text.joined import Joined
from ...text.labels import Labels
from ...text.transformers_encoder import TransformersEncoder, empty_text_model, load_text_encoder
from ..bins import SIDES
from ..components import read_codec
from ..identity import Identity
from ..settings import Defaults
from ..text_to_image import TextToImage
from .kinds import Kind, Said, Text, Ways, class_name, kind
from .schedulers import Scheduler, read


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
    made_of = kind(name, wishes.ways)
    _check_components(folder, index, name, made_of)
    made_of, said = read_settled(folder, index, made_of)
    made_of = _asked(name, made_of, wishes)
    for component in (made_of.component, "vae"):
        require_weights(folder / component)
    require_memory(f"the pipeline in {folder}", partial(pipeline_bytes, folder), dtype, device)
    net, codec = load_network(folder / made_of.component, dtype), read_codec(folder / "vae")
    pipe = TextToImage(
        encoder=_encoder(folder, index, name, made_of, net, device, dtype),
        denoiser=Denoiser(net, network_meaning(made_of, said.scheduler)),
        codec=codec,
        slots=made_of.slots,
        defaults=published_defaults(made_of, said, codec.factor),
        identity=Identity(folder.name, {"sha256": Shards(folder / made_of.component).files, "codec_sha256": Shards(folder / "vae").files}),
        notes=tuple(f"this folder's {part} is not run here" for part in made_of.unrun if _has(index, part)),
        refines=made_of.refines,
    )
    return made_of.completed(pipe, folder)


def read_settled(folder: Path, index: Mapping[str, Any], made_of: Kind) -> tuple[Kind, Said]:
    """`made_of` with what the folder's files say beside their class, and that. Raises `ConfigError` for what is not computed here."""
    scheduler, path = _read_scheduler(folder, made_of), folder / made_of.component / "config.json"
    said = Said(folder, index, read_json(path), scheduler)
    if (found := class_of(said.config)) != made_of.transformer:
        raise ConfigError(f"{path} is of a {found}", f"a {class_name(index)} has a {made_of.transformer}")
    return made_of.settled(made_of, said), said


def _has(index: Mapping[str, Any], part: str) -> bool:
    entry = index.get(part)
    return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None


def network_meaning(made_of: Kind, scheduler: Scheduler) -> Meaning:
    """What the network's numbers are. Of a discrete schedule that is the scheduler's to say: fine-tuned networks keep their class and
    predict v, say. A flow's network itself says which way it points, the scheduler how finely it is told the time.
    """
    own = formats.get(made_of.transformer).meaning
    if isinstance(own.path, Betas) != isinstance(scheduler.meaning.path, Betas):
        raise ConfigError(f"a {made_of.transformer} predicts {own}, its scheduler {scheduler.meaning}", "fetch both from one place")
    meaning = scheduler.meaning if isinstance(own.path, Betas) else replace(own, time_map="whole") if scheduler.layout.whole else own
    return meaning if made_of.time_map is None else replace(meaning, time_map=made_of.time_map)


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
    if wishes.text_tokens is not None:
        texts = tuple(replace(text, tokens=wishes.text_tokens) if text.tokens else text for text in texts)
    return replace(made_of, texts=texts)


def _read_scheduler(folder: Path, made_of: Kind) -> Scheduler:
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


def published_defaults(made_of: Kind, said: Said, factor: int) -> Defaults:
    """How the pipeline was released to be sampled; `factor`: pixels of a latent cell."""
    height, width = (cells * factor for cells in _trained(said.config.get("sample_size"), made_of))
    scheduler = said.scheduler
    # The sizes are those of the codecs that were released.
    bins = height if made_of.binned and factor in (8, 32) and height == width and height in SIDES else 0
    return Defaults(
        (height, width), made_of.steps, made_of.guidance, scheduler.solver, scheduler.shift, scheduler.layout,
        bins=bins, guide=made_of.guide, other_sizes=made_of.other_sizes,
    )  # fmt: skip


def _trained(said: Any, made_of: Kind) -> tuple[int, int]:
    """Rows and columns of latent cells, of a config's sample_size."""
    sides = (made_of.side,) * 2 if said is None else tuple(said) if isinstance(said, list) else (said, said)
    if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
        raise ConfigError(f"sample_size is {said!r}", "a number of latent cells, [rows, columns], or null")
    return sides[0], sides[1]


def _check_components(folder: Path, index: Mapping[str, Any], name: str, made_of: Kind) -> None:
    """Refuse a folder without a component that is needed, with one that would be ignored or a flag that is not known, or of another class
    than is computed.
    """
    needed: dict[str, tuple[str, ...]] = {
        made_of.component: (made_of.transformer, FORMER_CLASS),
        "vae": (made_of.codec,),
        "scheduler": made_of.schedulers,
        **made_of.needs,
    }
    needed |= {text.folder: text.classes for text in made_of.texts} | {text.tokenizer: () for text in made_of.texts}
    optional = {part for text in made_of.texts if text.optional for part in (text.folder, text.tokenizer)}
    for part, classes in needed.items():
        if not _has(index, part):
            if part not in optional:
                raise WeightsError(f"{folder / 'model_index.json'} has no {part}", f"a {name} needs {', '.join(needed)}")
        elif classes and index[part][1] not in classes:
            raise UnknownNameError(f"class of a {name}'s {part}", str(index[part][1]), classes)
    known = {*needed, *made_of.unrun, *made_of.idle}
    for part, entry in index.items():
        if part.startswith("_") or part in known or part in made_of.flags or entry is None:
            continue
        if not isinstance(entry, list) or len(entry) != 2:
            raise UnknownNameError(f"entry of a {name}'s model_index.json", part, [*known, *made_of.flags])
        if _has(index, part):
            raise ConfigError(f"{folder / 'model_index.json'} has a {part} ({entry[1]})", f"a {name} is drawn from {', '.join(needed)}")


def _encoder(
    folder: Path, index: Mapping[str, Any], name: str, made_of: Kind, net: Network, device: str, dtype: torch.dtype
) -> Joined | Labels:
    shape: Any = net.config
    if not made_of.texts:
        return Labels(name, shape.classes, index.get("id2label"))

    def load(text: Text) -> TransformersEncoder:
        return load_text_encoder(
            folder, text.folder, text.tokenizer, text.layers, text.tokens or None, padding=text.padding, prepare=text.prepare,
            instruction=text.instruction, hidden=text.hidden, ends=text.ends, device=device, dtype=dtype,
        )  # fmt: skip

    parts = {text.folder: load(text) for text in made_of.texts if _has(index, text.folder)}
    absent = [text for text in made_of.texts if text.folder not in parts]
    return Joined(name, parts, made_of.joined, made_of.width or shape.text_width, sum(text.tokens for text in absent))


def empty_texts(folder: Path, index: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The models of a published pipeline's text encoders, by folder, on meta."""
    texts = kind(class_name(index)).texts
    return {text.folder: empty_text_model(folder / text.folder) for text in texts if _has(index, text.folder)}
