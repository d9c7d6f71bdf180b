"""Captions as numbers of the embedded text encoder: one vector each, which the judge's text tower starts from, or the states of their
tokens, which the critic reads.

Apart from both, so that judging concept and style alone never loads an encoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ..text.encoded import TextStates
from ..text.minilm import WIDTH, MiniLM, load_minilm


@lru_cache(maxsize=1)
def _encoder() -> MiniLM:
    return load_minilm()


def _encoded(texts: Sequence[str], batch: int) -> Iterator[tuple[list[str], TextStates]]:
    """Each distinct text once, some at a time."""
    # Texts of similar length share a batch: little padding to compute through.
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    for start in range(0, len(distinct), batch):
        some = distinct[start : start + batch]
        yield some, _encoder().encode(some)


def sentence_vectors(texts: Sequence[str], batch: int = 128) -> Tensor:
    """(N, 384) fp32 sentence embeddings of unit length (MiniLM, mean-pooled). Equal texts are encoded once.

    Raises `WeightsError` when the encoder's files are missing or damaged.
    """
    place: dict[str, int] = {}
    rows = [torch.zeros(0, WIDTH)]
    for some, states in _encoded(texts, batch):
        assert states.pooled is not None  # MiniLM pools
        place |= {text: len(place) + i for i, text in enumerate(some)}
        rows.append(states.pooled.cpu())
    return torch.cat(rows)[torch.tensor([place[text] for text in texts], dtype=torch.long)]


class Phrases:
    """The token states of texts, without padding: in fp16, 768 bytes a token. `number[text]` is what `states` takes.

    Raises `WeightsError` when the encoder's files are missing or damaged.
    """

    def __init__(self, texts: Sequence[str], dtype: torch.dtype = torch.float16, batch: int = 64) -> None:
        self.number: dict[str, int] = {}
        parts, lengths = [torch.zeros(0, WIDTH, dtype=dtype)], [torch.zeros(0, dtype=torch.long)]
        for some, states in _encoded(texts, batch):
            self.number |= {text: len(self.number) + i for i, text in enumerate(some)}
            parts.append(states.tokens[states.mask].to(dtype).cpu())
            lengths.append(states.mask.sum(1).cpu())
        self._tokens, self._lengths = torch.cat(parts), torch.cat(lengths)
        self._starts = self._lengths.cumsum(0) - self._lengths

    def states(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """States (C, N, 384), zero where there is no token, and mask (C, N) of texts `numbers` (C,); N = the longest one's tokens."""
        lengths = self._lengths[numbers]
        along = torch.arange(int(lengths.max()) if len(numbers) else 0)
        keep = along < lengths[:, None]
        tokens = self._tokens[torch.where(keep, self._starts[numbers][:, None] + along, 0)]
        return tokens.masked_fill_(~keep[..., None], 0.0), keep
