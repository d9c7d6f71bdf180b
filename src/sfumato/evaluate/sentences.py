"""Captions as vectors: the pooled states of the embedded text encoder, which the judge's text tower starts from.

Apart from the judge itself, so that judging concept and style alone never loads an encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ..text.minilm import WIDTH, MiniLM, load_minilm


@lru_cache(maxsize=1)
def _encoder() -> MiniLM:
    return load_minilm()


def sentence_vectors(texts: Sequence[str], batch: int = 128) -> Tensor:
    """(N, 384) fp32 sentence embeddings of unit length (MiniLM, mean-pooled). Equal texts are encoded once.

    Raises `WeightsError` when the encoder's files are missing or damaged.
    """
    # Texts of similar length share a batch: little padding to compute through.
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    rows = [torch.zeros(0, WIDTH)]
    for start in range(0, len(distinct), batch):
        pooled = _encoder().encode(distinct[start : start + batch]).pooled
        assert pooled is not None  # MiniLM pools
        rows.append(pooled.cpu())
    place = {text: i for i, text in enumerate(distinct)}
    return torch.cat(rows)[torch.tensor([place[text] for text in texts], dtype=torch.long)]
