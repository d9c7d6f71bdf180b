"""CrossFlow (Liu et al., arXiv 2412.15213): a flow straight from a text's latent to the picture's, without noise.

The smoke check holds what stands: the path between two samples and guidance by an indicator's two answers. Not built: the variational text
encoder and its losses, training with a source that carries gradients, the indicator, and sampling that starts from the prompt.
"""

from __future__ import annotations

import torch

from ..core.paths import linear
from ..core.rng import Rows
from ..objectives.denoising import Denoising
from ..sampling.guidance import ClassifierFree
from .claims import Budget, Claim, Finding, Outcome, exact
from .inputs import gap

CLAIM = Claim(
    slug="crossflow",
    title="Flowing from Words to Pixels: A Framework for Cross-Modality Evolution",
    arxiv="2412.15213",
    statement="A flow that begins at a variationally encoded text, without noise or cross-attention, draws as well as flow matching with "
    "text conditioning, and its start can be added and subtracted like words.",
    budgets=("smoke",),
)


def check(budget: Budget) -> Outcome:
    """The exact checks of what stands."""
    return Outcome((*path(), *guidance()))


def path() -> tuple[Finding, ...]:
    """Our t is 1 at the source and 0 at the picture, so the target, source minus picture, is minus the paper's."""
    rows = Rows((0, 1))
    words, picture = (rows.normal((4, 8, 8), name).double() for name in ("source", "target"))
    line, objective = linear(), Denoising()

    def at(t: float) -> torch.Tensor:
        return objective.at(picture, words, torch.full((2,), t)).x_t

    step = 2**-6  # exact in fp32
    moved = (at(0.5 + step) - at(0.5 - step)) / (2 * step)
    target = objective.at(picture, words, torch.full((2,), 0.5)).target
    return (
        exact(
            "the path's ends, largest difference to source and picture", 0, max(gap(at(1.0), words.float()), gap(at(0.0), picture.float()))
        ),
        exact("finite difference of the path and the target, largest difference", 0, gap(moved, target), 2e-5),
        exact("alpha + sigma on the way", (1, 1, 1), (line.alpha(t := torch.tensor([0.1, 0.5, 0.9])) + line.sigma(t)).tolist(), 1e-7),
    )


def guidance() -> tuple[Finding, ...]:
    """v_uc + w (v_c - v_uc) of the same start."""
    on, off = Rows((0, 1)).normal((8,), "guidance")
    return (
        exact(
            "w = 1 gives the conditional answer, largest difference",
            0,
            gap(ClassifierFree(1.0).combine({"cond": on, "uncond": off}, 0.5), on),
        ),
        exact("equal answers at w = 7, largest difference", 0, gap(ClassifierFree(7.0).combine({"cond": on, "uncond": on}, 0.5), on), 1e-6),
    )
