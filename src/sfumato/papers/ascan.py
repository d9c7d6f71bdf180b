"""AsCAN (Kag et al., arXiv 2411.04967): plain blocks, laid out asymmetrically: stages with many cells mostly convolve, those with few
mostly attend, and within a stage convolution comes first.

The smoke check holds the layout's rule, both blocks, their costs and the noise at the end of the paper's schedules. The measured claim:
five layouts of equal FLOPs learn EmojiWorld (`ascan_study.py`), and are timed at widths and sides nearer to the paper's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import gelu

from ..backbones.ascan import AsCAN, AsCANConfig, of_budget, parameters, tiny
from ..core.call import Site
from ..core.discrete import Betas
from ..core.errors import ConfigError
from ..core.state import Stream
from ..nn.layout import asymmetric, parse_layout
from ..nn.rewires import Merge, Push
from .ascan_study import measure
from .claims import Budget, Claim, Finding, Outcome, exact
from .inputs import asked, gap

CLAIM = Claim(
    slug="ascan",
    title="AsCAN: Asymmetric Convolution-Attention Networks for Efficient Recognition and Generation",
    arxiv="2411.04967",
    statement="Plain convolution and attention blocks laid out asymmetrically, convolution where there are many cells and attention where "
    "there are few, give a better trade of quality against time than even or alternating layouts and than cleverer blocks.",
    budgets=("smoke", "cpu"),
)
CHOSEN, EVEN = "CCCT-CCTT-CTTT", "CCCC-CCTT-TTTT"
# The last beta -> alpha_bar at the last of 1000 steps, scaled linear from 0.00085; 0.01 is the paper's at 256 pixels, 0.02 above.
ENDS = {0.01: 0.01002, 0.012: 0.00466, 0.02: 0.00023}


def check(budget: Budget) -> Outcome:
    """Smoke: the exact checks. Otherwise layouts compared."""
    return Outcome((*layouts(), *blocks(), *network(), *costs(), *noise())) if budget.name == "smoke" else measure(budget)


def layouts() -> tuple[Finding, ...]:
    """The rule, read from a word."""
    stages = parse_layout(CHOSEN, "CT")
    try:
        parse_layout("CTC", "CT")
        refused = 0
    except ConfigError:
        refused = 1
    flags = [float(asymmetric(parse_layout(text, "CT"))) for text in (CHOSEN, EVEN)]
    return (
        exact(f"{CHOSEN}: convolutions by stage", (3, 2, 1), [stage.count("C") for stage in stages]),
        exact(f"{CHOSEN} and {EVEN} are asymmetric", (1, 0), flags),
        exact("attention before convolution is refused", 1, refused),
    )


@torch.no_grad()
def blocks() -> tuple[Finding, ...]:
    """Both kinds closed, and what stands side by side."""
    net: Any = tiny(layout="C-T-T-T-C", widths=(8, 8))
    state = net.run(net.start(*asked(net)), 0, net.config.text_blocks)
    convolution, transformer = (next(b for b in net.blocks if hasattr(b, name)) for name in ("conv", "cross"))
    x, y = state["image"], transformer.attention.norm(gelu(state["image"]))
    parts = {n: getattr(transformer, n).compute({"image": y}, state, Site(0, n), None)["image"] for n in ("attention", "cross", "mlp")}
    beside = transformer(state)["image"]
    after = x + parts["attention"] + parts["cross"]
    serial = after + transformer.mlp.core(transformer.attention.norm(gelu(after)))
    pos = state.streams["image"].pos
    assert pos is not None
    moved = state.attach("image", replace(state.streams["image"], pos=pos + 9.0))
    shifted = gap(transformer(moved)["image"], beside)
    own = transformer.attention.core.projections["image"]
    for layer in (convolution.conv.out, own.out, transformer.cross.core.out, transformer.mlp.core.down):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return (
        exact(
            "a transformer block v x + attention + cross-attention + MLP, all of one input", 0, gap(beside, x + sum(parts.values())), 1e-5
        ),
        Finding("the same v its MLP after its attention", "above 0.001", found := gap(beside, serial), found > 1e-3),
        exact("every position shifted alike: the answer moves by", 0, shifted, 1e-4),
        exact("a convolution block with a closed output, largest change", 0, gap(convolution(state)["image"], x)),
        exact("a transformer block with closed outputs, largest change", 0, gap(transformer(state)["image"], x)),
    )


@torch.no_grad()
def network() -> tuple[Finding, ...]:
    """Skips, sides, and layouts of one budget."""
    net = tiny(widths=(8, 16, 24), layout="CC-CT-T-T-T-CT-CC")
    streams, cond = asked(net)
    kept: list[torch.Tensor] = []
    state, wrong = net.start(streams, cond), 0
    for item in net.blocks:
        if isinstance(item, Push):
            kept.append(state["image"])
        if isinstance(item, Merge):
            wrong += not torch.equal(state.skips[-1]["image"].x, kept.pop())
        state = item(state)
    sides = [(8, 8), (12, 20), (4, 16)]
    answers = [net({"image": Stream(torch.zeros(2, 4, *side), t=torch.tensor([0.2, 0.8]))}, cond).pred["image"].shape[2:] for side in sides]
    plain = AsCANConfig(widths=(16, 32), layout="CC-CT-T-CT-CC", head=4, text_width=12, text_blocks=0, groups=4)
    budget = parameters(plain)
    dense = parameters(of_budget(replace(plain, layout="CC-CC-C-CC-CC"), budget)) / budget
    return (
        exact("skips that come back out of order, and that are left", (0, 0), (wrong, len(kept))),
        exact("answers of another shape than the input", 0, sum(tuple(a) != side for a, side in zip(answers, sides, strict=True))),
        Finding("parameters of an all-convolution layout of the same budget", "0.8 to 1.2", dense, 0.8 <= dense <= 1.2, "share"),
    )


def costs() -> tuple[Finding, ...]:
    """Multiply-adds of both kinds, 64 channels wide, at 100 cells."""
    net = AsCAN(AsCANConfig(widths=(64,), layout="C-T-C", head=16, text_width=24, text_blocks=0, groups=8))
    found = {str(info.site).split(".")[-1]: info.cost({"image": 100, "text": 7}) for info in net.sites()}
    linear = found["attention"] + found["mlp"] - 2 * 100**2 * 64
    return (
        exact("a convolution block's, in C^2 a cell", 40, found["conv"] / (100 * 64**2)),
        exact("a transformer block's but for cross-attention and 2 N C a cell, in C^2", 12, linear / (100 * 64**2)),
    )


def noise() -> tuple[Finding, ...]:
    """How much of the picture the last step keeps."""
    bars = [float(Betas("scaled_linear", 0.00085, end).alpha_bars()[-1]) for end in ENDS]
    return (exact(f"alpha_bar at the last step, betas to {', '.join(map(str, ENDS))}", tuple(ENDS.values()), bars, 5e-6),)
