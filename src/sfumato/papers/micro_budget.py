"""MicroDiT (Sehwag et al., arXiv 2407.15811): a 1.16 B sparse transformer for about 1,890 dollars, by leaving out most patches in training,
but only behind a light patch mixer that lets each know of the others.

The smoke check holds the network, its mask, its experts and EDM's loss against the paper. That deferred masking draws better than naive
masking at equal cost is not measured yet: it takes six networks on 256 tokens, hours each on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..backbones.microdit import MicroDiT, MicroDiTConfig, tiny
from ..core.call import Call
from ..core.denoiser import Denoiser, Meaning
from ..core.precondition import Edm
from ..core.rng import Draws, normal
from ..nn.expert_choice import ExpertChoice
from ..nn.rewires import Gather
from ..objectives.denoising import Denoising
from ..objectives.masking import Masking
from ..objectives.times import LogitNormal
from .claims import Budget, Claim, Finding, Outcome, exact
from .inputs import asked, gap

CLAIM = Claim(
    slug="micro-budget",
    title="Stretching Each Dollar: Diffusion Training from Scratch on a Micro-Budget",
    arxiv="2407.15811",
    statement="Leaving out three quarters of the patches behind a light mixer of all of them costs little quality, unlike leaving them out "
    "at once, and beats a smaller network at the same training cost.",
    budgets=("smoke",),
)
XL2, TINY2 = MicroDiTConfig(), MicroDiTConfig(depth=16, width=512, head=32, mixer_depth=4, mixer_width=512)
# Of the latents that the released models were trained on; and the (P_mean, P_std) of ln s at 256 and at 512 pixels.
SIGMA_DATA, NOISES = 0.9, ((-0.6, 1.2), (0.0, 0.6))


def check(budget: Budget) -> Outcome:
    """The exact checks."""
    return Outcome((*sizes(), *experts(), *mask(), *noise()))


def sizes() -> tuple[Finding, ...]:
    """Parameters and widths of the two published shapes."""
    with torch.device("meta"):
        large, small = MicroDiT(XL2), MicroDiT(TINY2)
    backbone: list[Any] = list(large.blocks)[-XL2.depth :]
    gather = next(i for i, item in enumerate(large.blocks) if isinstance(item, Gather))
    mixer = list(large.blocks)[gather - XL2.mixer_depth : gather]
    picked: list[Any] = [backbone[i] for i in (0, 1, -1)]
    mlps: list[Any] = [block.mlp.core for block in picked]
    hidden: list[float] = [getattr(mlp, "experts", [mlp])[0].up.out_features for mlp in mlps]
    return (
        exact("XL/2: parameters in millions", 1165.4, _millions(large), 0.05),
        exact("XL/2: of these in the backbone", 958, _millions(*backbone), 0.5),
        exact("XL/2: of these in the mixer", 184, _millions(*mixer), 0.5),
        exact("Tiny/2: parameters in millions", 200.7, _millions(small), 0.05),
        exact(
            "XL/2: heads of blocks 0, 1 and 27 together",
            (512, 640, 1024),
            [b.attention.core.projections["image"].q.out_features for b in picked],
        ),
        exact("XL/2: hidden channels there, of an expert in block 1", (512, 768, 2816), hidden),
        exact("XL/2: blocks with experts", 13, sum(isinstance(b.mlp.core, ExpertChoice) for b in backbone)),
    )


@torch.no_grad()
def experts() -> tuple[Finding, ...]:
    """Every expert has the same work, however the router judges."""
    torch.manual_seed(0)
    moe = ExpertChoice(16, 32)
    taken = [moe.chosen(normal((2, tokens, 16), (0, "tokens", tokens)))[1].shape[-1] for tokens in (64, 256, 37)]
    moe.router.weight.copy_(moe.router.weight[:1].expand_as(moe.router.weight))
    alike = moe.chosen(normal((2, 64, 16), (0, "tokens", 64)))[0]
    return (
        exact("tokens of 64, 256 and 37 that each of 8 experts takes", (16, 64, 9), taken),
        exact("least and largest probability of an expert when the router's rows are one", (1 / 8, 1 / 8), _ends(alike), 1e-7),
    )


@torch.no_grad()
def mask() -> tuple[Finding, ...]:
    """What is left out, what comes back, and who heard of it."""
    net, naive, masking = tiny(), tiny(mixer_depth=0), Masking(0.75)
    x = asked(net)[0]["image"].x
    everything, keep = torch.arange(16).expand(2, -1), masking.draw(x, Draws(0, 0))
    answered = nn.functional.max_pool2d(_answer(net, x, keep).abs().amax(1, keepdim=True), 2).flatten(1) > 0
    dropped = torch.ones_like(answered).scatter(1, keep, False)
    cells = dropped.view(2, 1, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    nudged = x + cells
    heard, deaf = (gap(_answer(n, x, keep), _answer(n, nudged, keep)) for n in (net, naive))
    return (
        exact("patches of 256 that a ratio of 0.75 keeps", 64, masking.kept(256)),
        exact("keeping every patch v no mask, largest difference", 0, gap(_answer(net, x, everything), _answer(net, x))),
        exact("patches of 16 answered, of them kept", (4, 4), [int(answered[0].sum()), int((answered & ~dropped)[0].sum())]),
        Finding("dropped patches nudged: the answer moves by, deferred", "above 0", heard, heard > 0),
        exact("dropped patches nudged: the answer moves by, naive", 0, deaf),
    )


@torch.no_grad()
def noise() -> tuple[Finding, ...]:
    """A new network is D = c_skip x, whose loss on latents of the right size is 1 at every noise."""
    torch.manual_seed(0)
    edm, net = Edm(SIGMA_DATA), MicroDiT(tiny().config)
    denoiser = Denoiser(net, Meaning("x0", precondition=edm))
    x0, cond = SIGMA_DATA * normal((1024, 4, 8, 8), (0, "latents", 0)), asked(net, rows=1024)[1]
    found: list[Finding] = []
    for mean, spread in NOISES:
        objective = Denoising(LogitNormal(mean, spread), prediction="x0", precondition=edm)
        sample = objective.draw(x0, Draws(0, 0))
        answer = denoiser.out(sample.x_t, sample.t, cond).pred["image"]
        skip = edm.coefficients(*objective.path.at(sample.t, x0)).skip * sample.x_t
        where = f"ln s ~ N({mean}, {spread}^2)"
        found += [
            exact(f"{where}: a new network's answer v c_skip x, largest difference", 0, gap(answer, skip)),
            exact(f"{where}: its loss", 1, float(objective.loss(answer, sample).mean()), 0.01),
        ]
    return tuple(found)


def _answer(net: MicroDiT, x: Tensor, keep: Tensor | None = None) -> Tensor:
    streams, cond = asked(net)
    call = None if keep is None else Call(noise={"keep": keep})
    return net({"image": streams["image"].with_x(x)}, cond, call).pred["image"]


def _ends(values: Tensor) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _millions(*modules: nn.Module) -> float:
    return sum(p.numel() for module in modules for p in module.parameters()) / 1e6
