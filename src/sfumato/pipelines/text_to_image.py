"""From a prompt to a picture:  text states -> guided ODE walk in latents -> codec -> pixels.

One object with named components, saved and loaded as a diffusers folder (`folder.py`). Nothing about a request is kept in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Unpack

import torch
from torch import Tensor, nn

from ..codecs.autoencoder import Autoencoder
from ..core.call import Policy, Session
from ..core.conditions import Conditions, Slot
from ..core.config import to_dict
from ..core.denoiser import Denoiser
from ..core.errors import UsageError
from ..core.rng import Rows
from ..core.state import Stream, require_finite
from ..sampling.guidance import ClassifierFree
from ..sampling.loop import OnStep, draw
from ..sampling.ode import DrawRequest, Ode
from ..sampling.policies.extrapolation import Extrapolation
from ..sampling.solvers import solvers
from ..surgery import Lora, adapters, is_packed, load_lora, merge, pack, refuse_packed, save_lora
from ..surgery.lora import Weight
from ..text.encoded import TextEncoder
from .bins import fitted
from .conditioning import Conditioning, Lanes, text_models, with_loras
from .pictures import Pictures
from .requests import Options, refuse_unknown, rows_of
from .settings import Defaults, Draw, otherwise, possible_size, settled_cfg, settled_guide, train_steps, walk_times

if TYPE_CHECKING:
    from pathlib import Path


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
    card: what is known about the model (data, training, scores).   notes: what every picture should say.   loaded: options of `load`.
    refines: trained to go on from a picture or another model, which a picture drawn from noise alone then says.
    """

    encoder: TextEncoder
    denoiser: Denoiser
    codec: Autoencoder
    slots: tuple[Slot, ...]
    defaults: Defaults = field(default_factory=Defaults)
    identity: Mapping[str, str] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    loaded: Mapping[str, Any] = field(default_factory=dict)
    refines: bool = False

    @property
    def device(self) -> torch.device:
        somewhere = (p.device for p in self.denoiser.net.parameters() if not p.is_meta)  # a packed weight is but a shape
        return next(somewhere, torch.device("meta"))

    @property
    def dtype(self) -> torch.dtype:
        return next(self.denoiser.net.parameters()).dtype

    @property
    def weights(self) -> int:
        """Bytes of the network's and the codec's weights."""
        return sum(p.numel() * p.element_size() for part in (self.denoiser.net, self.codec) for p in part.parameters())

    @property
    def patch(self) -> int:
        """Pixels of a token's side."""
        return self.codec.factor * int(getattr(getattr(self.denoiser.net, "config", None), "patch", 1))

    def check_start(self) -> None:
        """Raise `UsageError` where latents alone are nothing to go on from."""

    @property
    def told_guidance(self) -> bool:
        """Whether the network was distilled to follow a guidance that it is told (slot "guidance"): it then needs no second lane."""
        return "guidance" in self.denoiser.net.slots

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> TextToImage:
        """Move the network, the codec and the text encoders; MiniLM, which ships, stays on the CPU in fp32. What would overflow in fp16
        stays in fp32: a codec with `force_upcast`, parts of T5.
        """
        refuse_packed(self.denoiser.net, "moved or cast")
        self.denoiser.net.to(device=device, dtype=dtype)
        self.codec.to(device=device, dtype=self.codec.precision(dtype))
        self.encoder.to(device, dtype)
        return self

    def pack(self) -> TextToImage:
        """Pack the network for this CPU (see `surgery.pack`): it draws sooner, and can no longer be saved, moved or merged with a LoRA."""
        pack(self.denoiser.net)
        return self

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        num: int = 1,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        on_step: OnStep | None = None,
        **options: Unpack[Options],
    ) -> Pictures:
        """Draw `num` pictures of each prompt as one batch; picture i of a prompt has seed `seed + i`, unless `seeds` gives one per picture.
        `options` (negative, steps, guidance, size, loras, ...): see `Options`.

        Raises `UsageError` for an empty prompt, an unknown option, impossible steps, guidance or size; `WeightsError` for a LoRA of another
        network; `NonFiniteError` where values stop being finite.
        """
        prompts, rows = rows_of(prompt, num, seed, seeds, options.get("frame"))
        return self.pictures(prompts, rows, self.settle(**options), on_step=on_step)

    def settle(self, **options: Unpack[Options]) -> Draw:
        """The settings of a call, what is None as the model has it. Raises as a call does, before anything is drawn."""
        refuse_unknown(options)
        own, negative = self.defaults, options.get("negative", "")
        size, layout = options.get("size") or own.size, options.get("layout") or own.layout
        binned, drawn = own.drawn_at(size, self.patch, options.get("binned"))
        guidance = otherwise(options.get("guidance"), own.guidance)
        settings = Draw(
            steps=otherwise(options.get("steps"), own.steps),
            guidance=guidance,
            cfg=settled_cfg(options.get("cfg"), own.cfg, self.told_guidance, guidance, negative),
            solver=options.get("solver") or own.solver,
            size=size,
            drawn=drawn,
            binned=binned,
            shift=otherwise(options.get("shift"), replace(own, layout=layout).own_shift(drawn, self.patch)),
            layout=layout,
            negative=negative,
            policies=tuple(options.get("policies", ())),
            loras=tuple(options.get("loras", ())),
            frame=options.get("frame"),
            micro=dict(options.get("micro") or {}),
        )
        solvers.get(settings.solver)
        self.check_micro(drawn, settings.micro)
        times, channels = self.times(settings)[:-1], self.codec.latent_channels
        return replace(settings, guide=settled_guide(options.get("guide"), own.guide, settings.weight, times, channels))

    def check_micro(self, size: tuple[int, int], micro: Mapping[str, Sequence[float]]) -> None:
        """Raise `UsageError` for numbers of a training picture that the network does not read."""
        self._conditioning().numbers(size, micro)

    def pictures(
        self,
        prompts: Sequence[str],
        rows: Rows,
        settings: Draw,
        *,
        x0: Tensor | None = None,
        xt: Tensor | None = None,
        on_step: OnStep | None = None,
    ) -> Pictures:
        """A picture of each prompt and row, or where `settings` have a frame the one that stands there. `x0`, `xt`: latents to start from,
        see `DrawRequest`.
        """
        walked = self.walk(prompts, rows, settings, x0=x0, xt=xt, on_step=on_step)
        images = self.decode(walked.latents, settings.size).cpu()
        frames = tuple((len(rows), i, walked.tokens) for i in range(len(rows)))
        notes = (*self.notes, *walked.notes, *settings.notes(self.defaults.size))
        if self.refines and x0 is None and xt is None:
            notes += (
                "this model refines: it goes on from a picture (`redraw`) or another model (`Refined`), and was drawn from noise alone",
            )
        found = Pictures(images, tuple(prompts), rows.seeds, frames, self.record(settings), notes, walked.sessions)
        return found if settings.frame is None else found.only(settings.frame[1])

    def walk(
        self,
        prompts: Sequence[str],
        rows: Rows,
        settings: Draw,
        *,
        x0: Tensor | None = None,
        xt: Tensor | None = None,
        on_step: OnStep | None = None,
    ) -> Walked:
        """The latents that `pictures` decodes: where the walk along the times, or along the part of them that `settings` names, ends."""
        at_least = settings.frame[2] if settings.frame else 0
        conds, notes = self._conditioning(settings.loras).lanes(
            prompts, settings.negative, settings.weight, settings.drawn, settings.guidance, at_least, settings.micro
        )
        process = self._process(settings)
        shape = (self.codec.latent_channels, *(n // self.codec.factor for n in settings.drawn))
        latents = draw(process, DrawRequest(shape, conds, x0, xt), rows, on_step)
        length = max((c.tokens["text"].states.shape[1] for c in conds.values() if "text" in c.tokens), default=0)
        return Walked(latents, notes, length, process.sessions[len(process.sessions) - len(settings.policies) :])

    def _process(self, settings: Draw) -> Ode:
        net = self.denoiser.net
        policies = (*self._own_policies(settings), *settings.policies)
        sessions = tuple(policy.begin(settings) for policy in policies)
        net.admit(policies)
        (first, last), path = settings.part, self.denoiser.meaning.path
        landings = settings.layout.landings(settings.steps, train_steps(path))
        carried = adapters(net, [lora.to(self.device, self.dtype) for lora in settings.loras])
        return Ode(
            self.denoiser,
            solvers.get(settings.solver)(),
            self.times(settings),
            ClassifierFree(settings.weight, settings.guide),
            sessions,
            self.device,
            carried,
            noise=settings.layout.first,
            landings=None if landings is None else landings[first:last],
        )

    def _own_policies(self, settings: Draw) -> tuple[Policy, ...]:
        """What this model itself does at another size than its own."""
        own = self.defaults.other_sizes
        if own is None or settings.drawn == self.defaults.size or any(isinstance(p, Extrapolation) for p in settings.policies):
            return ()
        net: Any = self.denoiser.net
        if "rotary" not in net.capabilities:
            raise UsageError("other_sizes in the defaults of a network without rotary positions", "None: there is nothing to stretch")
        return (Extrapolation(net.rotary, self.defaults.size[0] // self.patch, **to_dict(own)),)

    def times(self, settings: Draw) -> Tensor:
        """(steps + 1,) fp64 times that a call is walked through, or the part of them that `settings` names."""
        first, last = settings.part
        times = walk_times(settings.layout, settings.steps, settings.shift, self.denoiser.meaning.path)
        return times[first : None if last is None else last + 1]

    def record(self, settings: Draw) -> dict[str, Any]:
        """What a picture must know to be drawn again with these settings, JSON-ready."""
        packed = is_packed(self.denoiser.net)
        made_by = {"packed": packed, "dtype": str(self.dtype).removeprefix("torch."), "device": self.device.type}
        return {"model": dict(self.identity), "loaded": dict(self.loaded), **settings.record(), **made_by}

    def _conditioning(self, loras: Sequence[Lora] = ()) -> Conditioning:
        return Conditioning(with_loras(self.encoder, loras), self.slots, self.denoiser.net.slots)

    def conditions(
        self, prompts: Sequence[str], negative: str = "", weight: float = 1.0, at_least: int = 0
    ) -> tuple[Lanes, tuple[str, ...]]:
        """Conditions by lane and notes on truncation, at the model's own size and guidance. See `Conditioning.lanes`."""
        return self._conditioning().lanes(prompts, negative, weight, self.defaults.size, self.defaults.guidance, at_least)

    def example(self, size: tuple[int, int], text_tokens: int) -> tuple[Mapping[str, Stream], Conditions]:
        """What the network reads in one evaluation, of one row: nothing drawn yet, and a prompt of at least `text_tokens` tokens (0: a
        class).
        """
        conds, _ = self.conditions(["a" if text_tokens else "0"], at_least=text_tokens)
        latents = torch.zeros(1, self.codec.latent_channels, *(n // self.codec.factor for n in size), device=self.device)
        return {"image": Stream(latents, t=torch.ones(1, device=self.device))}, conds["cond"].to(self.device)

    def modules(self) -> dict[str, nn.Module]:
        """The networks by stage; published text encoders by their folders, of one that ships those it holds."""
        text: Mapping[str, nn.Module] = text_models(self.encoder)
        if not text:
            held = [value for value in vars(self.encoder).values() if isinstance(value, nn.Module)]
            text = {"text" if len(held) == 1 else f"text_{i}": module for i, module in enumerate(held, 1)}
        return {**text, "network": self.denoiser.net, "codec": self.codec}

    @torch.no_grad()
    def decode(self, latents: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Images (B, 3, H, W) in fp32, clamped to [-1, 1], resized to cover `size` where it is another. Latents may be on any device."""
        images = self.codec.decode(latents.to(next(self.codec.parameters()).device)).float()
        require_finite(images, "the decoded picture")
        return (images if size is None else fitted(images, size)).clamp(-1, 1)

    def save(self, folder: str | Path, overwrite: bool = False, format: Literal["sfumato", "diffusers"] = "sfumato") -> Path:
        """Write a diffusers-layout folder, atomically; "diffusers": one that diffusers' own pipeline loads. See `folder.save`."""
        from .folder import save

        refuse_packed(self.denoiser.net, "saved")
        return save(self, folder, overwrite, format=format)

    def lora(self, path: str | Path, weight: Weight = 1.0, partial: bool = False) -> Lora:
        """The LoRA in a file or folder, for this network and published text encoders, where they are; hand it to a call as `loras=[...]`.
        See `load_lora`.
        """
        return load_lora(path, self.denoiser.net, weight, partial, text_models(self.encoder)).to(self.device)

    def save_lora(self, lora: Lora, path: str | Path, overwrite: bool = False) -> Path:
        """Write `lora` as a safetensors file that diffusers reads. See `surgery.save_lora`."""
        return save_lora(lora, self.denoiser.net, path, overwrite)

    def merged(self, loras: Sequence[Lora], name: str) -> TextToImage:
        """A pipeline called `name` with `loras` folded into its network; this one stays as it is. Save it before its pictures are to be
        drawn again: until then its weights have no checksum.
        """
        net = merge(self.denoiser.net, [lora.to(self.device) for lora in loras])
        return replace(self, denoiser=replace(self.denoiser, net=net), identity={"name": name})

    def possible_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """`size` (height, width) in pixels, if this model can draw it; `UsageError` naming the nearest possible size otherwise."""
        return possible_size(size, self.patch)
