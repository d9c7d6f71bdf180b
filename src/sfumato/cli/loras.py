"""LoRAs on the command line: FILE or FILE:WEIGHT as people write it, and those that a saved picture was drawn with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import SfumatoError, UsageError, WeightsError
from ..core.files import sha256
from . import png
from .verb import note

if TYPE_CHECKING:
    from ..pipelines.text_to_image import TextToImage
    from ..surgery import Lora


@dataclass(frozen=True)
class Asked:
    """A LoRA as it was asked for."""

    path: str
    weight: float

    @property
    def sha256(self) -> str:
        """Of its file. Raises `WeightsError` for a folder that holds none."""
        from ..surgery.lora_raw import file_of

        return sha256(file_of(self.path))


def parse(words: Sequence[str]) -> tuple[Asked, ...]:
    """Each of "FILE" or "FILE:WEIGHT". Raises `UsageError` for a file that is not there, so that no model is loaded in vain."""
    return tuple(map(_parse, words))


def _parse(word: str) -> Asked:
    name, colon, tail = word.rpartition(":")
    path, weight = word, 1.0
    if colon and not Path(word).exists():
        try:
            path, weight = name, float(tail)
        except ValueError as error:
            if Path(name).exists():
                raise UsageError(f"the weight {tail!r} of the LoRA {name} is no number", f"--lora {name}:0.8") from error
    if weight != weight or weight in (float("inf"), float("-inf")):
        raise UsageError(f"the weight of the LoRA {path} is {weight}", "a number: 1 = as trained, 0 = not at all")
    if not path or not Path(path).exists():
        raise UsageError(f"there is no LoRA {path}", "--lora FILE.safetensors, or FILE.safetensors:0.8 for another weight than 1")
    return Asked(path, weight)


def load(asked: Sequence[Asked], pipe: TextToImage, partial: bool) -> tuple[Lora, ...]:
    """The LoRAs for this pipeline."""
    return tuple(pipe.lora(one.path, one.weight, partial) for one in asked)


def say(loras: Sequence[Lora]) -> None:
    """A remark on each that says what it changes, and what was left out."""
    for lora in loras:
        if lora.report is not None:
            note(lora.report.summary)
            for reason in lora.report.reasons():
                note(f"left out: {reason}")


def check(recorded: Sequence[png.LoraId], picture: Path) -> None:
    """Raise `WeightsError` unless every file that `picture` was drawn with is still where it was, bit for bit."""
    from ..surgery.lora_raw import file_of

    for one in recorded:
        try:
            found = sha256(file_of(one.path))
        except SfumatoError as error:
            raise WeightsError(f"{picture} was drawn with the LoRA {one.path}: {error.message}", "put it back where it was") from error
        if found != one.sha256:
            raise WeightsError(
                f"{picture} was drawn with another LoRA: {one.path} had sha256 {one.sha256}, this one has {found}",
                "put the former file back",
            )


def again(recorded: Sequence[png.LoraId], pipe: TextToImage, picture: Path) -> tuple[Lora, ...]:
    """The LoRAs of a saved picture; what did not fit was left out then, and is now."""
    check(recorded, picture)
    return tuple(pipe.lora(one.path, one.weight, partial=True) for one in recorded)
