"""From a prompt to a picture:  text states -> guided ODE walk in latents -> codec -> pixels.

One object with named components, saved and loaded as a diffusers folder (`folder.py`). Nothing about a request is kept in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ..codecs.autoencoder import Autoencoder
from ..core.call import Policy
from ..core.conditions import Conditions, Slot, Tokens, nulled
from ..core.config import to_dict
from ..core.denoiser import Denoiser
from ..core.discrete import Betas
from ..core.errors import UsageError
from ..core.rng import Rows
from ..core.state import require_finite
from ..sampling.guidance import ClassifierFree, Guide
from ..sampling.loop import OnStep, draw
from ..sampling.ode import DrawRequest, Ode
from ..sampling.policies.extrapolation import Extrapolation
from ..sampling.schedules import Layout
from ..sampling.solvers import solvers
from ..surgery import Lora, adapters, load_lora, merge, save_lora
from ..surgery.lora import Weight
from ..text.encoded import TextEncoder, TextStates, bare
from .pictures import Pictures
from .settings import Defaults, Draw, by, possible_size

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class TextToImage:
    """encoder: prompt -> states.   denoiser: the network and its meaning.   codec: latents <-> pixels.

    slots: conditioning and null forms.   identity: name and weight checksum, written into every picture.
    card: what is known about the model (data, training, scores).
    """

    encoder: TextEncoder
    denoiser: Denoiser
    codec: Autoencoder
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
        guide: Guide | None = None,
        policies: Sequence[Policy] = (),
        loras: Sequence[Lora] = (),
        frame: tuple[int, int, int] | None = None,
        on_step: OnStep | None = None,
    ) -> Pictures:
        """Draw `num` pictures of each prompt as one batch; picture i of a prompt has seed `seed + i`, unless `seeds` gives one per picture.
        `loras`: from `lora`; they add up, and a weight may be one number for each picture.

        `cfg`: classifier-free guidance on top of a guidance that the network is told (FLUX.1 dev); other networks have `guidance` for it.
        `layout`: how the times are laid out; `guide`: where guidance acts; None = as the model's own. An `Extrapolation` among the policies
        takes the place of the model's own way with other sizes.
        Raises `UsageError` for an empty prompt, impossible steps, guidance or size; `WeightsError` for a LoRA of another network;
        `NonFiniteError` where values stop being finite.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        rows = self._rows(prompts, num, seed, seeds)
        own = self.defaults
        guidance = own.guidance if guidance is None else guidance
        settings = Draw(
            steps=own.steps if steps is None else steps,
            guidance=guidance,
            weight=self._weight(guidance, cfg, negative),
            solver=solver or own.solver,
            size=self.possible_size(size or own.size),
            shift=shift,
            layout=layout or own.layout,
            guide=guide or own.guide,
            policies=tuple(policies),
            loras=tuple(loras),
            frame=frame,
        )
        return self._draw([p for p in prompts for _ in range(num)], negative, rows, settings, on_step)

    def _draw(self, prompts: list[str], negative: str, rows: Rows, settings: Draw, on_step: OnStep | None) -> Pictures:
        frame = settings.frame
        if frame is not None:
            prompts, rows = _imitate(prompts, rows, frame)
        conds, notes = self.conditions(prompts, negative, settings.weight, frame[2] if frame else 0, settings.size, settings.guidance)
        process = self._process(settings)
        shape = (self.codec.latent_channels, *(n // self.codec.factor for n in settings.size))
        latents = draw(process, DrawRequest(shape, conds), rows, on_step)
        images = self.decode(latents).cpu()
        length = max((tokens.states.shape[1] for c in conds.values() for tokens in c.tokens.values()), default=0)
        frames = tuple((len(rows), i, length) for i in range(len(rows)))
        if settings.size != self.defaults.size:
            notes = (*notes, f"this model was trained at {by(self.defaults.size)}; {by(settings.size)} is beyond what it has seen")
        pictures = Pictures(
            images,
            tuple(prompts),
            rows.seeds,
            frames,
            self._record(settings, negative),
            notes,
            process.sessions[-len(settings.policies) :] if settings.policies else (),
        )
        return pictures if frame is None else pictures.only(frame[1])

    def _process(self, settings: Draw) -> Ode:
        net = self.denoiser.net
        policies = (*self._own_policies(settings), *settings.policies)
        sessions = tuple(policy.begin(settings) for policy in policies)
        net.admit(policies)
        solver = solvers.get(settings.solver)()
        path, layout = self.denoiser.meaning.path, settings.layout
        if layout.discrete != isinstance(path, Betas):
            raise UsageError(
                f"the layout {layout.kind!r} on the path {path}", "spacings of steps are for discrete schedules, the others for flows"
            )
        times = layout.times(settings.steps, self._shift(settings), path.steps if isinstance(path, Betas) else 1000)
        carried = adapters(net, [lora.to(self.device, self.dtype) for lora in settings.loras])
        guidance = ClassifierFree(settings.weight, settings.guide)
        return Ode(self.denoiser, solver, times, guidance, sessions, self.device, carried, bare=layout.bare)

    def _own_policies(self, settings: Draw) -> tuple[Policy, ...]:
        """What this model itself does at another size than its own."""
        own = self.defaults.other_sizes
        if own is None or settings.size == self.defaults.size or any(isinstance(p, Extrapolation) for p in settings.policies):
            return ()
        net: Any = self.denoiser.net
        if "rotary" not in net.capabilities:
            raise UsageError("other_sizes in the defaults of a network without rotary positions", "None: there is nothing to stretch")
        return (Extrapolation(net.rotary, self.defaults.size[0] // self._token, **to_dict(own)),)

    @property
    def _token(self) -> int:
        """Pixels of a token's side."""
        return self.codec.factor * int(getattr(getattr(self.denoiser.net, "config", None), "patch", 1))

    def _shift(self, settings: Draw) -> float:
        """The shift asked for, or the model's own for this size."""
        if settings.shift is not None:
            return settings.shift
        return replace(self.defaults, layout=settings.layout).own_shift(settings.size, self._token)

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
    ) -> tuple[dict[str, Conditions], tuple[str, ...]]:
        """Conditions by lane and notes on truncation. Without a negative prompt the uncond lane holds each slot's null form.

        `size`, `guidance`: told to networks that read them; None = the model's own.
        """
        size, guidance = size or self.defaults.size, self.defaults.guidance if guidance is None else guidance
        lanes, notes = self._texts(prompts, negative, weight, at_least)
        return {lane: self._told(cond, len(prompts), size, guidance) for lane, cond in lanes.items()}, notes

    def _told(self, cond: Conditions, rows: int, size: tuple[int, int], guidance: float) -> Conditions:
        """`cond` with the numbers that the network reads beside the text: the picture's sizes (PixArt-alpha at 1024), a guidance."""
        slots, vectors, scalars = self.denoiser.net.slots, dict(cond.vectors), dict(cond.scalars)
        if "sizes" in slots:
            height, width = size
            vectors["sizes"] = torch.tensor([[height, width, height / width]]).repeat(rows, 1)
        if "guidance" in slots:
            scalars["guidance"] = torch.full((rows,), guidance)
        return replace(cond, vectors=vectors, scalars=scalars)

    def _texts(self, prompts: Sequence[str], negative: str, weight: float, at_least: int) -> tuple[dict[str, Conditions], tuple[str, ...]]:
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
        filled = Conditions({"text": Tokens(states.tokens, states.mask).pad_to(at_least)} if "text" in names else {})
        if "pooled" in names:
            if states.pooled is None:
                raise UsageError("this text encoder gives no pooled vector, which the model's slot 'pooled' needs")
            filled = replace(filled, vectors={"pooled": states.pooled})
        if "class" in names:
            if states.labels is None:
                raise UsageError("this text encoder names no class, which the model's slot 'class' needs")
            filled = replace(filled, scalars={"class": states.labels})
        return filled

    def _states(self, prompts: Sequence[str], encoder: TextEncoder) -> TextStates:
        """States of `prompts`, each distinct one encoded alone: in a batch its last bits would depend on its neighbours' lengths."""
        alone = {prompt: encoder.encode([prompt]) for prompt in dict.fromkeys(prompts)}
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
        return possible_size(size, self._token)

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
            "guide": to_dict(settings.guide),
            "loras": [lora.record() for lora in settings.loras],
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device.type,
        }


def _imitate(prompts: list[str], rows: Rows, frame: tuple[int, int, int]) -> tuple[list[str], Rows]:
    """A batch shaped as the recorded one, this picture standing at its old row. What else the batch holds does not matter."""
    if len(prompts) != 1 or not 0 <= frame[1] < frame[0]:
        raise UsageError(f"frame {frame} with {len(prompts)} prompts", "a frame (rows, row, text tokens) goes with one picture")
    return prompts * frame[0], Rows(rows.seeds * frame[0])
