"""Class labels where other pipelines have prompts (DiT): a name or a number is read into the number of a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ..core.errors import UnknownNameError, UsageError
from .encoded import TextStates
from .tokens import check_prompts


class Labels:
    """A `TextEncoder` whose states hold nothing but `labels`. A prompt is a class's number, from 0 to `classes` - 1, or one of its names;
    the empty prompt is `classes`, which stands for no class.

    `published`: diffusers' id2label, names of a class separated by commas; a name means the last class that bears it, as there.
    """

    width = 0
    pooled_width: int | None = None
    max_tokens = 0

    def __init__(self, name: str, classes: int, published: Mapping[str, str] | None = None) -> None:
        self.name, self.classes, self.published = name, classes, dict(published or {})
        pairs = [(label, int(number)) for number, names in self.published.items() for label in (*names.split(","), names)]
        self.numbers = {label.strip().casefold(): number for label, number in pairs}

    def number(self, prompt: str) -> int:
        """The class that `prompt` names. Raises `UsageError` with the nearest names."""
        asked = prompt.strip().casefold()
        if not asked:
            return self.classes
        if asked.isdecimal() and int(asked) < self.classes:
            return int(asked)
        if asked in self.numbers:
            return self.numbers[asked]
        numbers = f"a class is a number from 0 to {self.classes - 1}"
        if not self.numbers:
            raise UsageError(f"unknown class {prompt!r}", f"{numbers}; this model's folder has no names (id2label in model_index.json)")
        nearest = UnknownNameError("class", asked, self.numbers).nearest
        raise UsageError(
            f"unknown class {prompt!r}",
            f"did you mean {' or '.join(map(repr, nearest))}? or {numbers}" if nearest else f"{numbers}, or a name as in id2label",
        )

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Labels:
        """See `TextEncoder.to`; there are no weights."""
        return self

    def encode(self, prompts: Sequence[str]) -> TextStates:
        """See `TextEncoder.encode`; there are no tokens."""
        labels = torch.tensor([self.number(prompt) for prompt in check_prompts(prompts)])
        none: tuple[tuple[()], ...] = ((),) * len(labels)
        empty = torch.zeros(len(labels), 0)
        return TextStates(empty[..., None], empty.bool(), None, none, none, labels)
