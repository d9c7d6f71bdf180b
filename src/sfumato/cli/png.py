"""A picture that knows how it was made: a PNG text chunk named "sfumato" holds, as JSON, all that is needed to draw it again."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .. import __version__
from ..core.config import from_dict, to_dict
from ..core.errors import ConfigError, UsageError
from ..core.files import write_with

if TYPE_CHECKING:
    from PIL.Image import Image

CHUNK = "sfumato"


@dataclass(frozen=True)
class ModelId:
    """`name`: what the model calls itself.   path: what the user loaded.   sha256, codec_sha256: of its weight files."""

    name: str
    path: str
    sha256: str
    codec_sha256: str


@dataclass(frozen=True)
class Machine:
    """What the last bits of a picture hang on besides the settings. `capability`: the CPU's instruction set as torch names it."""

    torch: str
    threads: int
    capability: str

    @classmethod
    def here(cls) -> Machine:
        import torch

        return cls(torch.__version__, torch.get_num_threads(), torch.backends.cpu.get_cpu_capability())


@dataclass(frozen=True)
class Chosen:
    """Why this picture and no other: `scorer` gave it `score`, the most of `of` candidates whose seeds follow from `seed`."""

    scorer: str
    score: float
    of: int
    seed: int


@dataclass(frozen=True)
class LoraId:
    """A LoRA that a picture was drawn with: the file as the user named it, its checksum, how strongly it acted."""

    path: str
    sha256: str
    weight: float


@dataclass(frozen=True)
class SourceId:
    """The picture that another one started from: the file as the user named it, its checksum."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Loaded:
    """How a published model was loaded, see `sfumato.load`; None = as in `ways`."""

    text_tokens: int | None = None
    clean_captions: bool = False
    instruction: str | None = None
    ways: Literal["original", "diffusers"] = "original"


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one model drew with. `size`: (height, width).   `cfg`: None where the network is told no guidance.

    `binned`: drawn at a trained size and resized.   `packed`: by packed weights.   `micro`: numbers of a training picture, by slot.
    `layout`, `guide`: the fields of its `Layout` and `Guide`; None in pictures of versions that did not say, which had the model's own.
    """

    model: ModelId
    negative: str
    steps: int
    guidance: float
    solver: str
    size: tuple[int, int]
    shift: float
    dtype: str
    device: str
    loaded: Loaded = Loaded()
    cfg: float | None = None
    binned: bool = False
    packed: bool = False
    layout: dict[str, Any] | None = None
    guide: dict[str, Any] | None = None
    micro: dict[str, tuple[float, ...]] = field(default_factory=dict)
    loras: tuple[LoraId, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RefinerShare(Share):
    """What a refiner drew with after `at` of the way.   tokens: length of the batch's longest text, as it reads it."""

    at: float
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Record(Share):
    """How one picture was made.   frame: (rows, row, text tokens) of the batch it was drawn in.

    `seed` is the picture's own, also where it was chosen among several.   `refiner`: what went on where the model left off.
    `picture`: the one that it started from, and `strength` how much of that was drawn anew.
    """

    prompt: str
    seed: int
    frame: tuple[int, int, int]
    machine: Machine
    sfumato: str = __version__
    chosen: Chosen | None = None
    refiner: RefinerShare | None = None
    picture: SourceId | None = None
    strength: float | None = None


def save(picture: Image, record: Record, path: Path) -> None:
    """Write `picture` with its record to `path`, whole or not at all. Raises `OutputError` on a full or read-only disk."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text(CHUNK, json.dumps(to_dict(record)))  # pure ASCII, as a tEXt chunk wants it
    write_with(path, lambda temporary: picture.save(temporary, "PNG", pnginfo=info))


def read(path: Path) -> Record:
    """The record in the PNG `path`. Raises `UsageError` when there is no such file, no PNG, no record or a damaged one."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=("PNG",)) as picture:
            text: dict[str, Any] = picture.text  # type: ignore[attr-defined]
    except FileNotFoundError as error:
        raise UsageError(f"there is no picture {path}", "name a PNG that sfumato generate saved") from error
    except UnidentifiedImageError as error:
        raise UsageError(f"{path} is not a PNG", "other formats lose the record of how a picture was made") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}", "name a PNG that sfumato generate saved") from error
    if CHUNK not in text:
        raise UsageError(
            f"{path} does not say how it was made: it has no {CHUNK!r} text chunk",
            "only a PNG as sfumato generate saved it can be drawn again; editors, chats and web sites often strip the chunk",
        )
    try:
        return from_dict(Record, json.loads(text[CHUNK]))
    except (ValueError, TypeError, AttributeError, ConfigError) as error:
        raise UsageError(f"the record in {path} cannot be read: {error}", "was it made by a newer sfumato?") from error
