"""What the network is told, by lane: prompts as the text encoder reads them, null forms, and the numbers that stand beside a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite

import torch
from torch import nn

from ..core.conditions import Conditions, Slot, Tokens, nulled, picture_sizes
from ..core.errors import UsageError, WeightsError
from ..surgery import Lora, text_changes
from ..text.encoded import TextEncoder, TextStates, bare
from ..text.joined import Joined

Lanes = Mapping[str, Conditions]
# The scores that Stable Diffusion XL's refiner is told of a picture as it should be, and as it should not be.
AESTHETIC = {"cond": 6.0, "uncond": 2.5}
MICRO = ("sizes", "original_size", "crop", "target_size", "aesthetic")  # slots of numbers of a training picture


def text_models(encoder: TextEncoder) -> dict[str, nn.Module]:
    """The models of a published pipeline's text encoders, by folder; none of one that ships."""
    return {name: part.model for name, part in encoder.parts.items()} if isinstance(encoder, Joined) else {}


def with_loras(encoder: TextEncoder, loras: Sequence[Lora]) -> TextEncoder:
    """`encoder` with what `loras` change in it. Raises `WeightsError` for one that was loaded for another pipeline."""
    changes = text_changes(loras)
    if changes and not isinstance(encoder, Joined):
        raise WeightsError(f"a LoRA changes {', '.join(changes)}, which this pipeline lacks", "load it for this pipeline")
    return encoder.adapted(changes) if changes and isinstance(encoder, Joined) else encoder


@dataclass(frozen=True)
class Conditioning:
    """`encoder` and `slots` of a pipeline; `reads`: the slots that its network names."""

    encoder: TextEncoder
    slots: tuple[Slot, ...]
    reads: frozenset[str]

    def lanes(
        self,
        prompts: Sequence[str],
        negative: str,
        weight: float,
        size: tuple[int, int],
        guidance: float,
        at_least: int = 0,
        micro: Mapping[str, Sequence[float]] | None = None,
    ) -> tuple[Lanes, tuple[str, ...]]:
        """Conditions by lane, and notes on truncation. A `weight` of 1 needs no uncond lane; without a `negative` prompt that lane holds
        each slot's null form. `size` (height, width) and `guidance`: told to networks that read them.   at_least: tokens to pad to.
        micro: as in `numbers`, whose errors are raised.
        """
        numbers = {lane: self.numbers(size, micro or {}, lane) for lane in AESTHETIC}
        lanes, notes = self._texts(prompts, negative, weight, at_least)
        return {lane: self._told(cond, len(prompts), numbers[lane], guidance) for lane, cond in lanes.items()}, notes

    def numbers(self, size: tuple[int, int], micro: Mapping[str, Sequence[float]], lane: str = "cond") -> dict[str, Sequence[float]]:
        """What the network reads of a training picture, by slot: one of `size` that was neither enlarged nor cropped, where `micro` says no
        other. Raises `UsageError` for a slot that is not read, and for other than as many numbers as it holds, finite and not negative.
        """
        whole = {"original_size": size, "crop": (0, 0), "target_size": size, "aesthetic": (AESTHETIC[lane],)}
        own: dict[str, Sequence[float]] = {"sizes": picture_sizes(size, 1)[0].tolist(), **whole}
        read = {name: numbers for name, numbers in own.items() if name in self.reads}
        for name, numbers in micro.items():
            if name not in read or len(numbers) != len(read[name]) or not all(isfinite(n) and n >= 0 for n in numbers):
                reads = f"this network reads {', '.join(f'{n} ({len(v)})' for n, v in read.items())}" if read else "this network reads none"
                raise UsageError(
                    f"micro {name} = {', '.join(f'{n:g}' for n in numbers)}", f"numbers of a training picture, none below 0; {reads}"
                )
            # The score of what is not wanted stays that.
            read |= {} if (name, lane) == ("aesthetic", "uncond") else {name: numbers}
        return read

    def _told(self, cond: Conditions, rows: int, numbers: Mapping[str, Sequence[float]], guidance: float) -> Conditions:
        """`cond` with the numbers that the network reads beside the text, those of a picture and a guidance."""
        vectors, scalars = dict(cond.vectors), dict(cond.scalars)
        vectors |= {name: torch.tensor([list(row)], dtype=torch.float32).repeat(rows, 1) for name, row in numbers.items()}
        if "guidance" in self.reads:
            scalars["guidance"] = torch.full((rows,), guidance)
        return replace(cond, vectors=vectors, scalars=scalars)

    def _texts(self, prompts: Sequence[str], negative: str, weight: float, at_least: int) -> tuple[Lanes, tuple[str, ...]]:
        from ..text.truncation import truncation_report

        states = self._states(prompts, self.encoder)
        notes = tuple(dict.fromkeys(truncation_report(states, prompts)))
        cond = self._slots(states, at_least)
        if weight == 1.0:
            return {"cond": cond}, notes
        if negative:
            against = self._states([negative] * len(prompts), bare(self.encoder))
            notes += tuple(truncation_report(against, [negative] * len(prompts)))[:1]
            return {"cond": cond, "uncond": self._slots(against, at_least)}, notes
        everyone = torch.ones(len(prompts), dtype=torch.bool)
        empty = self._slots(bare(self.encoder).encode([""]), 0) if any(s.null == "empty" for s in self.slots) else None
        return {"cond": cond, "uncond": nulled(cond, self.slots, {s.group: everyone for s in self.slots}, empty)}, notes

    def _slots(self, states: TextStates, at_least: int) -> Conditions:
        """What `states` fill of this model's slots."""
        names = {slot.name for slot in self.slots}
        if "pooled" in names and states.pooled is None:
            raise UsageError("this text encoder gives no pooled vector, which the model's slot 'pooled' needs")
        if "class" in names and states.labels is None:
            raise UsageError("this text encoder names no class, which the model's slot 'class' needs")
        read = {"text": states, **states.more} if "text" in names else states.more
        return Conditions(
            {name: Tokens(s.tokens, s.mask).pad_to(at_least) for name, s in read.items()},
            {} if states.pooled is None or "pooled" not in names else {"pooled": states.pooled},
            {} if states.labels is None or "class" not in names else {"class": states.labels},
        )

    def _states(self, prompts: Sequence[str], encoder: TextEncoder) -> TextStates:
        """States of `prompts`, each distinct one encoded alone: in a batch its last bits would depend on its neighbours' lengths."""
        alone = {prompt: encoder.encode([prompt]) for prompt in dict.fromkeys(prompts)}
        return TextStates.concat([alone[prompt] for prompt in prompts])
