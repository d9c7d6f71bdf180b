"""UniDiffuser (Bao et al., arXiv 2303.06555): pictures of prompts, captions of pictures, and both at once, by one network.

    prompt -> CLIP's states -> captioner -> y (B, 77, 64), given at t = 0          picture: latents and a CLIP embedding, drawn
    picture -> codec's latents and CLIP's embedding, given at t = 0                caption: y, drawn -> captioner -> words

The process is `sampling/joint.py`. `guidance` is w; the paper's scale s is w - 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core.conditions import Conditions
from ..core.errors import UsageError
from ..core.rng import Rows
from ..core.state import Stream
from ..sampling.joint import Joint, JointRequest
from ..sampling.loop import OnStep, draw
from ..text.captioner import Captioner
from .conditioning import Lanes
from .settings import Draw, possible_size
from .text_to_image import TextToImage, Walked

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Sight:
    """CLIP's image tower (transformers' `CLIPVisionModelWithProjection`) and its preprocessing."""

    model: Any
    processor: Any

    @torch.no_grad()
    def __call__(self, images: Sequence[Image]) -> Tensor:
        """Embeddings (B, 1, D), fp32."""
        pixels = self.processor(images=list(images), return_tensors="pt").pixel_values
        embeddings: Tensor = self.model(pixels.to(self.model.device, self.model.dtype)).image_embeds
        return embeddings.float()[:, None]


@dataclass(frozen=True)
class Pairs:
    """Pictures (B, 3, H, W) in [-1, 1] on the CPU, and a caption of each that was drawn with it."""

    images: Tensor
    captions: tuple[str, ...]


@dataclass
class UniDiffuser(TextToImage):
    """A `TextToImage` that also captions pictures (`captions`) and draws both (`pairs`).

    A negative prompt is a second caption, given at t = 0; without one, the network's own answer to a caption that says nothing is guided
    away from. `micro={"kind": (0,)}`: as pictures of the web, where the network reads kinds; 1, cleaner ones, is the default.
    """

    captioner: Captioner = field(kw_only=True)
    sight: Sight = field(kw_only=True)

    def check_start(self) -> None:
        raise UsageError(
            "a UniDiffuser goes on from no picture and after no other model (--from-picture, --refiner)",
            "it draws a picture together with its CLIP embedding, which latents alone have not; start anew",
        )

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> UniDiffuser:
        super().to(device, dtype)
        for model in (self.captioner, self.sight.model):
            model.to(device=device, dtype=dtype)
        return self

    def conditions(
        self, prompts: Sequence[str], negative: str = "", weight: float = 1.0, at_least: int = 0
    ) -> tuple[Lanes, tuple[str, ...]]:
        """Raises `UsageError`: who asks for them hands a network an image and slots alone."""
        raise UsageError("the conditions of a UniDiffuser", "its prompt is a stream, no slot; `example` gives what it reads")

    def example(self, size: tuple[int, int], text_tokens: int) -> tuple[Mapping[str, Stream], Conditions]:
        """See `TextToImage.example`; a caption always has as many tokens."""
        settings, at = self.settle(size=size), torch.ones(1, device=self.device)
        streams = {name: Stream(torch.zeros(1, *shape, device=self.device), t=at) for name, shape in self._shapes(size).items()}
        return streams, self._kind(settings, 1).to(self.device)

    def modules(self) -> dict[str, nn.Module]:
        return {**super().modules(), "captioner": self.captioner, "image_encoder": self.sight.model}

    def check_micro(self, size: tuple[int, int], micro: Mapping[str, Sequence[float]]) -> None:
        reads = "kind" in self.denoiser.net.slots
        for name, numbers in micro.items():
            if not reads or name != "kind" or tuple(numbers) not in ((0,), (1,)):
                reading = "this network reads kind: (0,) or (1,)" if reads else "this network reads none"
                raise UsageError(f"micro {name} = {', '.join(f'{n:g}' for n in numbers)}", f"numbers of a training picture; {reading}")

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
        """See `TextToImage.walk`. Raises `UsageError` for latents to start from."""
        if x0 is not None or xt is not None:
            self.check_start()
        weight = settings.weight if settings.negative else 1.0
        lanes, notes = self._conditioning(settings.loras).lanes(prompts, settings.negative, weight, settings.drawn, settings.guidance)
        captions = {lane: self.captioner.encode(cond.tokens["text"].states) for lane, cond in lanes.items()}
        against = {"text": captions["uncond"]} if "uncond" in captions else {}
        drawn, process = self._joint(settings, rows, {"text": captions["cond"]}, against, on_step)
        return Walked(drawn["image"], notes, captions["cond"].shape[1], process.ode.sessions)

    def captions(
        self,
        images: Sequence[Image],
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        solver: str | None = None,
        micro: Mapping[str, Sequence[float]] | None = None,
    ) -> tuple[str, ...]:
        """A caption of each picture, all of one size; picture i is captioned with seed `seed + i`.

        Raises `UsageError` for pictures of several sizes, or of one that is not possible.
        """
        sizes = {(image.height, image.width) for image in images}
        if len(sizes) != 1:
            raise UsageError(f"{len(images)} pictures of {len(sizes)} sizes", "at least one picture, and all of one size")
        settings = self.settle(size=sizes.pop(), steps=steps, guidance=guidance, solver=solver, micro=micro)
        rows, images = Rows(tuple(seed + i for i in range(len(images)))), [image.convert("RGB") for image in images]
        seen = {"image": self._encoded(images, rows), "clip": self.sight(images)}
        return self.captioner.decode(self._joint(settings, rows, seen)[0]["text"])

    def pairs(
        self,
        num: int = 1,
        *,
        seed: int = 0,
        size: tuple[int, int] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        solver: str | None = None,
        micro: Mapping[str, Sequence[float]] | None = None,
        on_step: OnStep | None = None,
    ) -> Pairs:
        """`num` pictures with their captions, of nothing that was asked for; pair i has seed `seed + i`."""
        if num < 1:
            raise UsageError(f"num is {num}", "at least 1 pair")
        settings = self.settle(size=size, steps=steps, guidance=guidance, solver=solver, micro=micro)
        drawn, _ = self._joint(settings, Rows(tuple(seed + i for i in range(num))), {}, on_step=on_step)
        return Pairs(self.decode(drawn["image"], settings.size).cpu(), self.captioner.decode(drawn["text"]))

    def _joint(
        self,
        settings: Draw,
        rows: Rows,
        given: Mapping[str, Tensor],
        against: Mapping[str, Tensor] | None = None,
        on_step: OnStep | None = None,
    ) -> tuple[dict[str, Tensor], Joint]:
        """The streams that are not `given`, drawn."""
        process = Joint(self._process(settings))
        return draw(
            process, JointRequest(self._shapes(settings.drawn), given, self._kind(settings, len(rows)), against or {}), rows, on_step
        ), process

    def _shapes(self, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        """Of every stream's item, for pictures of `size`."""
        net: Any = self.denoiser.net.config
        latent = (self.codec.latent_channels, *(n // self.codec.factor for n in size))
        return {"image": latent, "clip": (1, net.clip_width), "text": (net.words, net.text_width)}

    def _kind(self, settings: Draw, rows: int) -> Conditions:
        kind = int(settings.micro.get("kind", (1,))[0])
        return Conditions(scalars={"kind": torch.full((rows,), kind)} if "kind" in self.denoiser.net.slots else {})

    @torch.no_grad()
    def _encoded(self, images: Sequence[Image], rows: Rows) -> Tensor:
        """Latents (B, C, h, w), a sample of what the codec sees in each."""
        import numpy as np

        pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]).float() / 127.5 - 1
        size = possible_size((pixels.shape[2], pixels.shape[3]), self.patch)
        noise = rows.normal((self.codec.latent_channels, *(n // self.codec.factor for n in size)), "encoded")
        like = next(self.codec.parameters())
        return self.codec.encode(pixels.to(like), noise.to(like)).float()
