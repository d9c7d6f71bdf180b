"""Several encoders that read one prompt, joined into the states of one network, as published pipelines join them.

"one"        the only encoder's states and pooled vector                        PixArt, Stable Diffusion 1 and 2, SDXL's refiner
"beside"     [CLIP-L | CLIP-G] side by side; pooled: CLIP-G's                                                   SDXL (arXiv 2307.01952)
"stacked"    [CLIP-L | CLIP-G] side by side, widened with zeros, then T5's tokens; pooled: both CLIPs'         SD3 (arXiv 2403.03206)
"pooled"     T5's tokens; pooled: CLIP's                                                                       FLUX.1
"tapped"     T5's tokens; a language model's layers as "taps"; pooled: both CLIPs'                             HiDream-I1
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch.nn.functional import pad

from sfumato.core.errors import ConfigError, WeightsError

from .adapted import Changes
from .encoded import TextStates
from .transformers_encoder import TransformersEncoder

How = Literal["one", "beside", "stacked", "pooled", "tapped"]


class Joined:
    """A `TextEncoder` of the encoders `parts` (by their folders' names, in reading order), joined as `how` says.

    `width` of a token.   `silent`: tokens that stand, all zeros and attended to, for the T5 that a "stacked" pipeline was loaded without.
    A prompt's words and lost words are those of the encoder that reads furthest, the last one whose states are the tokens.
    """

    def __init__(self, name: str, parts: Mapping[str, TransformersEncoder], how: How, width: int, silent: int = 0) -> None:
        needed = {"one": (1,), "beside": (2,), "stacked": (2, 3), "pooled": (2,), "tapped": (4,)}[how]
        if len(parts) not in needed:
            raise ConfigError(f"{len(parts)} encoders joined as {how!r}", f"{' or '.join(map(str, needed))} are needed")
        self.name, self.parts, self.how, self.width, self.silent = name, dict(parts), how, width, silent
        encoders = list(parts.values())
        last = encoders[2] if how == "tapped" else encoders[-1]
        tokens = sum(e.width for e in encoders[:2]) if how in ("beside", "stacked") else last.width
        if tokens > width or (tokens != width and how != "stacked") or (len(encoders) == 3 and encoders[2].width != width):
            raise ConfigError(f"text states are {tokens} wide, the network reads {width}", "encoders and network come from one place")
        pooled = [e.pooled_width or 0 for e in encoders]
        self.pooled_width: int | None = (
            sum(pooled[:2]) if how in ("stacked", "tapped") else pooled[-1] if how == "beside" else pooled[0]
        ) or None
        self.max_tokens = sum(e.max_tokens for e in encoders[1:]) + silent if how == "stacked" else last.max_tokens

    def adapted(self, changes: Mapping[str, Changes]) -> Joined:
        """These encoders with low-rank changes, by the part and its model's module. Raises `WeightsError` for what does not fit."""
        if strangers := [part for part in changes if part not in self.parts]:
            raise WeightsError(f"a LoRA changes {strangers[0]}, and there are {', '.join(self.parts)}", "load it for this pipeline")
        other = copy.copy(self)
        other.parts = {n: part.adapted(changes[n], n) if n in changes else part for n, part in self.parts.items()}
        return other

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Joined:
        """See `TextEncoder.to`."""
        for encoder in self.parts.values():
            encoder.to(device, dtype)
        return self

    @property
    def bare(self) -> Joined:
        """The same encoders without their instructions."""
        other = copy.copy(self)
        other.parts = {name: part.bare for name, part in self.parts.items()}
        return other

    def encode(self, prompts: Sequence[str]) -> TextStates:
        """See `TextEncoder.encode`."""
        read = [encoder.encode(prompts) for encoder in self.parts.values()]
        if self.how == "one":
            return read[0]
        if self.how == "pooled":
            return replace(read[1], pooled=read[0].pooled)
        if self.how == "beside":
            return replace(read[1], tokens=torch.cat([each.tokens for each in read], dim=-1))
        first, second, *rest = read
        assert first.pooled is not None and second.pooled is not None
        pooled = torch.cat([first.pooled, second.pooled], dim=-1)
        if self.how == "tapped":
            return replace(rest[0], pooled=pooled, more={"taps": rest[1]})
        states = pad(torch.cat([first.tokens, second.tokens], dim=-1), (0, self.width - first.tokens.shape[-1] - second.tokens.shape[-1]))
        if not rest:
            tokens = pad(states, (0, 0, 0, self.silent))
            return replace(first, tokens=tokens, mask=pad(first.mask, (0, self.silent), value=True), pooled=pooled)
        last, shift = rest[0], states.shape[1]
        return TextStates(
            tokens=torch.cat([states, last.tokens], dim=1),
            mask=torch.cat([first.mask, last.mask], dim=1),
            pooled=pooled,
            words=tuple(tuple(word._replace(start=word.start + shift, end=word.end + shift) for word in row) for row in last.words),
            dropped=last.dropped,
        )
