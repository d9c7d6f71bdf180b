"""Every knob bites: each option of the command line, set to another value, changes the plan, the output or the files, or is refused.

One file of tests a verb; a new option without a line in a table there fails its test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from .conftest import Ran


@dataclass(frozen=True)
class Knob:
    """`words` set the option; `bites(plain, turned)` says whether that showed."""

    words: tuple[str, ...]
    bites: Callable[[Ran, Ran], bool]


def pixels(ran: Ran) -> list[bytes]:
    found = []
    for line in ran.lines:
        with Image.open(line["path"]) as picture:
            found.append(picture.tobytes())
    return found


def redrawn(field: str) -> Callable[[Ran, Ran], bool]:
    """The record names the change and the pixels are others."""
    return lambda plain, turned: plain.lines[0][field] != turned.lines[0][field] and pixels(plain) != pixels(turned)


def refused(said: str, code: int = 2) -> Callable[[Ran, Ran], bool]:
    return lambda plain, turned: turned.code == code and said in turned.err
