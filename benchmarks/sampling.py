"""Whole sampling loops at published widths: sfumato, plain and packed, against diffusers' own pipelines on the same weights.

    python benchmarks/sampling.py pixart sd3 flux lumina --dtypes float32 bfloat16 --batches 1 4

Random weights, text states handed in, latents out: what is timed is the loop, with its guidance and its scheduler. Arms alternate in one
process; the ratio is of medians of processor time, so that other work on the machine weighs less. The answers are compared first.
Networks are cut to a few blocks. What a whole one takes is what this one takes and, for every block that it lacks, the first of its kind:
the last block may cost less, and would weigh too much here.
`--memory` measures each arm's peak memory instead, every arm in a process of its own.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from loading import peak_memory
from torch import Tensor

from sfumato.backbones.checkpoints.folder import load_denoiser
from sfumato.core.conditions import Conditions, Tokens
from sfumato.core.rng import Rows
from sfumato.sampling.guidance import ClassifierFree, Guide
from sfumato.sampling.loop import draw
from sfumato.sampling.ode import DrawRequest, Ode
from sfumato.sampling.schedules import Layout
from sfumato.sampling.solvers import solvers
from sfumato.surgery import pack

ARMS = ("diffusers", "sfumato", "packed")
ALL = Guide()


@dataclass(frozen=True)
class Texts:
    """What both sides read: states (B, N, D) with masks (B, N), pooled (B, D), for the prompt and against it; noise (B, C, h, w)."""

    states: Tensor
    keep: Tensor
    against: Tensor
    against_keep: Tensor
    pooled: Tensor
    against_pooled: Tensor
    noise: Tensor

    def conditions(self, dtype: torch.dtype, pooled: bool, **scalars: Tensor) -> dict[str, Conditions]:
        """By lane, without the padding that every row has."""

        def one(states: Tensor, keep: Tensor, vector: Tensor) -> Conditions:
            length = int(keep.sum(1).max())
            tokens = Tokens(states[:, :length].to(dtype), keep[:, :length])
            return Conditions({"text": tokens}, {"pooled": vector.to(dtype)} if pooled else {}, scalars)

        return {"cond": one(self.states, self.keep, self.pooled), "uncond": one(self.against, self.against_keep, self.against_pooled)}


@dataclass(frozen=True)
class Case:
    """A family at a published width. words: tokens read, of which `real` are no padding (0 = all).   latent: channels and side.

    lacks: of each kind of block, its list in diffusers' network, the number of its first in ours, and how many more the whole network has.
    """

    network: Any
    config: dict[str, Any]
    words: int
    real: int
    latent: tuple[int, int]
    pooled: int
    lacks: tuple[tuple[str, int, int], ...]
    theirs: Callable[[Any, Texts, int, torch.dtype], Callable[[], Tensor]]
    ours: Callable[[Any, Texts, int, torch.dtype], Callable[[], Tensor]]


def texts(case: Case, batch: int) -> Texts:
    generator = torch.Generator().manual_seed(1)
    width = next(case.config[name] for name in ("caption_channels", "joint_attention_dim", "cross_attention_dim") if name in case.config)

    def keep(real: int) -> Tensor:
        return (torch.arange(case.words) < (real or case.words)).expand(batch, -1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator)

    states, against = normal(case.words, width), normal(case.words, width)
    vectors = normal(max(case.pooled, 1)), normal(max(case.pooled, 1))
    channels, side = case.latent
    return Texts(states, keep(case.real), against, keep(1 if case.real else 0), *vectors, normal(channels, side, side))


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(
    denoiser: Any, conds: dict[str, Conditions], given: Texts, solver: str, times: Tensor, weight: float, layout: Layout, guide: Guide = ALL
) -> Callable[[], Tensor]:
    class Given(Rows):
        def normal(self, *_: Any, **__: Any) -> Tensor:
            return given.noise

    process = Ode(denoiser, solvers.get(solver)(), times, ClassifierFree(weight, guide), noise=layout.first)
    request = DrawRequest(tuple(given.noise.shape[1:]), conds)
    return lambda: draw(process, request, Given(tuple(range(len(given.noise)))))


def pixart_theirs(net: Any, t: Texts, steps: int, dtype: torch.dtype) -> Callable[[], Tensor]:
    scheduler = diffusers.DPMSolverMultistepScheduler()
    pipe = quiet(diffusers.PixArtSigmaPipeline(tokenizer=None, text_encoder=None, vae=None, transformer=net, scheduler=scheduler))
    return lambda: pipe(
        negative_prompt=None, prompt_embeds=t.states.to(dtype), negative_prompt_embeds=t.against.to(dtype),
        prompt_attention_mask=t.keep.long(), negative_prompt_attention_mask=t.against_keep.long(),
        num_inference_steps=steps, guidance_scale=4.5, latents=t.noise.to(dtype),
        height=8 * t.noise.shape[2], width=8 * t.noise.shape[3], use_resolution_binning=False, output_type="latent",
    ).images  # fmt: skip


def pixart_ours(denoiser: Any, t: Texts, steps: int, dtype: torch.dtype) -> Callable[[], Tensor]:
    layout = Layout("linspace", spare=True)
    return run(denoiser, t.conditions(dtype, pooled=False), t, "dpm++2m", layout.times(steps, 1.0), 4.5, layout)


def sd3_theirs(net: Any, t: Texts, steps: int, dtype: torch.dtype) -> Callable[[], Tensor]:
    parts = {f"{part}{n}": None for part in ("text_encoder", "tokenizer") for n in ("", "_2", "_3")}
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipe = quiet(diffusers.StableDiffusion3Pipeline(transformer=net, scheduler=scheduler, vae=None, **parts))
    return lambda: pipe(
        prompt_embeds=t.states.to(dtype), negative_prompt_embeds=t.against.to(dtype), pooled_prompt_embeds=t.pooled.to(dtype),
        negative_pooled_prompt_embeds=t.against_pooled.to(dtype), num_inference_steps=steps, guidance_scale=7.0, latents=t.noise.to(dtype),
        height=8 * t.noise.shape[2], width=8 * t.noise.shape[3], output_type="latent",
    ).images  # fmt: skip


def sd3_ours(denoiser: Any, t: Texts, steps: int, dtype: torch.dtype) -> Callable[[], Tensor]:
    return run(denoiser, t.conditions(dtype, pooled=True), t, "euler", (layout := Layout("released")).times(steps, 3.0), 7.0, layout)


def flux_theirs(net: Any, t: Texts, steps: int, dtype: torch.dtype) -> Callable[[], Tensor]:
    parts = {f"{part}{n}": None for part in ("text_encoder", "tokenizer") for n in ("", "_2")}
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    pipe = quiet(diffusers.FluxPipeline(transformer=net, scheduler=scheduler, vae=None, **parts))
    rows, columns = t.noise.shape[2:]
    packed = pipe._pack_latents(t.noise.to(dtype), len(t.noise), t.noise.shape[1], rows, columns)

    def picture() -> Tensor:
        tokens = pipe(
            prompt_embeds=t.states.to(dtype), pooled_prompt_embeds=t.pooled.to(dtype), num_inference_steps=steps, guidance_scale=3.5,
            latents=packed, height=8 * rows, width=8 * columns, output_type="latent",
        ).images  # fmt: skip
        return pipe._unpack_latents(tokens, 8 * rows, 8 * columns, 8)

    return picture


def flux_ours(denoiser: Any, t: Texts, steps: int, dtype: torch.dtype) -> Callable[[], Tensor]:
    conds = t.conditions(dtype, pooled=True, guidance=torch.full((len(t.noise),), 3.5))
    return run(denoiser, {"cond": conds["cond"]}, t, "euler", (layout := Layout("paper")).times(steps, 1.0), 1.0, layout)


def lumina_theirs(net: Any, t: Texts, steps: int, dtype: torch.dtype) -> Callable[[], Tensor]:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    pipe = quiet(diffusers.LuminaPipeline(transformer=net, scheduler=scheduler, vae=None, text_encoder=None, tokenizer=None))
    pipe.vae_scale_factor = 8
    return lambda: pipe(
        negative_prompt=None, prompt_embeds=t.states.to(dtype), negative_prompt_embeds=t.against.to(dtype),
        prompt_attention_mask=t.keep.long(), negative_prompt_attention_mask=t.against_keep.long(),
        num_inference_steps=steps, guidance_scale=4.0, latents=t.noise.to(dtype), scaling_watershed=0.0,
        height=8 * t.noise.shape[2], width=8 * t.noise.shape[3], output_type="latent",
    ).images  # fmt: skip


def lumina_ours(denoiser: Any, t: Texts, steps: int, dtype: torch.dtype) -> Callable[[], Tensor]:
    return run(
        denoiser,
        t.conditions(dtype, pooled=False),
        t,
        "euler",
        (layout := Layout("released")).times(steps, 1.0),
        4.0,
        layout,
        Guide(channels=3),
    )


# Depth is cut, so that a row takes minutes: the width, and so the cost of a block, is the published one.
CASES = {
    "pixart": Case(
        diffusers.PixArtTransformer2DModel, {"sample_size": 32, "num_layers": 2, "caption_channels": 4096, "interpolation_scale": 1},
        words=300, real=40, latent=(4, 32), pooled=0, lacks=(("transformer_blocks", 0, 26),), theirs=pixart_theirs, ours=pixart_ours,
    ),
    "sd3": Case(
        diffusers.SD3Transformer2DModel,
        {"sample_size": 32, "num_layers": 2, "num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 192,
         "joint_attention_dim": 4096, "pooled_projection_dim": 2048},
        words=333, real=0, latent=(16, 32), pooled=2048, lacks=(("transformer_blocks", 0, 22),), theirs=sd3_theirs, ours=sd3_ours,
    ),
    "flux": Case(
        diffusers.FluxTransformer2DModel, {"num_layers": 1, "num_single_layers": 2, "guidance_embeds": True, "joint_attention_dim": 4096},
        words=512, real=0, latent=(16, 32), pooled=768,
        lacks=(("transformer_blocks", 0, 18), ("single_transformer_blocks", 1, 36)), theirs=flux_theirs, ours=flux_ours,
    ),
    "lumina": Case(
        diffusers.LuminaNextDiT2DModel,
        {"sample_size": 32, "num_layers": 2, "hidden_size": 2304, "num_attention_heads": 32, "num_kv_heads": 8,
         "cross_attention_dim": 2048},
        words=256, real=40, latent=(4, 32), pooled=0, lacks=(("layers", 0, 22),), theirs=lumina_theirs, ours=lumina_ours,
    ),
}  # fmt: skip


def written(case: Case, dtype: torch.dtype, folder: Path) -> Path:
    """Random weights, none of them zero, in diffusers' format."""
    torch.manual_seed(0)
    net = case.network(**case.config)
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    for layer in getattr(net, "layers", ()):
        # Lumina's files hold the one query of both attentions twice.
        layer.attn2.to_q.load_state_dict(layer.attn1.to_q.state_dict())
        layer.attn2.norm_q.load_state_dict(layer.attn1.norm_q.state_dict())
    net.to(dtype).save_pretrained(folder)
    return folder


