"""What is done to a prompt before it is read: white space goes, lower case, or the cleaning that PixArt's captions went through.

That cleaning (DeepFloyd IF's: markup, links, numbers, runs of punctuation) stands on ftfy and beautifulsoup and is exact only with them,
so it is diffusers' own that runs here.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from sfumato.core.errors import UsageError

Prepare = Callable[[str], str]


def as_it_is(prompt: str) -> str:
    return prompt


def lowered(prompt: str) -> str:
    """In lower case, without white space around it."""
    return prompt.lower().strip()


def stripped(prompt: str) -> str:
    """Without white space around it."""
    return prompt.strip()


def cleaner() -> Prepare:
    """The cleaning of PixArt's captions, applied twice as there. Raises `UsageError` where a package that it needs is not installed."""
    missing = [package for module, package in (("ftfy", "ftfy"), ("bs4", "beautifulsoup4")) if find_spec(module) is None]
    if missing:
        raise UsageError(f"captions are cleaned with {' and '.join(missing)}, not installed here", f"pip install {' '.join(missing)}")
    from diffusers import PixArtAlphaPipeline

    # It reads nothing of a pipeline but a constant of its class, so one without components will do.
    pipe = object.__new__(PixArtAlphaPipeline)
    return lambda prompt: str(pipe._text_preprocessing(prompt, clean_caption=True)[0])
