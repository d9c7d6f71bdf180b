"""The Task that trains the critic: tell what is true of a picture from what is not, and prefer the true caption to the wrong ones."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.rng import Draws
from ..core.task import Batch, Loss, Phase
from .augment import augment
from .critic_net import CriticConfig, CriticNet


@dataclass(frozen=True)
class CriticTaskConfig:
    """Weights of the losses beside cross-entropy; strength of the augmentation of drawings (`mild`) and of scenes (`slight`: what is
    moved or covered there may be what a caption tells). `alone`: steps at first in which pictures are only aligned with captions, several
    times as many in the same time. `lengths`: groups that captions of a batch are parted into by their length.
    """

    prefer: float = 1.0
    align: float = 0.5
    mild: float = 0.4
    slight: float = 0.15
    alone: int = 400
    lengths: int = 4


class Aligner(nn.Module):
    """What only training needs: pictures and captions as single vectors (P, 128) of unit length, and how sharply they are compared."""

    def __init__(self, config: CriticConfig, width: int = 128) -> None:
        super().__init__()
        self.picture = nn.Linear(config.width, width, bias=False)
        self.caption = nn.Sequential(nn.LayerNorm(config.text), nn.Linear(config.text, width, bias=False))
        # Logarithm of the inverse temperature (CLIP: starts at 1 / 0.07).
        self.log_scale = nn.Parameter(torch.tensor(2.66))

    def forward(self, seen: Tensor, states: Tensor, keep: Tensor) -> Tensor:
        """(P, P) logits: row i, how well caption j fits picture i."""
        mean = states.float().sum(1) / keep.sum(1, keepdim=True)
        picture, caption = F.normalize(self.picture(seen.mean(1)).float(), dim=1), F.normalize(self.caption(mean).float(), dim=1)
        return self.log_scale.clamp(max=4.6).exp() * picture @ caption.T


class CriticTask:
    """Batches are those of `critic_lessons.Lessons`.

    Three losses: binary cross-entropy, true and wrong captions together weighing the same; a logistic loss of each wrong caption's score
    against the true one's (Bradley and Terry, as ImageReward, arXiv 2304.05977, equation 1); and contrast between the batch's pictures and
    true captions before any word looks at a picture (ALBEF, arXiv 2107.07651: align before fuse), so that what words look at means
    something.
    """

    def __init__(self, net: CriticNet, aligner: Aligner, config: CriticTaskConfig) -> None:
        # Convolutions in bf16 on a CPU run fastest with channels last.
        self.net: CriticNet = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules: Mapping[str, nn.Module] = {"critic": self.net, "aligner": aligner}
        self.aligner, self.config = aligner, config

    def phases(self, step: int) -> Sequence[Phase]:
        return [Phase("critic", ("critic", "aligner"))]

    def loss(self, phase: Phase, batch: Batch, carry: MutableMapping[str, Any], draws: Draws) -> Loss:
        images, states, keep = batch["images"], batch["states"], batch["keep"]
        strength = torch.where(batch["scene"], self.config.slight, self.config.mild)
        seen = self.net.see(augment(images, draws, images.shape[-1], strength))
        align = self._align(seen, states[:, 0], keep[:, 0])
        if draws.step < self.config.alone:
            return Loss(align, {"align": align})
        scores = self._ask(seen, states, keep)
        true, wrong = scores[:, :1], scores[:, 1:]
        entropy = 0.5 * (F.softplus(-true).mean() + F.softplus(wrong).mean())
        prefer = F.softplus(wrong - true).mean()
        total = entropy + self.config.prefer * prefer + self.config.align * align
        hits, scene = (true > wrong).float(), batch["scene"]
        # A batch of drawings alone has no scenes to be right about: nothing is told of them then.
        shares = {"drawings": hits[~scene], "scenes": hits[scene]}
        losses = {"entropy": entropy, "prefer": prefer, "align": align}
        return Loss(total, losses | {name: share.mean() for name, share in shares.items() if len(share)})

    def _ask(self, seen: Tensor, states: Tensor, keep: Tensor) -> Tensor:
        """(P, K) scores; captions of like length together, each group without its own padding."""
        pictures, each = keep.shape[:2]
        states, keep = states.flatten(0, 1), keep.flatten(0, 1)
        place = torch.arange(pictures, device=seen.device).repeat_interleave(each)
        lengths = keep.sum(1)
        groups = lengths.argsort(stable=True).chunk(self.config.lengths)
        scores = []
        for rows in groups:
            longest = int(lengths[rows].max())
            scores.append(self.net.ask(seen, place[rows], states[rows, :longest].float(), keep[rows, :longest]))
        return torch.cat(scores)[torch.cat(groups).argsort()].view(pictures, each)

    def _align(self, seen: Tensor, states: Tensor, keep: Tensor) -> Tensor:
        logits = self.aligner(seen, states, keep)
        target = torch.arange(len(logits), device=logits.device)
        return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))
