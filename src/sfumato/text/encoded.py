"""What a text encoder returns (`TextStates`) and what it promises (`TextEncoder`).

Design, contract 6: token states, a mask, the words' spans (attention control and region prompts name words, not token numbers) and the
words that did not fit. Padding is on the right, masked out, and its states are exactly zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import pad


class WordSpan(NamedTuple):
    """A word as typed, without surrounding punctuation; its token states are `tokens[row, start:end]`."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class TextStates:
    """The states of B prompts, padded on the right to a common N.

    tokens   (B, N, D) float; zero wherever `mask` is false
    mask     (B, N) bool, True = keep
    pooled   (B, P) one vector per prompt, or None where the encoder has none
    words    per row, the words that were read, in order; the last may be cut short by truncation (then it is in `dropped` too)
    dropped  per row, the words lost to truncation, whole or in part, in order
    labels   (B,) int64, the class that a prompt names, or None where prompts are texts
    more     states of the same prompts for further slots, by the slot's name (a language model's beside T5's)
    """

    tokens: Tensor
    mask: Tensor
    pooled: Tensor | None
    words: tuple[tuple[WordSpan, ...], ...]
    dropped: tuple[tuple[str, ...], ...]
    labels: Tensor | None = None
    more: Mapping[str, TextStates] = field(default_factory=dict)

    def __post_init__(self) -> None:
        optional: list[Sized] = [v for v in (self.pooled, self.labels, *self.more.values()) if v is not None]
        columns: list[Sized] = [self.tokens, self.mask, self.words, self.dropped, *optional]
        agree = len({len(column) for column in columns}) == 1
        if not agree or self.tokens.ndim != 3 or self.mask.shape != self.tokens.shape[:2] or self.mask.dtype != torch.bool:
            raise ValueError(
                f"tokens {tuple(self.tokens.shape)}, mask {tuple(self.mask.shape)} {self.mask.dtype}, {len(self.words)} rows of words and "
                f"{len(self.dropped)} of dropped words do not belong together"
            )

    def __len__(self) -> int:
        return len(self.tokens)

    def row(self, i: int) -> TextStates:
        """The one prompt `i` (B = 1), without padding: what encoding it alone gives. Tensors are views of this batch's."""
        i = range(len(self))[i]  # negative indices count from the end; IndexError beyond
        kept = self.mask[i].nonzero()
        length = int(kept[-1]) + 1 if len(kept) else 0
        return TextStates(
            tokens=self.tokens[i : i + 1, :length],
            mask=self.mask[i : i + 1, :length],
            pooled=None if self.pooled is None else self.pooled[i : i + 1],
            words=self.words[i : i + 1],
            dropped=self.dropped[i : i + 1],
            more={name: states.row(i) for name, states in self.more.items()},
            labels=None if self.labels is None else self.labels[i : i + 1],
        )

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> TextStates:
        """Tensors on `device`, states and pooled vectors in `dtype`; what is None stays as it is."""
        return replace(
            self,
            tokens=self.tokens.to(device=device, dtype=dtype),
            mask=self.mask.to(device=device),
            pooled=None if self.pooled is None else self.pooled.to(device=device, dtype=dtype),
            more={name: states.to(device, dtype) for name, states in self.more.items()},
            labels=None if self.labels is None else self.labels.to(device=device),
        )

    def pad_to(self, n: int) -> TextStates:
        """The same states with N = `n`, the rest zero and masked out. `ValueError` when `n` is less than N: nothing is cut here."""
        extra = n - self.tokens.shape[1]
        if extra < 0:
            raise ValueError(f"{self.tokens.shape[1]} token states do not fit in {n}: lower the encoder's max_tokens instead")
        return replace(self, tokens=pad(self.tokens, (0, 0, 0, extra)), mask=pad(self.mask, (0, extra))) if extra else self

    @staticmethod
    def concat(parts: Sequence[TextStates]) -> TextStates:
        """All rows of `parts` in one batch, padded to the longest, as new tensors. Equal widths; pooled in all or in none."""
        if not parts:
            raise ValueError("nothing to concatenate")
        longest = max(part.tokens.shape[1] for part in parts)
        padded = [part.pad_to(longest) for part in parts]
        pooled = [part.pooled for part in parts if part.pooled is not None]
        labels = [part.labels for part in parts if part.labels is not None]
        if any(some and len(some) != len(parts) for some in (pooled, labels)):
            raise ValueError("some parts have pooled vectors or labels and some have none: they come from different encoders")
        return TextStates(
            tokens=torch.cat([part.tokens for part in padded]),
            mask=torch.cat([part.mask for part in padded]),
            pooled=torch.cat(pooled) if pooled else None,
            words=tuple(row for part in parts for row in part.words),
            dropped=tuple(row for part in parts for row in part.dropped),
            more={name: TextStates.concat([part.more[name] for part in parts]) for name in parts[0].more},
            labels=torch.cat(labels) if labels else None,
        )


class TextEncoder(Protocol):
    """Prompts to token states.

    A row is itself: a prompt's states are the same alone and in any batch (fp32, 1e-5), the output is padded to the batch's longest
    prompt, and neither more padding nor what stands in it changes a kept state. The empty prompt is allowed (it is a null form).

    `width` = D, `pooled_width` = P or None; `max_tokens` counts the encoder's special tokens too.
    """

    @property
    def name(self) -> str: ...

    @property
    def width(self) -> int: ...

    @property
    def pooled_width(self) -> int | None: ...

    @property
    def max_tokens(self) -> int: ...

    def encode(self, prompts: Sequence[str]) -> TextStates:
        """States of `prompts` (B of them), float32, without gradients. `UsageError` for what is not a list of proper strings."""
        ...

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> object:
        """Move the weights; states stay float32."""
        ...


@runtime_checkable
class Instructed(Protocol):
    """A `TextEncoder` that puts words of its own before each prompt. `bare` is the same one without them."""

    @property
    def bare(self) -> TextEncoder: ...


def bare(encoder: TextEncoder) -> TextEncoder:
    """What reads negative prompts and the empty one: instructions are for what is to be drawn (Sana, Lumina-Image 2.0)."""
    return encoder.bare if isinstance(encoder, Instructed) else encoder