def loaded(arm: str, case: Case, folder: Path, dtype: torch.dtype) -> Any:
    """Diffusers' network, or our denoiser."""
    if arm == "diffusers":
        return case.network.from_pretrained(folder, torch_dtype=dtype).eval()
    denoiser = load_denoiser(folder, dtype)
    if arm == "packed":
        pack(denoiser.net)
    return denoiser


class Lacking:
    """Processor seconds of the blocks that stand for those that a cut network lacks, each counted as often as it is lacking."""

    def __init__(self, arm: str, case: Case, loaded: Any) -> None:
        self.seconds = 0.0
        for theirs, ours, count in case.lacks:
            block = getattr(loaded, theirs)[0] if arm == "diffusers" else loaded.net.blocks[ours]
            block.register_forward_pre_hook(partial(self._begin, count))
            block.register_forward_hook(partial(self._end, count))

    def _begin(self, count: int, *_: Any) -> None:
        self.seconds -= count * time.process_time()

    def _end(self, count: int, *_: Any) -> None:
        self.seconds += count * time.process_time()


@dataclass(frozen=True)
class Row:
    """Median seconds by arm, of the loop as it is (`cut`) and at whole depth; relative distances of our answers to diffusers'."""

    cut: dict[str, float]
    whole: dict[str, float]
    errors: dict[str, float]

    def __str__(self) -> str:
        ours = (
            f"{arm} x{self.whole['diffusers'] / self.whole[arm]:.2f} (cut x{self.cut['diffusers'] / self.cut[arm]:.2f}, "
            f"distance {self.errors[arm]:.1e})"
            for arm in ARMS[1:]
        )
        return ", ".join((f"diffusers {self.whole['diffusers']:.1f} s (cut {self.cut['diffusers']:.2f} s)", *ours))


