"""What each published pipeline is made of: one file per family of pipelines, which declares and publishes its `Kind`s.

A kind is what a pipeline's class name says. What its files say beside that is its `settled`; what it is made of beyond a network, texts
and a codec, its `completed` and `written`. `load` reads no pipeline's name, so that another pipeline is another file here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Literal

from ....backbones.checkpoints import formats
from ....core.conditions import Slot
from ....core.denoiser import TimeMap
from ....core.errors import ConfigError, UnknownNameError
from ....core.registry import Registry
from ....core.weights import read_json
from ....sampling.guidance import Guide
from ....sampling.policies.extrapolation import OtherSizes
from ....text.captions import Prepare, as_it_is
from ....text.joined import How
from ....text.transformers_encoder import Padding
from ..schedulers import Scheduler

if TYPE_CHECKING:
    from ...text_to_image import TextToImage

Ways = Literal["original", "diffusers"]
WAYS: tuple[Ways, ...] = ("original", "diffusers")


@dataclass(frozen=True)
class Text:
    """A text encoder in `folder` with its `tokenizer`; `classes` of transformers that it may be. `layers`: of the states that are taken.

    `tokens`: how many it reads; 0 = what its tokenizer declares.   `prepare`: what is done to a prompt first.
    `instruction`, `hidden`: words before every prompt, see `TransformersEncoder`.   `optional`: a folder without it still draws.
    `ends`: the token that ends a text also pads it.
    """

    folder: str
    tokenizer: str
    classes: tuple[str, ...]
    layers: tuple[int, ...] = (-1,)
    tokens: int = 0
    padding: Padding = "masked"
    prepare: Prepare = as_it_is
    instruction: str = ""
    hidden: bool = False
    optional: bool = False
    ends: bool = False


@dataclass(frozen=True)
class Said:
    """What a folder's files say: model_index.json, the network's config, the scheduler's."""

    folder: Path
    index: Mapping[str, Any]
    config: Mapping[str, Any]
    scheduler: Scheduler


def _as_it_is(kind: Kind, said: Said) -> Kind:
    return kind


def _complete(pipe: TextToImage, folder: Path) -> TextToImage:
    return pipe


def _nothing(pipe: TextToImage, folder: Path) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Kind:
    """One pipeline class of diffusers, drawn in one of `WAYS`.

    `transformer`, `codec`: classes of the network and of the vae.   `texts`: none = it is asked for class labels.   `schedulers`: classes
    that it may have.   `slots`: what its network reads.   `steps`, `guidance`: as released.   `even`: it hands evenly spaced sigmas to its
    scheduler.   `sized`: its shift may follow the picture's size.   `time_map`: how its network is told the time, where that is not its
    scheduler's to say.   `side`: rows of latent cells that it was trained at, where the network's config does not say.   `binned`: drawn at
    the nearest of the sizes it was trained at.   `guide`, `other_sizes`: see `Defaults`.   `flags`: entries of model_index.json that are no
    components.   `refines`: see `TextToImage`.

    Components beyond these, by folder. `needs`: must be there, one of these classes.   `optional`: may be null, and have to be: they are of
    uses that are not drawn here.   `unrun`: may be there and change nothing in a picture, but are not run here, which every picture then
    says.   `idle`: may be there, for those that are not run.

    `settled(kind, said)`: the kind of a folder whose files say more than their class.   `completed(pipe, folder)`: the pipeline with what
    it has beyond a `TextToImage`.   `written(pipe, folder)`: writes that, and gives the entries of model_index.json that are this class's
    own.   `width`: of the texts' states, where they do not go into the network as they are.
    """

    transformer: str
    texts: tuple[Text, ...]
    joined: How
    schedulers: tuple[str, ...]
    slots: tuple[Slot, ...]
    steps: int
    guidance: float
    codec: str = "AutoencoderKL"
    even: bool = False
    sized: bool = False
    time_map: TimeMap | None = None
    width: int = 0
    side: int = 128
    binned: bool = False
    guide: Guide = field(default_factory=Guide)
    other_sizes: OtherSizes | None = None
    flags: tuple[str, ...] = ()
    refines: bool = False
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    unrun: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    settled: Callable[[Kind, Said], Kind] = _as_it_is
    completed: Callable[[TextToImage, Path], TextToImage] = _complete
    written: Callable[[TextToImage, Path], Mapping[str, Any]] = _nothing

    @property
    def component(self) -> str:
        """The network's folder."""
        return formats.get(self.transformer).component


def masked(kind: Kind, said: Said) -> Kind:
    """`kind` with padding that its CLIP does not attend to, where that one's config says `use_attention_mask`."""
    config = read_json(said.folder / "text_encoder" / "config.json")
    return replace(kind, texts=tuple(replace(text, padding="kept") for text in kind.texts)) if config.get("use_attention_mask") else kind


# What several pipelines share.
DISCRETE = ("DPMSolverMultistepScheduler", "DDIMScheduler")
FLOW = ("FlowMatchEulerDiscreteScheduler",)
T5 = ("T5EncoderModel",)
CLIP, PROJECTED_CLIP = ("CLIPTextModel",), ("CLIPTextModelWithProjection",)
# The uncond lane reads the empty prompt.
TEXT, POOLED = Slot("text", null="empty"), Slot("pooled", null="empty")

_published: Registry[Mapping[Ways, Kind]] = Registry("pipeline class")
_former: dict[str, str] = {}
_refused: dict[str, str] = {}


def publish(name: str, original: Kind, diffusers: Kind | None = None, former: str = "") -> None:
    """Make a pipeline class known. `diffusers`: as it is drawn there, where its original code does otherwise.   `former`: its old name."""
    _published.add(name)({"original": original, "diffusers": diffusers or original})
    if former:
        _former[former] = name


def refuse(name: str, why: str) -> None:
    """Make a pipeline class known as one whose network can be read and whose way of drawing is not here."""
    _refused[name] = why


def class_name(index: Mapping[str, Any]) -> str:
    """The pipeline class that a model_index.json names, by its present name."""
    _read()
    name = str(index.get("_class_name", "?"))
    return _former.get(name, name)


def kind(name: str, ways: Ways = "original") -> Kind:
    """The published pipeline of this class name, drawn as in its original code or as in diffusers. Raises `UnknownNameError`, and
    `ConfigError` for one that is known and refused.
    """
    _read()
    if ways not in WAYS:
        raise UnknownNameError("ways", ways, WAYS)
    if name in _refused:
        raise ConfigError(f"a {name} is not drawn here", _refused[name])
    return _published.get(name)[ways]


@cache
def _read() -> None:
    """Every file beside this one, once."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
