"""A shipped model, taught on: pictures and captions in, the same pipeline with tuned weights out, looked at on the way."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.denoiser import Denoiser
from ..core.files import write_json
from ..core.paths import path
from ..evaluate.pictures import resized
from ..objectives.denoising import Denoising
from ..pipelines import TextToImage
from ..training.diffusion import DiffusionTask, LatentStream, TextTable
from ..training.loop import TrainConfig, train
from ..training.optimizers import OptimizerConfig
from ..training.precompute import encode_captions, encode_pictures


@dataclass(frozen=True)
class Tuning:
    """`images`: training pictures seen in all, and at each of `marks` before; multiples of `batch`."""

    images: int
    marks: tuple[int, ...] = ()
    batch: int = 32
    ema: float = 0.98
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(name="adamw", lr=5e-4, betas=(0.9, 0.95), warmup=20, decay_from=0.5)
    )

    def scaled(self, scale: float) -> Tuning:
        """The same at `scale` times the pictures, one step between marks at least."""
        seen = [max(k + 1, int(scale * n) // self.batch) * self.batch for k, n in enumerate((*self.marks, self.images))]
        return self if scale == 1.0 else replace(self, images=seen[-1], marks=tuple(seen[:-1]))


@dataclass(frozen=True)
class Lessons:
    """latents (N, C, h, w) fp16.   captions (N, 1): rows of `table`."""

    latents: Tensor
    captions: Tensor
    table: TextTable

    def rows(self, index: Tensor) -> Lessons:
        """Some of them, with repetition where `index` repeats."""
        return replace(self, latents=self.latents[index], captions=self.captions[index])


def lessons(images: Tensor, captions: Sequence[str], pipe: TextToImage) -> Lessons:
    """What `pipe` is taught from: pictures (N, 3, H, W) uint8 and a caption each."""
    distinct = sorted(set(captions))
    numbers = torch.tensor([[distinct.index(caption)] for caption in captions])
    return Lessons(encode_pictures(images, pipe.codec, 64), numbers, encode_captions(distinct, pipe.encoder, 64))


# (training pictures seen, the model as it then is, where its pictures go) -> what it reached, as JSON values.
Look = Callable[[int, "AsTrained", Path], Mapping[str, float | None]]


def tune(pipe: TextToImage, taught: Lessons, tuning: Tuning, seed: int, folder: Path, look: Look) -> dict[str, float | None]:
    """Teach a copy of the network; `look` sees it with averaged weights at every mark and at the end. Returns all that it found.

    A run that was stopped goes on from `folder`, where findings are kept; its checkpoints are removed at the end.
    """
    net, meaning = copy.deepcopy(pipe.denoiser.net), pipe.denoiser.meaning
    tuned = AsTrained(replace(pipe, denoiser=Denoiser(net, meaning)))
    task = DiffusionTask(net, Denoising(path=path(meaning.path), prediction=meaning.prediction), meaning, pipe.slots)
    stream = LatentStream(taught.latents, taught.captions, taught.table, (1.0,), tuning.batch, seed)
    steps = [n // tuning.batch for n in (*tuning.marks, tuning.images)]

    def sampler(where: Path, step: int) -> None:
        if step in steps:
            place = folder / f"after-{step * tuning.batch}"
            write_json(place / "found.json", dict(look(step * tuning.batch, tuned, place)))

    device = pipe.device.type
    config = TrainConfig(steps[-1], tuning.optimizer, ema=tuning.ema, device=device, seed=seed, sample_every=math.gcd(*steps))
    train(task, {"train": stream}, config, folder / "train", sampler, quiet=True)
    found: dict[str, float | None] = {}
    for n in steps:
        found |= json.loads((folder / f"after-{n * tuning.batch}" / "found.json").read_text(encoding="utf-8"))
    shutil.rmtree(folder / "train")
    return found


@dataclass(frozen=True)
class AsTrained:
    """The pipeline with its solver fixed and its arithmetic in bf16, as it was trained. `options`: further ones of every call.

    `side`: pictures are enlarged to it, for a judge that sees larger ones than are drawn; 0 = as drawn.
    """

    pipe: TextToImage
    side: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, prompts: Sequence[str], *, seeds: Sequence[int], steps: int, guidance: float) -> Any:
        with torch.autocast(self.pipe.device.type, torch.bfloat16):
            drawn = self.pipe(prompts, seeds=seeds, steps=steps, guidance=guidance, solver="euler", **self.options)
        return replace(drawn, images=resized(drawn.images, self.side)) if self.side else drawn


def fingerprint(names: Iterable[str], modules: Iterable[nn.Module]) -> str:
    """A digest of names and weights: cells measured on other drawings, or by other networks, are other cells."""
    digest = hashlib.sha256("\n".join(names).encode())
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode() + tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]
