"""What training reads instead of pictures and prompts: latents and text states, computed once and kept in a safetensors file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..codecs.kl import KLCodec
from ..core.files import read_tensors, write_tensors
from ..data.sources import Source
from ..text.encoded import TextEncoder
from .diffusion import TextTable


@dataclass(frozen=True)
class Precomputed:
    """latents (N, C, h, w) fp16.   captions (N, forms): rows of `table`."""

    latents: Tensor
    captions: Tensor
    table: TextTable


def precompute(source: Source, codec: KLCodec, encoder: TextEncoder, cache: Path, batch: int = 64) -> Precomputed:
    """Encode every picture and every distinct caption of `source`; a cache file of the same pictures, captions and weights is reused."""
    captions = _captions(source)
    path = cache / f"precomputed-{_key(source, captions, codec, encoder)}.safetensors"
    if not path.is_file():
        distinct = sorted({text for row in captions for text in row})
        number = {text: i for i, text in enumerate(distinct)}
        table = encode_captions(distinct, encoder, batch)
        content = {
            "latents": encode_pictures(source.images(), codec, batch),
            "captions": torch.tensor([[number[text] for text in row] for row in captions]),
            "states": table.states,
            "offsets": table.offsets,
            "pooled": table.pooled,
        }
        write_tensors(path, content)
    saved = read_tensors(path)
    return Precomputed(saved["latents"], saved["captions"], TextTable(saved["states"], saved["offsets"], saved["pooled"]))


@torch.no_grad()
def encode_pictures(images: Tensor, codec: KLCodec, batch: int) -> Tensor:
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


def _key(source: Source, captions: Sequence[Sequence[str]], codec: KLCodec, encoder: TextEncoder) -> str:
    digest = hashlib.sha256(
        json.dumps([encoder.name, list(source.column("id")), captions, source.size, dict(codec.autoencoder.config)], default=str).encode()
    )
    for name, tensor in sorted(codec.state_dict().items()):
        if "encoder" in name:
            digest.update(name.encode() + tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
