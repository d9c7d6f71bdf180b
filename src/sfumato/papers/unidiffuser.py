"""UniDiffuser (Bao et al., arXiv 2303.06555): one network for pictures, captions, either from the other, and both at once.

The smoke check holds the published shape, the norms after the sums, the table of modes, the two ways to write guidance, and the schedule.
Not built: training on pictures and captions at once, and a captioner learned on this project's captions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..backbones.unidiffuser import UniDiffuser, UniDiffuserConfig, tiny
from ..core.blocks import Block
from ..core.conditions import Conditions
from ..core.denoiser import Denoiser, Meaning
from ..core.discrete import Betas
from ..core.process import NetCall
from ..core.rng import Rows
from ..core.state import Stream
from ..nn.rewires import Merge
from ..sampling.guidance import ClassifierFree
from ..sampling.joint import Joint, JointRequest
from ..sampling.ode import Ode
from ..sampling.solvers import Euler
from .claims import Budget, Claim, Finding, Outcome, exact
from .inputs import gap, parameters

CLAIM = Claim(
    slug="unidiffuser",
    title="One Transformer Fits All Distributions in Multi-Modal Diffusion at Scale",
    arxiv="2303.06555",
    statement="One transformer with a noise level for each modality draws, captions, and does both at once about as well as a model each, "
    "and is its own unconditional model for guidance.",
    budgets=("smoke",),
)
V0, V1 = UniDiffuserConfig(kinds=False), UniDiffuserConfig()
BETAS = Betas("scaled_linear", 0.00085, 0.012)
# A small network's streams, and what is given of them where one side is drawn.
SHAPES = {"image": (4, 8, 8), "clip": (1, 6), "text": (5, 12)}
ROWS = Rows((0, 1))
ITEMS = {name: ROWS.normal(shape, f"a {name}") for name, shape in SHAPES.items()}
GIVEN = {"picture": {"text": ITEMS["text"]}, "caption": {"image": ITEMS["image"], "clip": ITEMS["clip"]}, "both": {}}
KIND = Conditions(scalars={"kind": torch.ones(2, dtype=torch.long)})


def check(budget: Budget) -> Outcome:
    """The exact checks of what stands."""
    return Outcome((*network(), *norms(), *modes(), *guidance(), *schedule()))


def network() -> tuple[Finding, ...]:
    """The published shape."""
    with torch.device("meta"):
        v0, v1 = UniDiffuser(V0), UniDiffuser(V1)
    return (
        exact("parameters of v0", 952, parameters(V0) / 1e6, 1.0, "M"),
        exact("parameters of v1", 952, parameters(V1) / 1e6, 1.0, "M"),
        exact("blocks and long skips", (31, 15), tuple(sum(isinstance(i, kind) for i in v1.blocks) for kind in (Block, Merge))),
        exact("tokens of v0: two times, caption, CLIP, patches", 1104, v0.positions.shape[1]),
        exact("tokens of v1: the same and the kind", 1105, v1.positions.shape[1] + v1.kind_position.shape[1]),
    )


@torch.no_grad()
def norms() -> tuple[Finding, ...]:
    """x = LN(x + f(x)): as a network begins, every token leaves every block with mean 0 and variance 1."""
    net = UniDiffuser(tiny().config)
    streams = {name: Stream(x, t=torch.full((2,), 0.7 if name == "text" else 0.4)) for name, x in ITEMS.items()}
    state, means, variances = net.start(streams, KIND), [0.0], [0.0]
    for item in net.blocks:
        state = item(state)
        if isinstance(item, Block):
            tokens = torch.cat([state[name] for name in state.streams], dim=1)
            means.append(float(tokens.mean(-1).abs().max()))
            variances.append(float((tokens.var(-1, correction=0) - 1).abs().max()))
    return (
        exact("mean of a token after any block, furthest from 0", 0, max(means), 1e-5),
        exact("variance of a token after any block, furthest from 1", 0, max(variances), 1e-3),
    )


@torch.no_grad()
def modes() -> tuple[Finding, ...]:
    """t = 0 of a stream: given; t = T: ignored; one t: together. Where both are drawn, guidance needs an evaluation for each."""
    asked = {name: lanes(given) for name, given in GIVEN.items()}
    told = {name: [times(call) for call in calls.values()] for name, calls in asked.items()}
    picture, both = asked["picture"]["cond"].streams, asked["both"]["cond"].streams
    forced = {**both, "text": replace(both["text"], x=ITEMS["text"], t=torch.zeros(2))}
    net = tiny()
    return (
        exact("evaluations of a guided step: picture, caption, both", (2, 2, 3), tuple(map(len, asked.values()))),
        exact(
            "prompt to picture: times of picture and caption, then without the prompt",
            (1, 0, 1, 1),
            told["picture"][0] + told["picture"][1],
        ),
        exact("picture to caption: the same, then without the picture", (0, 1, 1, 1), told["caption"][0] + told["caption"][1]),
        exact(
            "prompt to picture at s = 0, and both with the caption held at t = 0: largest difference of the picture's noise",
            0,
            gap(net(picture, KIND).pred["image"], net(forced, KIND).pred["image"]),
        ),
    )


@torch.no_grad()
def guidance() -> tuple[Finding, ...]:
    """(1 + s) e - s u is ours at w = 1 + s; the unconditional answer is the same network's with noise in the other modality's place."""
    told, untold = answers(lanes(GIVEN["picture"]))
    guided = {s: ClassifierFree(1 + s).combine({"cond": told, "uncond": untold}, 0.5) for s in (0.0, 3.0, 7.0)}
    off = max(gap(found, (1 + s) * told - s * untold) for s, found in guided.items())
    told, same = answers(lanes(GIVEN["picture"], against=GIVEN["picture"]))
    still = max(gap(ClassifierFree(w).combine({"cond": told, "uncond": same}, 0.5), told) for w in (1.0, 4.0, 8.0))
    return (
        exact("guidance at s = 0, 3, 7 and ours at w = 1, 4, 8, largest difference", 0, off, 1e-5),
        exact("equal answers at any scale, largest change", 0, still, 1e-5),
        exact("share of the error that is the picture's when squares are summed", 0.7742, (16_384 + 512) / (16_384 + 512 + 77 * 64), 5e-5),
    )


def schedule() -> tuple[Finding, ...]:
    """Stable Diffusion's betas: at t = T a little of the data is left, so what is to be ignored is not quite unheard."""
    one, last = BETAS.step(torch.tensor([1 / 1000, 1.0], dtype=torch.float64)).tolist()
    return (
        exact("alpha_bar at t = T", 0.0047, float(BETAS.alpha_bars()[-1]), 5e-5),
        exact("first and last published index, counted from 1", (1, 1000), (one + 1, last + 1)),
    )


def lanes(given: Mapping[str, Tensor], against: Mapping[str, Tensor] | None = None) -> Mapping[str, NetCall]:
    """What the first step of a guided walk asks of a small network."""
    ode = Ode(Denoiser(tiny(), Meaning("eps", BETAS)), Euler(), torch.tensor([1.0, 0.0], dtype=torch.float64), ClassifierFree(8.0))
    process = Joint(ode)
    return process.calls(process.init(JointRequest(SHAPES, given, KIND, against or {}), ROWS))


def times(call: NetCall) -> tuple[float, float]:
    """Of picture and caption."""
    image, text = (call.streams[name].t for name in ("image", "text"))
    assert image is not None and text is not None
    return float(image[0]), float(text[0])


def answers(calls: Mapping[str, NetCall]) -> tuple[Tensor, ...]:
    """The picture's noise, by lane."""
    net = tiny()
    return tuple(net(call.streams, call.cond).pred["image"] for call in calls.values())
