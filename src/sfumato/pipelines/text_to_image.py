"""From a prompt to a picture:  text states -> guided ODE walk in latents -> codec -> pixels.

One object with named components, saved and loaded as a diffusers folder (`folder.py`). Nothing about a request is kept in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ..codecs.kl import KLCodec
from ..core.call import Policy, Session
from ..core.conditions import Conditions, Slot, Tokens, nulled
from ..core.config import to_dict
from ..core.denoiser import Denoiser
from ..core.discrete import Betas
from ..core.errors import UsageError
from ..core.rng import Rows
from ..core.state import require_finite
from ..sampling.guidance import ClassifierFree
from ..sampling.loop import OnStep, draw
from ..sampling.ode import DrawRequest, Ode
from ..sampling.schedules import Layout
from ..sampling.solvers import solvers
from ..surgery import Lora, adapters, load_lora, merge, save_lora
from ..surgery.lora import Weight
from ..text.encoded import TextEncoder, TextStates
from .pictures import Pictures
from .settings import Defaults, Draw, by, possible_size

if TYPE_CHECKING:
    from pathlib import Path

# The scores that Stable Diffusion XL's refiner is told of a picture as it should be, and as it should not be.
AESTHETIC = {"cond": 6.0, "uncond": 2.5}


@dataclass(frozen=True)
class Walked:
    """Where a walk ended. latents: (B, C, h, w).   tokens: length of the longest text.   notes, sessions: as in `Pictures`."""

    latents: Tensor
    notes: tuple[str, ...]
    tokens: int
    sessions: tuple[Session, ...]


@dataclass
class TextToImage:
    """encoder: prompt -> states.   denoiser: the network and its meaning.   codec: latents <-> pixels.

    slots: conditioning and null forms.   identity: name and weight checksum, written into every picture.
    card: what is known about the model (data, training, scores).   notes: what every picture should say.
    """

    encoder: TextEncoder
    denoiser: Denoiser
    codec: KLCodec
    slots: tuple[Slot, ...]
    defaults: Defaults = field(default_factory=Defaults)
    identity: Mapping[str, str] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

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

    @property
    def told_guidance(self) -> bool:
        """Whether the network was distilled to follow a guidance that it is told (slot "guidance"): it then needs no second lane."""
        return "guidance" in self.denoiser.net.slots

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
        cfg: float | None = None,
        solver: str | None = None,
        size: tuple[int, int] | None = None,
        shift: float | None = None,
        layout: Layout | None = None,
        told: Mapping[str, Sequence[float]] | None = None,
        policies: Sequence[Policy] = (),
        loras: Sequence[Lora] = (),
        frame: tuple[int, int, int] | None = None,
        on_step: OnStep | None = None,
    ) -> Pictures:
        """Draw `num` pictures of each prompt as one batch; picture i of a prompt has seed `seed + i`, unless `seeds` gives one per picture.
        `loras`: from `lora`; they add up, and a weight may be one number for each picture.

        `cfg`: classifier-free guidance on top of a guidance that the network is told (FLUX.1 dev); other networks have `guidance` for it.
        `layout`: how the times are laid out, None = as the model's own.   `told`: numbers of the training picture that the network reads,
        by slot ("original_size": (height, width), "crop": (top, left), ... of Stable Diffusion XL), instead of those of a whole picture.
        Raises `UsageError` for an empty prompt, impossible steps, guidance or size; `WeightsError` for a LoRA of another network;
        `NonFiniteError` where values stop being finite.
        """
        prompts, rows = self.rows(prompt, num, seed, seeds)
        settings = self.settings(
            negative, steps, guidance, cfg, solver, size, layout,
            shift=shift, told=dict(told or {}), policies=tuple(policies), loras=tuple(loras), frame=frame,
        )  # fmt: skip
        if frame is None:
            return self.pictures(prompts, negative, rows, settings, on_step=on_step)
        return self.pictures(*_imitate(prompts, negative, rows, frame), settings, on_step=on_step).only(frame[1])

    def settings(
        self,
        negative: str = "",
        steps: int | None = None,
        guidance: float | None = None,
        cfg: float | None = None,
        solver: str | None = None,
        size: tuple[int, int] | None = None,
        layout: Layout | None = None,
        **others: Any,
    ) -> Draw:
        """What a call with these options is drawn with; what is None is the model's own. `others`: fields of `Draw`. Raises as a call."""
        own = self.defaults
        guidance = own.guidance if guidance is None else guidance
        return Draw(
            own.steps if steps is None else steps,
            guidance,
            solver or own.solver,
            self.possible_size(size or own.size),
            weight=self._weight(guidance, cfg, negative),
            layout=layout or own.layout,
            **others,
        )

    def pictures(
        self,
        prompts: Sequence[str],
        negative: str,
        rows: Rows,
        settings: Draw,
        *,
        x0: Tensor | None = None,
        xt: Tensor | None = None,
        on_step: OnStep | None = None,
    ) -> Pictures:
        """A picture of each prompt and row. `x0`, `xt`: latents to start from, see `DrawRequest`."""
        walked = self.walk(prompts, negative, rows, settings, x0=x0, xt=xt, on_step=on_step)
        images = self.decode(walked.latents).cpu()
        frames = tuple((len(rows), i, walked.tokens) for i in range(len(rows)))
        notes = (*self.notes, *walked.notes)
        if settings.size != self.defaults.size:
            notes = (*notes, f"this model was trained at {by(self.defaults.size)}; {by(settings.size)} is beyond what it has seen")
        return Pictures(images, tuple(prompts), rows.seeds, frames, self._record(settings, negative), notes, walked.sessions)

    def walk(
        self,
        prompts: Sequence[str],
        negative: str,
        rows: Rows,
        settings: Draw,
        *,
        x0: Tensor | None = None,
        xt: Tensor | None = None,
        on_step: OnStep | None = None,
    ) -> Walked:
        """The latents that `pictures` decodes: where the walk along the times, or along the part of them that `settings` names, ends."""
        at_least = settings.frame[2] if settings.frame else 0
        conds, notes = self.conditions(prompts, negative, settings.weight, at_least, settings.size, settings.guidance, settings.told)
        process = self._process(settings)
        shape = (self.codec.latent_channels, *(n // self.codec.factor for n in settings.size))
        latents = draw(process, DrawRequest(shape, conds, x0, xt), rows, on_step)
        return Walked(latents, notes, max(c.tokens["text"].states.shape[1] for c in conds.values()), process.sessions)

    def _process(self, settings: Draw) -> Ode:
        net = self.denoiser.net
        sessions = tuple(policy.begin(settings) for policy in settings.policies)
        net.admit(settings.policies)
        solver = solvers.get(settings.solver)()
        path, layout = self.denoiser.meaning.path, settings.layout
        if layout.discrete != isinstance(path, Betas):
            raise UsageError(
                f"the layout {layout.kind!r} on the path {path}", "spacings of steps are for discrete schedules, the others for flows"
            )
        times = self.times(settings)
        carried = adapters(net, [lora.to(self.device, self.dtype) for lora in settings.loras])
        guidance = ClassifierFree(settings.weight)
        return Ode(self.denoiser, solver, times, guidance, sessions, self.device, carried, layout.noise if layout.discrete else "whole")

    def times(self, settings: Draw) -> Tensor:
        """(steps + 1,) fp64 times that a call is walked through, or the part of them that `settings` names."""
        path, (first, last) = self.denoiser.meaning.path, settings.part
        times = settings.layout.times(settings.steps, self._shift(settings), path.steps if isinstance(path, Betas) else 1000)
        return times[first : None if last is None else last + 1]

    def _shift(self, settings: Draw) -> float:
        """The shift asked for, or the model's own for this size."""
        if settings.shift is not None:
            return settings.shift
        patch = self.codec.factor * getattr(getattr(self.denoiser.net, "config", None), "patch", 1)
        return replace(self.defaults, layout=settings.layout).own_shift(settings.size, patch)

    def _weight(self, guidance: float, cfg: float | None, negative: str) -> float:
        """The weight of classifier-free guidance. Raises `UsageError` for what would change nothing."""
        weight = self.defaults.cfg if cfg is None else cfg
        if not self.told_guidance:
            if weight != 1.0 or cfg is not None:
                raise UsageError(f"cfg is {weight}", "this network is not told a guidance: `guidance` is the weight itself")
            return guidance
        ClassifierFree(guidance)  # what the network is told has the same range
        if negative and weight == 1.0:
            raise UsageError("a negative prompt, and cfg is 1", "guidance is a number here; a negative prompt acts with cfg above 1")
        return weight

    def conditions(
        self,
        prompts: Sequence[str],
        negative: str,
        weight: float,
        at_least: int = 0,
        size: tuple[int, int] | None = None,
        guidance: float | None = None,
        told: Mapping[str, Sequence[float]] | None = None,
    ) -> tuple[dict[str, Conditions], tuple[str, ...]]:
        """Conditions by lane and notes on truncation. Without a negative prompt the uncond lane holds each slot's null form.

        `size`, `guidance`: told to networks that read them; None = the model's own.   `told`: as in a call.
        """
        size, guidance = size or self.defaults.size, self.defaults.guidance if guidance is None else guidance
        lanes, notes = self._texts(prompts, negative, weight, at_least)
        numbers = {lane: self._numbers(lane, size, told or {}) for lane in lanes}
        return {lane: self._told(cond, len(prompts), numbers[lane], guidance) for lane, cond in lanes.items()}, notes

    def _numbers(self, lane: str, size: tuple[int, int], told: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
        """What the network reads of a training picture, by slot: one that was neither enlarged nor cropped, where `told` says no other."""
        height, width = size
        whole = {"original_size": size, "crop": (0, 0), "target_size": size, "aesthetic": (AESTHETIC[lane],)}
        own: dict[str, Sequence[float]] = {"sizes": (height, width, height / width), **whole}
        read = {name: numbers for name, numbers in own.items() if name in self.denoiser.net.slots}
        for name, numbers in told.items():
            if name not in read or len(numbers) != len(read[name]):
                slots = ", ".join(f"{n} ({len(v)})" for n, v in read.items()) or "none"
                raise UsageError(f"told {name} = {tuple(numbers)}", f"what this network is told of a picture: {slots}")
            # The score of what is not wanted stays that.
            read |= {} if (name, lane) == ("aesthetic", "uncond") else {name: numbers}
        return read

    def _told(self, cond: Conditions, rows: int, numbers: Mapping[str, Sequence[float]], guidance: float) -> Conditions:
        """`cond` with the numbers that the network reads beside the text, those of a picture and a guidance."""
        slots, vectors, scalars = self.denoiser.net.slots, dict(cond.vectors), dict(cond.scalars)
        vectors |= {name: torch.tensor([list(row)], dtype=torch.float32).repeat(rows, 1) for name, row in numbers.items()}
        if "guidance" in slots:
            scalars["guidance"] = torch.full((rows,), guidance)
        return replace(cond, vectors=vectors, scalars=scalars)

    def _texts(self, prompts: Sequence[str], negative: str, weight: float, at_least: int) -> tuple[dict[str, Conditions], tuple[str, ...]]:
        from ..text.truncation import truncation_report

        states = self._states(prompts)
        notes = tuple(dict.fromkeys(truncation_report(states, prompts)))
        cond = self._slots(states, at_least)
        if weight == 1.0:
            return {"cond": cond}, notes
        if negative:
            against = self._states([negative] * len(prompts))
            notes += tuple(truncation_report(against, [negative] * len(prompts)))[:1]
            return {"cond": cond, "uncond": self._slots(against, at_least)}, notes
        everyone = torch.ones(len(prompts), dtype=torch.bool)
        empty = self._slots(self.encoder.encode([""]), 0) if any(s.null == "empty" for s in self.slots) else None
        return {"cond": cond, "uncond": nulled(cond, self.slots, {s.group: everyone for s in self.slots}, empty)}, notes

    def _slots(self, states: TextStates, at_least: int) -> Conditions:
        tokens = Tokens(states.tokens, states.mask).pad_to(at_least)
        if not any(slot.name == "pooled" for slot in self.slots):
            return Conditions({"text": tokens})
        if states.pooled is None:
            raise UsageError("this text encoder gives no pooled vector, which the model's slot 'pooled' needs")
        return Conditions({"text": tokens}, {"pooled": states.pooled})

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

    def save(self, folder: str | Path, overwrite: bool = False, format: Literal["sfumato", "diffusers"] = "sfumato") -> Path:
        """Write a diffusers-layout folder, atomically; "diffusers": one that diffusers' own pipeline loads. See `folder.save`."""
        from .folder import save

        return save(self, folder, overwrite, format=format)

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

    def rows(self, prompt: str | Sequence[str], num: int = 1, seed: int = 0, seeds: Sequence[int] | None = None) -> tuple[list[str], Rows]:
        """Each prompt `num` times, and the rows of noise they are drawn from. Raises `UsageError` as a call does."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
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
        return [p for p in prompts for _ in range(num)], Rows(chosen)

    def possible_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """`size` (height, width) in pixels, if this model can draw it; `UsageError` naming the nearest possible size otherwise."""
        return possible_size(size, self.codec.factor * getattr(getattr(self.denoiser.net, "config", None), "patch", 1))

    def _record(self, settings: Draw, negative: str) -> dict[str, Any]:
        return {
            "model": dict(self.identity),
            "negative": negative,
            "steps": settings.steps,
            "guidance": settings.guidance,
            **({"cfg": settings.weight} if self.told_guidance else {}),
            "solver": settings.solver,
            "size": list(settings.size),
            "shift": self._shift(settings),
            "layout": to_dict(settings.layout),
            **({"told": {name: list(numbers) for name, numbers in settings.told.items()}} if settings.told else {}),
            "loras": [lora.record() for lora in settings.loras],
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device.type,
        }


def _imitate(prompts: list[str], negative: str, rows: Rows, frame: tuple[int, int, int]) -> tuple[list[str], str, Rows]:
    """A batch shaped as the recorded one, this picture standing at its old row. What else the batch holds does not matter."""
    if len(prompts) != 1 or not 0 <= frame[1] < frame[0]:
        raise UsageError(f"frame {frame} with {len(prompts)} prompts", "a frame (rows, row, text tokens) goes with one picture")
    return prompts * frame[0], negative, Rows(rows.seeds * frame[0])