def compared(case: Case, folder: Path, dtype: torch.dtype, batch: int, steps: int, rounds: int) -> Row:
    given = texts(case, batch)
    networks = {arm: loaded(arm, case, folder, dtype) for arm in ARMS}
    arms = {arm: (case.theirs if arm == "diffusers" else case.ours)(net, given, steps, dtype) for arm, net in networks.items()}
    answers = {arm: draw_one().float() for arm, draw_one in arms.items()}
    lacking = {arm: Lacking(arm, case, net) for arm, net in networks.items()}
    cut: dict[str, list[float]] = {arm: [] for arm in ARMS}
    whole: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for turn in range(rounds):
        for arm in ARMS if turn % 2 else reversed(ARMS):
            lacking[arm].seconds, start = 0.0, time.process_time()
            arms[arm]()
            cut[arm].append(time.process_time() - start)
            whole[arm].append(cut[arm][-1] + lacking[arm].seconds)
    theirs, median = answers["diffusers"], statistics.median
    errors = {arm: float((answers[arm] - theirs).norm() / theirs.norm()) for arm in ARMS[1:]}
    return Row({arm: median(v) for arm, v in cut.items()}, {arm: median(v) for arm, v in whole.items()}, errors)


def alone(arm: str, case: Case, folder: Path, dtype: torch.dtype, batch: int) -> float:
    """This process's peak memory in GB after loading and one step."""
    net = loaded(arm, case, folder, dtype)
    (case.theirs if arm == "diffusers" else case.ours)(net, texts(case, batch), 1, dtype)()
    return peak_memory()


def memory(family: str, folder: Path, kind: str, batch: int) -> str:
    """Peak memory of every arm, each in a process of its own."""
    told = [sys.executable, __file__, family, "--dtypes", kind, "--batches", str(batch), "--alone"]
    found = {arm: float(subprocess.check_output([*told, arm, str(folder)], text=True).splitlines()[-1]) for arm in ARMS}
    return ", ".join(f"{arm} {gigabytes:.2f} GB" for arm, gigabytes in found.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("families", nargs="+", choices=sorted(CASES))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--alone", nargs=2, metavar=("ARM", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        arm, folder = options.alone
        print(alone(arm, CASES[options.families[0]], Path(folder), getattr(torch, options.dtypes[0]), options.batches[0]))
        return
    for family, kind in itertools.product(options.families, options.dtypes):
        with tempfile.TemporaryDirectory() as folder:
            stored = written(CASES[family], getattr(torch, kind), Path(folder))
            for batch in options.batches:
                told = (
                    memory(family, stored, kind, batch)
                    if options.memory
                    else compared(CASES[family], stored, getattr(torch, kind), batch, options.steps, options.rounds)
                )
                print(f"{family} {kind} batch {batch}: {told}", flush=True)


if __name__ == "__main__":
    main()
