"""What training reads instead of pictures and prompts: latents and text states, computed once and kept in a safetensors file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..codecs.autoencoder import Autoencoder
from ..core.files import read_tensors, write_tensors
from ..data.languages import captions_in
from ..data.sources import Source
from ..text.encoded import TextEncoder
from .diffusion import TextTable


@dataclass(frozen=True)
class Precomputed:
    """latents (N, C, h, w) fp16.   captions (N, forms): rows of `table`."""

    latents: Tensor
    captions: Tensor
    table: TextTable


def precompute(
    source: Source, codec: Autoencoder, encoder: TextEncoder, cache: Path, batch: int = 64, languages: Sequence[str] = ()
) -> Precomputed:
    """Encode every picture and every distinct caption of `source`; cache files of the same pictures, captions and weights are reused.
    `languages`: further captions, see `captions_in`.
    """
    numbers, table = encoded_captions(source, encoder, cache, batch, languages)
    return Precomputed(encoded_pictures(source, codec, cache, batch), numbers, table)


def encoded_pictures(source: Source, codec: Autoencoder, cache: Path, batch: int = 64) -> Tensor:
    """Latents (N, C, h, w) fp16 of all pictures, from `cache` where it has them."""
    path = cache / f"latents-{_pictures_key(source, codec)}.safetensors"
    if not path.is_file():
        write_tensors(path, {"latents": encode_pictures(source.images(), codec, batch)})
    return read_tensors(path)["latents"]


def encoded_captions(
    source: Source, encoder: TextEncoder, cache: Path, batch: int = 64, languages: Sequence[str] = ()
) -> tuple[Tensor, TextTable]:
    """(N, forms) caption numbers and the table they point into, from `cache` where it has them; two more forms for each language."""
    captions = _captions(source)
    if languages:
        captions = [own + more for own, more in zip(captions, captions_in(source, languages), strict=True)]
    distinct = sorted({text for row in captions for text in row})
    path = cache / f"captions-{_digest(encoder.name, encoder.max_tokens, distinct)}.safetensors"
    if not path.is_file():
        table = encode_captions(distinct, encoder, batch)
        assert table.pooled is not None
        write_tensors(path, {"states": table.states, "offsets": table.offsets, "pooled": table.pooled})
    saved = read_tensors(path)
    number = {text: i for i, text in enumerate(distinct)}
    numbers = torch.tensor([[number[text] for text in row] for row in captions])
    return numbers, TextTable(saved["states"], saved["offsets"], saved["pooled"])


@torch.no_grad()
def encode_pictures(images: Tensor, codec: Autoencoder, batch: int) -> Tensor:
    """Latents (N, C, h, w), fp16, of uint8 pictures (N, 3, H, W): the posterior's means."""
    device = next(codec.parameters()).device
    return torch.cat([codec.encode(part.to(device).float() / 127.5 - 1).half().cpu().contiguous() for part in images.split(batch)])


@torch.no_grad()
def encode_captions(captions: Sequence[str], encoder: TextEncoder, batch: int) -> TextTable:
    """The states of `captions` without padding, fp16. Sorted by length so that little padding is computed."""
    order = sorted(range(len(captions)), key=lambda i: len(captions[i]))
    states: list[Tensor | None] = [None] * len(captions)
    pooled: list[Tensor | None] = [None] * len(captions)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        encoded = encoder.encode([captions[i] for i in rows])
        assert encoded.pooled is not None
        for row, i in enumerate(rows):
            states[i] = encoded.tokens[row][encoded.mask[row]].half()
            pooled[i] = encoded.pooled[row].half()
    kept = [s for s in states if s is not None]
    lengths = torch.tensor([0, *(len(s) for s in kept)])
    return TextTable(torch.cat(kept), lengths.cumsum(0), torch.stack([p for p in pooled if p is not None]))


def _captions(source: Source) -> list[tuple[str, ...]]:
    """Every row's captions; rows with fewer forms repeat their first, so that all have as many."""
    rows = [tuple(row) for row in source.column("captions")]
    forms = max(len(row) for row in rows)
    return [row + row[:1] * (forms - len(row)) for row in rows]


def _pictures_key(source: Source, codec: Autoencoder) -> str:
    weights = hashlib.sha256()
    for name, tensor in sorted(codec.state_dict().items()):
        if "decoder" not in name:
            weights.update(name.encode() + tensor.float().cpu().numpy().tobytes())
    drawn = hashlib.sha256(b"".join(hashlib.sha256(source.encoded(i)).digest() for i in range(len(source))))
    return _digest(drawn.hexdigest(), source.background, source.size, dict(codec.autoencoder.config), weights.hexdigest())


def _digest(*content: Any) -> str:
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:16]
