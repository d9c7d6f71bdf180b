"""PixArt-Sigma (Chen et al., arXiv 2403.04692): a trained PixArt whose deep blocks attend to keys and values of 2 x 2 tokens at once.

The smoke check holds the reducer, its start and its cost against the paper. The measured claim: small PixArts are trained on EmojiWorld,
then compressed (deep, middle or shallow half; from the average or from random weights) and taught on for a tenth of their training.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, layer_norm

from ..backbones.pixart import PixArtConfig, tiny
from ..core.rng import generator
from ..core.state import State, Stream
from ..nn.positions import corner_coordinates
from ..nn.projections import Projections, Reducer
from ..training.optimizers import OptimizerConfig
from .arms import Arm, Trial
from .claims import Budget, Claim, Finding, Outcome, Verdict, exact, reached, shown
from .compression_study import Compression, compressed, learn_compressed, speed
from .inputs import asked, gap, parameters
from .study import Interval, Results
from .trial_measures import grids
from .tuning import Tuning
from .world import open_world

CLAIM = Claim(
    slug="pixart-sigma",
    title="PixArt-Σ: Weak-to-Strong Training of Diffusion Transformer for 4K Text-to-Image Generation",
    arxiv="2403.04692",
    statement="Keys and values averaged 2 x 2 in the deep half of a trained transformer save a third of the time on large pictures and "
    "cost hardly any quality; a convolution that starts as the average lets the network adapt within a few steps.",
    budgets=("smoke", "cpu"),
)
DENSE, DEEP, MIDDLE, SHALLOW, RANDOM = "dense", "deep", "middle", "shallow", "deep from random"
SIZE = 64  # pixels; 8 x 8 tokens, 4 x 4 when compressed
# About 25 minutes on one core: of 9,600 pictures a base draws blobs in which the judge names nothing.
PLAN = Compression(
    base=Arm(PixArtConfig(depth=8, width=128, heads=4, patch=1, variance=False)),
    trial=Trial(images=32_000, batch=32, ema=0.98, pictures=160, steps=(8,)),
    tuning=Tuning(3200, marks=(320,), optimizer=OptimizerConfig(name="adamw", lr=2e-4, betas=(0.9, 0.95), warmup=20, decay_from=0.5)),
    blocks={DENSE: (), DEEP: (4, 5, 6, 7), MIDDLE: (2, 3, 4, 5), SHALLOW: (0, 1, 2, 3), RANDOM: (4, 5, 6, 7)},
    random=(RANDOM,),
)
# What counts as a third of the time, as hardly any quality.
SAVED, CLOSE = 0.75, 0.01


def check(budget: Budget) -> Outcome:
    """Smoke: the exact checks. Otherwise trained networks, compressed."""
    return Outcome((*reducer(), *network())) if budget.name == "smoke" else measure(budget)


def measure(budget: Budget) -> Outcome:
    """What compressed networks learn; and the speed of both, which needs no training."""
    plan = PLAN.scaled(budget.scale)
    results = learn_compressed(CLAIM.slug, plan, open_world(budget, SIZE), budget)
    found, summary, decisive = verdict(plan, results, speed(plan.base, plan.blocks[DEEP]))
    place = f"after-{plan.tuning.images}/{plan.trial.steps[0]}-steps"
    return Outcome((*decisive, *results.findings()), found, summary, plan.trial.seeds, grids(results, place, budget))


def verdict(plan: Compression, results: Results, times: Mapping[int, tuple[float, Interval]]) -> tuple[Verdict, str, tuple[Finding, ...]]:
    """Reproduced: fast, close to dense, deep better than middle and shallow, average ahead of random at the first mark. Partly: fast and
    one more.
    """
    side = max(times)
    quick, spread = times[side]
    saved = Finding(
        f"time at {side}x{side} tokens, half compressed over dense", f"at most {SAVED} (paper: 0.66)", quick, spread[1] <= SAVED, "", spread
    )
    (close, *halves, start), shown_beside = learned(plan, results)
    others = (
        Finding(f"time at {n}x{n} tokens, half compressed over dense", None, r, None, "", i) for n, (r, i) in times.items() if n != side
    )
    held = [bool(f.passed) for f in (saved, close, start)] + [all(f.passed for f in halves)]
    assert isinstance(close.found, float)
    told = f"{quick:.2f} of the time at {side}x{side} tokens; loss against dense {shown(close.found, close.interval, digits=3)}"
    found = reached(*held) if held[0] and any(held[1:]) else "not reproduced"
    return found, f"{told}; {sum(held)}/4 hold", (saved, close, *halves, start, *shown_beside, *others)


def learned(plan: Compression, results: Results) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """(deep against dense, against the other halves, and average against random start; what is shown beside them)."""
    first, last = (f"loss@{n}" for n in (plan.tuning.marks[0], plan.tuning.images))
    dense, early, late = results.mean(DENSE, last), results.mean(DEEP, first), results.mean(RANDOM, last)
    before = results.mean(DENSE, "loss@0")
    assert dense and early and late and before
    # Near to the dense network at its best: being near to one that tuning spoilt would say little.
    best = min(dense[0], before[0])
    margin = CLOSE * best - (dense[0] - best)
    close = results.apart("loss after tuning, deep half compressed minus dense", DEEP, DENSE, last, most=margin)
    halves = [results.apart(f"loss after tuning, deep minus {half} half", DEEP, half, last) for half in (MIDDLE, SHALLOW)]
    start = results.apart(f"loss after {plan.tuning.marks[0]} pictures, average minus random start", DEEP, RANDOM, first)
    names = (f"average start after {plan.tuning.marks[0]} pictures", f"random start after {plan.tuning.images}")
    beside = [Finding(f"loss, {name}", None, value[0], None, "", value[1]) for name, value in zip(names, (early, late), strict=True)]
    beside.append(Finding("loss of the dense network before tuning", None, before[0], None, "", before[1]))
    style = results.difference(DEEP, DENSE, f"style@{plan.trial.steps[0]}")
    beside += [] if style is None else [Finding("style named right, deep minus dense", "-0.01 or more", style[0], None, "share", style[1])]
    return (close, *halves, start), tuple(beside)


@torch.no_grad()
def reducer() -> tuple[Finding, ...]:
    """A new reducer is a LayerNorm of the average."""
    new, keys = Reducer(12, 2), torch.randn(3, 24, 12, generator=generator((0, "keys", 0)))
    plane = keys.transpose(1, 2).unflatten(2, (4, 6))
    pooled = avg_pool2d(plane, 2)
    tokens = pooled.flatten(2).transpose(1, 2)
    nearest = interpolate(plane, scale_factor=0.5, mode="nearest")
    ends = [(float(x[-1]), float(x[1] - x[0])) for x in (corner_coordinates(n, 32.0) for n in (16, 32, 64, 128))]
    return (
        exact("a new convolution and the average, largest difference", 0, gap(new.conv(plane), pooled), 1e-6),
        exact("a new reducer and the average's LayerNorm, largest difference", 0, gap(new(keys, (4, 6)), layer_norm(tokens, (12,))), 1e-6),
        exact(
            "nearest halving and every other token (what the code's 'ave' is), largest difference", 0, gap(nearest, plane[..., ::2, ::2])
        ),
        exact("last position at 256, 512, 1024, 2048 pixels", (30, 31, 31.5, 31.75), [last for last, _ in ends], 1e-5),
        exact("spacing of positions there", (2, 1, 0.5, 0.25), [step for _, step in ends], 1e-5),
    )


@torch.no_grad()
def network() -> tuple[Finding, ...]:
    """What compression adds, what it saves, and when it changes nothing."""
    deep, dense = tuple(range(14, 28)), tiny(compress=())
    streams, cond = asked(dense)
    ones = tiny(compress=(1, 2), ratio=1)
    conv = sum(p.numel() for n, p in Reducer(1152, 2).named_parameters() if n.startswith("conv"))
    saved = [a / b for a, b in zip(scores(()), scores((2, 3)), strict=True)]
    return (
        exact("a ratio of 1 changes the answer by", 0, gap(*(n(streams, cond).pred["image"] for n in (dense, ones)))),
        exact("equal tokens in every window, without the norm: change of attention", 0, windows(), 1e-5),
        exact("parameters added to 14 blocks of PixArt-XL", 112_896, parameters(PixArtConfig(compress=deep)) - parameters(PixArtConfig())),
        exact("of these the convolutions'", 80_640, 14 * conv),
        exact("multiply-adds of dense over compressed scores, 4 blocks of which 2", (1, 1, 4, 4), saved),
        exact("cost of all scores, half of the blocks compressed", 0.625, sum(scores((2, 3))) / sum(scores(())), 0, "share"),
    )


def scores(compress: tuple[int, ...]) -> list[int]:
    """Multiply-adds of every block's scores over 16,384 tokens: of attention without projections and reduction."""
    count, width = 16_384, 24
    net = tiny(depth=4, compress=compress)
    costs = [info.cost({"image": count, "text": 0}) for info in net.sites() if info.site.branch == "attention"]
    return [cost - 4 * count * width**2 - 2 * count * width * (i in compress) for i, cost in enumerate(costs)]


