"""U-ViT scaling (Li et al., arXiv 2412.12391): one sequence with long skips, against a picture that reads its text by cross-attention.

The smoke check holds U-ViT (Bao et al., arXiv 2209.12152) against its sheet. The measured claim: U-ViTs and PixArts of two sizes, trained
on EmojiWorld with equal FLOPs, and U-ViTs on equal pictures beside them; the paper's sizes begin a few hundred times larger.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..backbones.uvit import UViT, UViTConfig, tiny
from ..core.blocks import Block
from ..core.conditions import Conditions, Tokens
from ..core.rng import generator
from ..nn.rewires import Merge, Push
from ..sampling.guidance import ClassifierFree
from .claims import Budget, Claim, Finding, Outcome, exact
from .inputs import asked, gap, parameters
from .uvit_study import measure

CLAIM = Claim(
    slug="uvit-scaling",
    title="Efficient Scaling of Diffusion Transformers for Text-to-Image Generation",
    arxiv="2412.12391",
    statement="Among diffusion transformers trained alike, a plain one over time, words and picture with long skips (U-ViT) scales better "
    "than one that reads its text by cross-attention (PixArt).",
    budgets=("smoke", "cpu"),
)


def check(budget: Budget) -> Outcome:
    """Smoke: the exact checks. Otherwise both families at two sizes."""
    return Outcome((*sizes(), *skips(), *sequence())) if budget.name == "smoke" else measure(budget)


def sizes() -> tuple[Finding, ...]:
    """Parameters of the published shapes."""
    counts = [parameters(UViTConfig(**changes)) for changes in ({}, {"depth": 16}, {"skips": False})]
    large = parameters(UViTConfig(depth=42, width=2048, heads=16, text_width=1024))
    return (
        exact("parameters of U-ViT-S/2 at depth 12 and 16, and at 12 without skips", (44_692_644, 58_345_636, 41_543_844), counts),
        exact("parameters of its skips", 3_148_800, counts[0] - counts[2]),
        exact("parameters of h2048-d42-n16", 2_344_200_356, large),
    )


@torch.no_grad()
def skips() -> tuple[Finding, ...]:
    """Last in, first out; a merge that ignores what comes back leaves the plain network, one that sums adds it."""
    net = tiny(depth=4)
    streams, cond = asked(net)
    state, made = net.start(streams, cond), list[Tensor]()
    for item in net.blocks[:4]:
        state = item(state)
        made.append(state["image"])
    order = [gap(state.skips[k]["image"].x, made[of]) for k, of in ((-1, 2), (0, 0))]
    kinds = "".join({Block: "B", Push: "+", Merge: "-"}[type(item)] for item in net.blocks)
    ignored = gap(_merging(net, 0.0)(streams, cond).pred["image"], _without(net)(streams, cond).pred["image"])
    summed = list[float]()
    state = net.start(streams, cond)
    for item in _merging(net, 1.0).blocks:
        wanted = state["image"] + state.skips[-1]["image"].x if isinstance(item, Merge) else None
        state = item(state)
        summed += [] if wanted is None else [gap(state["image"], wanted)]
    return (
        Finding("blocks (B), what is remembered (+) and merged (-) at depth 4", "B+B+B-B-B", kinds, kinds == "B+B+B-B-B"),
        exact("what merges first is what was remembered last, and last first: largest difference", 0, max(order)),
        exact("W = [I|0]: difference to the network without skips", 0, ignored, 1e-5),
        exact("W = [I|I]: difference to added skips", 0, max(summed), 1e-5),
    )


@torch.no_grad()
def sequence() -> tuple[Finding, ...]:
    """One sequence: only positions tell places, and masked words are not there."""
    net, bare = tiny(), tiny(smooth=False)
    streams, cond = asked(net)
    nn.init.zeros_(bare.positions)
    order = torch.randperm(16, generator=generator((0, "order", 0)))
    moved = {"image": replace(streams["image"], x=_shuffled(streams["image"].x, order))}
    swapped = gap(bare(moved, cond).pred["image"], _shuffled(bare(streams, cond).pred["image"], order))
    text = cond.tokens["text"]
    garbage = [Tokens(text.pad_to(8).states + value * ~text.pad_to(8).keep[..., None], text.pad_to(8).keep) for value in (0.0, 9.0)]
    plain, padded, other = (net(streams, Conditions({"text": t})).pred["image"] for t in (text, *garbage))
    told, untold = torch.randn(2, 4, generator=generator((0, "guidance", 0)))
    return (
        exact("without positions and smoothing, moved patches move the answer: largest difference", 0, swapped, 1e-5),
        exact("change of the answer when padding is garbage", 0, gap(padded, other)),
        exact("change when masked tokens are appended", 0, gap(padded, plain), 1e-5),
        exact(
            "reference's guidance c + s (c - u) at s = 1, and ours at w = 2: largest difference",
            0,
            gap(told + (told - untold), ClassifierFree(2.0).combine({"cond": told, "uncond": untold}, 0.5)),
            1e-6,
        ),
    )


def _merging(net: UViT, of_skip: float) -> UViT:
    """`net` with every merge's W = [I | of_skip I], b = 0."""
    for item in net.blocks:
        if isinstance(item, Merge):
            eye = torch.eye(net.config.width)
            item.linear.weight.copy_(torch.cat([eye, of_skip * eye], dim=1))
            nn.init.zeros_(item.linear.bias)
    return net


def _without(net: UViT) -> UViT:
    """The same weights without skips."""
    bare = UViT(replace(net.config, skips=False))
    weights = {n: p for n, p in net.state_dict().items() if not n.startswith("blocks.")}
    for number, block in enumerate(b for b in net.blocks if isinstance(b, Block)):
        weights |= {f"blocks.{number}.{n}": p for n, p in block.state_dict().items()}
    bare.load_state_dict(weights)
    return bare


def _shuffled(latents: Tensor, order: Tensor) -> Tensor:
    """Latents (B, C, 8, 8) whose 16 patches of 2 x 2 stand in another order."""
    cells = latents.unfold(2, 2, 2).unfold(3, 2, 2).flatten(2, 3)[:, :, order]
    return cells.unflatten(2, (4, 4)).permute(0, 1, 2, 4, 3, 5).reshape(latents.shape)
