"""From a prompt to a picture:  text states -> guided ODE walk in latents -> codec -> pixels.

One object with named components, saved and loaded as a diffusers folder (`folder.py`). Nothing about a request is kept in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..codecs.kl import KLCodec
from ..core.call import Policy, Session
from ..core.conditions import Conditions, Slot, Tokens, nulled
from ..core.denoiser import Denoiser
from ..core.errors import UsageError
from ..core.rng import Rows
from ..core.state import require_finite
from ..sampling.guidance import ClassifierFree
from ..sampling.loop import OnStep, draw
from ..sampling.ode import DrawRequest, Ode
from ..sampling.schedules import grid, resolution_shift
from ..sampling.solvers import solvers
from ..surgery import Lora, adapters, load_lora, merge, save_lora
from ..surgery.lora import Weight
from ..text.encoded import TextEncoder, TextStates

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

LARGEST_SIDE = 4096


@dataclass(frozen=True)
class Defaults:
    """How a model is sampled unless asked otherwise. `size`: (height, width) in pixels it was trained at; `shift` holds at that size."""

    size: tuple[int, int] = (128, 128)
    steps: int = 20
    guidance: float = 4.0
    solver: str = "euler"
    shift: float = 1.0


@dataclass(frozen=True)
class Draw:
    """Settings of one call. `size` (height, width) in pixels; `shift` None = the model's own, scaled to the size.

    `loras` act as they are weighted.   `frame`: (rows, row, text tokens) of an earlier batch to imitate, so that one of its pictures comes
    out bit for bit.
    """

    steps: int
    guidance: float
    solver: str
    size: tuple[int, int]
    shift: float | None = None
    policies: tuple[Policy, ...] = ()
    loras: tuple[Lora, ...] = ()
    frame: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Pictures:
    """Drawn pictures: `images` (B, 3, H, W) in [-1, 1] on the CPU, with the prompt, seed and frame of each row. Indexing gives PIL images.

    `notes`: what the user should know (words beyond the encoder's reach, an untrained size). `sessions`: the run's policies at work, in
    the order given: what a recorder saw is in its session, a row for each of the batch's pictures.
    """

    images: Tensor
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    frames: tuple[tuple[int, int, int], ...]
    settings: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    sessions: tuple[Session, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Image:
        from PIL import Image

        pixels = self.images[row].clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
        return Image.fromarray(pixels.permute(1, 2, 0).numpy())

    def only(self, row: int) -> Pictures:
        """The picture `row` alone, with all that is known of it."""
        own = slice(row, row + 1)
        return replace(self, images=self.images[own], prompts=self.prompts[own], seeds=self.seeds[own], frames=self.frames[own])

    def __iter__(self) -> Iterator[Image]:
        return (self[i] for i in range(len(self)))


@dataclass
class TextToImage:
    """encoder: prompt -> states.   denoiser: the network and its meaning.   codec: latents <-> pixels.

    slots: conditioning and null forms.   identity: name and weight checksum, written into every picture.
    card: what is known about the model (data, training, scores).
    """

    encoder: TextEncoder
    denoiser: Denoiser
    codec: KLCodec
    slots: tuple[Slot, ...]
    defaults: Defaults = field(default_factory=Defaults)
    identity: Mapping[str, str] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.net.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.denoiser.net.parameters()).dtype

    @property
    def weights(self) -> int:
        """Bytes of the network's and the codec's weights."""
        return sum(p.numel() * p.element_size() for part in (self.denoiser.net, self.codec) for p in part.parameters())

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> TextToImage:
        """Move the network and the codec; the text encoder stays where it is, in fp32."""
        self.denoiser.net.to(device=device, dtype=dtype)
        self.codec.to(device=device, dtype=dtype)
        return self

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        negative: str = "",
        num: int = 1,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        solver: str | None = None,
        size: tuple[int, int] | None = None,
        shift: float | None = None,
        policies: Sequence[Policy] = (),
        loras: Sequence[Lora] = (),
        frame: tuple[int, int, int] | None = None,
        on_step: OnStep | None = None,
    ) -> Pictures:
        """Draw `num` pictures of each prompt as one batch; picture i of a prompt has seed `seed + i`, unless `seeds` gives one per picture.
        `loras`: from `lora`; they add up, and a weight may be one number for each picture.

        Raises `UsageError` for an empty prompt, impossible steps, guidance or size; `WeightsError` for a LoRA of another network;
        `NonFiniteError` where values stop being finite.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        rows = self._rows(prompts, num, seed, seeds)
        own = self.defaults
        settings = Draw(
            steps=own.steps if steps is None else steps,
            guidance=own.guidance if guidance is None else guidance,
            solver=solver or own.solver,
            size=self.possible_size(size or own.size),
            shift=shift,
            policies=tuple(policies),
            loras=tuple(loras),
            frame=frame,
        )
        return self._draw([p for p in prompts for _ in range(num)], negative, rows, settings, on_step)

    def _draw(self, prompts: list[str], negative: str, rows: Rows, settings: Draw, on_step: OnStep | None) -> Pictures:
        frame = settings.frame
        if frame is not None:
            prompts, rows = _imitate(prompts, rows, frame)
        conds, notes = self.conditions(prompts, negative, settings.guidance, at_least=frame[2] if frame else 0)
        process = self._process(settings)
        shape = (self.codec.latent_channels, *(n // self.codec.factor for n in settings.size))
        latents = draw(process, DrawRequest(shape, conds), rows, on_step)
        images = self.decode(latents).cpu()
        length = max(c.tokens["text"].states.shape[1] for c in conds.values())
        frames = tuple((len(rows), i, length) for i in range(len(rows)))
        if settings.size != self.defaults.size:
            notes = (*notes, f"this model was trained at {_by(self.defaults.size)}; {_by(settings.size)} is beyond what it has seen")
        pictures = Pictures(images, tuple(prompts), rows.seeds, frames, self._record(settings, negative), notes, process.sessions)
        return pictures if frame is None else pictures.only(frame[1])

    def _process(self, settings: Draw) -> Ode:
        net = self.denoiser.net
        sessions = tuple(policy.begin(settings) for policy in settings.policies)
        net.admit(settings.policies)
        solver = solvers.get(settings.solver)()
        carried = adapters(net, [lora.to(self.device, self.dtype) for lora in settings.loras])
        times, guidance = grid(settings.steps, self._shift(settings)), ClassifierFree(settings.guidance)
        return Ode(self.denoiser, solver, times, guidance, sessions, self.device, carried)

    def _shift(self, settings: Draw) -> float:
        """The shift asked for, or the model's own for this size."""
        if settings.shift is not None:
            return settings.shift
        pixels, base = (size[0] * size[1] for size in (settings.size, self.defaults.size))
        return resolution_shift(self.defaults.shift, pixels, base)

    def conditions(
        self, prompts: Sequence[str], negative: str, guidance: float, at_least: int = 0
    ) -> tuple[dict[str, Conditions], tuple[str, ...]]:
        """Conditions by lane and notes on truncation. Without a negative prompt the uncond lane holds each slot's null form."""
        from ..text.truncation import truncation_report

        states = self._states(prompts)
        notes = tuple(dict.fromkeys(truncation_report(states, prompts)))
        cond = _slots(states, at_least)
        if guidance == 1.0:
            return {"cond": cond}, notes
        if negative:
            against = self._states([negative] * len(prompts))
            notes += tuple(truncation_report(against, [negative] * len(prompts)))[:1]
            return {"cond": cond, "uncond": _slots(against, at_least)}, notes
        everyone = torch.ones(len(prompts), dtype=torch.bool)
        empty = _slots(self.encoder.encode([""]), 0) if any(s.null == "empty" for s in self.slots) else None
        return {"cond": cond, "uncond": nulled(cond, self.slots, {s.group: everyone for s in self.slots}, empty)}, notes

    def _states(self, prompts: Sequence[str]) -> TextStates:
        """States of `prompts`, each distinct one encoded alone: in a batch its last bits would depend on its neighbours' lengths."""
        alone = {prompt: self.encoder.encode([prompt]) for prompt in dict.fromkeys(prompts)}
        return TextStates.concat([alone[prompt] for prompt in prompts])

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W) in fp32, clamped to [-1, 1]. Latents may be on any device."""
        images = self.codec.decode(latents.to(next(self.codec.parameters()))).float()
        require_finite(images, "the decoded picture")
        return images.clamp(-1, 1)

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write a diffusers-layout folder, atomically. See `folder.save`."""
        from .folder import save

        return save(self, folder, overwrite)

    def lora(self, path: str | Path, weight: Weight = 1.0, partial: bool = False) -> Lora:
        """The LoRA in a file or folder, for this network and where it is; hand it to a call as `loras=[...]`. See `load_lora`."""
        return load_lora(path, self.denoiser.net, weight, partial).to(self.device)

    def save_lora(self, lora: Lora, path: str | Path, overwrite: bool = False) -> Path:
        """Write `lora` as a safetensors file that diffusers reads. See `surgery.save_lora`."""
        return save_lora(lora, self.denoiser.net, path, overwrite)

    def merged(self, loras: Sequence[Lora], name: str) -> TextToImage:
        """A pipeline called `name` with `loras` folded into its network; this one stays as it is. Save it before its pictures are to be
        drawn again: until then its weights have no checksum.
        """
        net = merge(self.denoiser.net, [lora.to(self.device) for lora in loras])
        return replace(self, denoiser=replace(self.denoiser, net=net), identity={"name": name})

    def _rows(self, prompts: Sequence[str], num: int, seed: int, seeds: Sequence[int] | None) -> Rows:
        if not prompts:
            raise UsageError("no prompt was given", 'say what to draw, for example "a red heart, noto style"')
        for prompt in prompts:
            if not isinstance(prompt, str) or not prompt.strip():
                raise UsageError(f"the prompt {prompt!r} is empty", 'say what to draw, for example "a red heart, noto style"')
        if num < 1:
            raise UsageError(f"num is {num}", "at least 1 picture of each prompt")
        chosen = tuple(seeds) if seeds is not None else tuple(seed + i for _ in prompts for i in range(num))
        if len(chosen) != len(prompts) * num:
            raise UsageError(f"{len(chosen)} seeds for {len(prompts) * num} pictures", "one seed per picture")
        return Rows(chosen)

    def possible_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """`size` (height, width) in pixels, if this model can draw it; `UsageError` naming the nearest possible size otherwise."""
        config = getattr(self.denoiser.net, "config", None)
        step = self.codec.factor * getattr(config, "patch", 1)
        if any(n % step or not 0 < n <= LARGEST_SIDE for n in size):
            nearest = tuple(min(max(step, round(n / step) * step), LARGEST_SIDE // step * step) for n in size)
            raise UsageError(
                f"size {_by(size)} is not possible", f"sides are multiples of {step} up to {LARGEST_SIDE}; the nearest is {_by(nearest)}"
            )
        return size

    def _record(self, settings: Draw, negative: str) -> dict[str, Any]:
        return {
            "model": dict(self.identity),
            "negative": negative,
            "steps": settings.steps,
            "guidance": settings.guidance,
            "solver": settings.solver,
            "size": list(settings.size),
            "shift": self._shift(settings),
            "loras": [lora.record() for lora in settings.loras],
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device.type,
        }


def _slots(states: TextStates, at_least: int) -> Conditions:
    if states.pooled is None:
        raise UsageError("this text encoder gives no pooled vector, which the model's slot 'pooled' needs")
    tokens = Tokens(states.tokens, states.mask).pad_to(at_least)
    return Conditions({"text": tokens}, {"pooled": states.pooled})


def _imitate(prompts: list[str], rows: Rows, frame: tuple[int, int, int]) -> tuple[list[str], Rows]:
    """A batch shaped as the recorded one, this picture standing at its old row. What else the batch holds does not matter."""
    if len(prompts) != 1 or not 0 <= frame[1] < frame[0]:
        raise UsageError(f"frame {frame} with {len(prompts)} prompts", "a frame (rows, row, text tokens) goes with one picture")
    return prompts * frame[0], Rows(rows.seeds * frame[0])


def _by(size: Sequence[int]) -> str:
    """Width x height, as people say it."""
    return f"{size[1]}x{size[0]}"
