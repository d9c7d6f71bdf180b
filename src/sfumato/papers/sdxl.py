"""SDXL (arXiv 2307.01952): a larger U-Net, and a network that is told the size and the crop of each training picture.

The smoke check holds sizes, schedule and micro-conditions against the paper and the released configuration. The measured claims: small
U-Nets learn EmojiWorld with some drawings blurred, or cut out of larger pictures, and are told so or not (`sdxl_study.py`). Buckets of
aspect ratios and offset noise are parts of training that do not exist here yet.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..backbones.unet import UNet, tiny
from ..backbones.unet_plan import UNetConfig
from ..core.conditions import Conditions
from ..core.discrete import Betas
from ..core.rng import Rows
from ..core.state import Stream
from ..nn.embeddings import sinusoid
from ..training.optimizers import OptimizerConfig
from .arms import Trial
from .claims import Budget, Claim, Finding, Outcome, exact
from .inputs import asked, gap, parameters
from .sdxl_report import draw_told, verdict
from .sdxl_study import ToldPlan, known_crops, learn_crops, learn_sizes
from .world import open_world

CLAIM = Claim(
    slug="sdxl",
    title="SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis",
    arxiv="2307.01952",
    statement="A latent U-Net that is told the original size and the crop of its training pictures can learn from small and cropped ones "
    "without drawing blurred or cut-off things.",
    budgets=("smoke", "cpu"),
)
SIZE = 64  # pixels; 8 x 8 and 4 x 4 cells
# Steps count: after 150 of them a network draws the same whatever it is told, after 600 it begins to listen.
PLAN = ToldPlan(
    shape=UNetConfig(widths=(48, 96), down=((0,), (1,)), middle=1, up=((1, 0), (0, 0)), heads=(3, 6), groups=16, sizes_width=64),
    trial=Trial(
        images=11_200,
        batch=16,
        ema=0.98,
        pictures=300,
        steps=(8,),
        optimizer=OptimizerConfig(name="adamw", lr=2e-3, betas=(0.9, 0.99), warmup=40, decay_from=0.5),
    ),
    crops=12_800,
)
BASE = UNetConfig()
REFINER = UNetConfig(
    widths=(384, 768, 1536, 1536),
    down=((0, 0), (4, 4), (4, 4), (0, 0)),
    middle=4,
    up=((0,) * 3, (4,) * 3, (4,) * 3, (0,) * 3),
    heads=(6, 12, 24, 24),
    text_width=1280,
    sizes=("original_size", "crop", "aesthetic"),
)
BETAS = Betas("scaled_linear", 0.00085, 0.012)
NAMES = ("original_size", "crop", "target_size")


def check(budget: Budget) -> Outcome:
    """Smoke: the exact checks. Otherwise both measured claims."""
    if budget.name != "smoke":
        return measure(budget)
    with torch.no_grad():
        return Outcome((*sizes(), *numbers(), *schedule(), *told()))


def measure(budget: Budget) -> Outcome:
    """Three arms of sizes and two of crops, with every seed."""
    plan, world = PLAN.scaled(budget.scale), open_world(budget, SIZE)
    of_sizes = learn_sizes(CLAIM.slug, plan, world, budget)
    of_crops = learn_crops(f"{CLAIM.slug}-crops", plan, world, budget)
    reached, summary, decisive = verdict(of_sizes, of_crops, plan.trial.steps[0])
    true = known_crops(plan, world, budget)
    shown = (Finding(f"training pictures found cut by the border: {name}", None, share, None, "share") for name, share in true.items())
    known = (f for f in (*of_sizes.findings(), *of_crops.findings()) if f.found != "not estimable")
    return Outcome((*decisive, *shown, *known), reached, summary, plan.trial.seeds, draw_told(plan, of_sizes, of_crops, world, budget))


def sizes() -> tuple[Finding, ...]:
    """The networks of the two releases, and the vectors that they add to the time."""
    plain = replace(BASE, text_width=1024, pooled_width=0, sizes=())
    return (
        exact("parameters of the base", 2_567_463_684, parameters(BASE)),
        exact("parameters of the refiner", 2_259_526_660, parameters(REFINER)),
        exact("parameters of the base on states of 1024, without the added vector", 2_391_824_644, parameters(plain)),
        exact("numbers of the added vector, base and refiner", (2816, 2560), (BASE.added_width, REFINER.added_width)),
    )


def numbers() -> tuple[Finding, ...]:
    """How a size is written: 128 cosines, then 128 sines, of pixels as they are."""
    none, side = sinusoid(torch.tensor([0.0, 1024.0]), 256)
    return (
        exact("embedding of 0: ones, then zeros", 0, gap(none, torch.cat([torch.ones(128), torch.zeros(128)]))),
        exact("embedding of 1024 at 0, 127, 128, 255", (0.98735, 0.99395, -0.15853, 0.10982), side[[0, 127, 128, 255]].tolist(), 1e-5),
    )


def schedule() -> tuple[Finding, ...]:
    """Noise over signal of steps 0, 199 (the refiner's first) and 999 of the released schedule."""
    t = (torch.tensor([0, 199, 999], dtype=torch.float64) + 1) / 1000
    alpha, sigma = BETAS.alpha(t), BETAS.sigma(t)
    return (
        exact("sigma / alpha at steps 0, 199, 999", (0.029167, 0.569285, 14.614641), (sigma / alpha).tolist(), 1e-6),
        exact("alpha_bar at step 199", 0.755238, float(alpha[1] ** 2), 1e-6),
    )


def told() -> tuple[Finding, ...]:
    """What micro-conditions change: (height, width), and nothing once the last Linear behind them is zero."""
    net = tiny()
    upright, wide = (_answer(net, torch.tensor([[h, w]])) for h, w in ((64.0, 32.0), (32.0, 64.0)))
    moved = [gap(upright, _answer(net, torch.tensor([[64.0, 32.0]]), name)) for name in NAMES]
    nn.init.zeros_(net.added.down.weight)
    nn.init.zeros_(net.added.down.bias)
    deaf = [gap(_answer(net, torch.tensor([[64.0, 32.0]])), _answer(net, torch.tensor([[64.0, 32.0]]), name)) for name in NAMES]
    return (
        Finding("height and width exchanged move the answer by", "more than 1e-4", (found := gap(upright, wide)), found > 1e-4),
        Finding("each of the three, doubled, moves the answer by at least", "more than 1e-4", min(moved), min(moved) > 1e-4),
        exact("the same with the added vector's last Linear zero", (0, 0, 0), deaf),
    )


def _answer(net: UNet, size: Tensor, doubled: str = "") -> Tensor:
    """The answer of a tiny network where all three numbers are `size` (1, 2), and one of them twice that."""
    streams, cond = asked(net, rows=1)
    vectors = {**cond.vectors, **{name: size * (2 if name == doubled else 1) for name in NAMES}}
    vectors.setdefault("pooled", Rows((0,)).normal((net.config.pooled_width,), "pooled"))
    answer: Tensor = net({n: Stream(s.x, t=s.t) for n, s in streams.items()}, Conditions(cond.tokens, vectors)).pred["image"]
    return answer