def windows() -> float:
    """How far a compressed block's attention is from a dense one's where the tokens of each 2 x 2 window are equal: keys that come twice
    cancel in the softmax. The reducer's norm is left out.
    """
    dense = tiny(compress=())
    half = compressed(dense, (0,))
    cells = torch.randn(1, 24, 2, 2, generator=generator((0, "windows", 0))).repeat_interleave(2, 2).repeat_interleave(2, 3)
    state: State = dense.start(*asked(dense, rows=1)).attach("image", Stream(cells.flatten(2).transpose(1, 2), grid=(4, 4)))
    for module in half.modules():
        if isinstance(module, Projections) and module.reduce is not None:
            module.reduce = _Average(module.reduce)
    site = dense.sites()[0].site
    a, b = (net.get_submodule(str(site))(state, site, None)[0]["image"] for net in (half, dense))
    return gap(a, b)


class _Average(Reducer):
    """A reducer without its norm."""

    def __init__(self, reducer: Reducer) -> None:
        nn.Module.__init__(self)
        self.conv, self.ratio = reducer.conv, reducer.ratio

    def forward(self, x: Tensor, grid: tuple[int, ...]) -> Tensor:
        return self.conv(x.transpose(1, 2).unflatten(2, grid)).flatten(2).transpose(1, 2)
