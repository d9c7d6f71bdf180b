"""The Tasks that train the judge: name the concept and match pictures with their captions; then, at full size, name the style."""

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
from .judge_net import JudgeNet, Mix, StyleNet


@dataclass(frozen=True)
class JudgeTaskConfig:
    """Weights of the three losses, label smoothing of the two classifications, and the share of features dropped before the heads.

    `mild`: strength of the augmentation of every other picture, by which styles are learned; the rest get all of it and each other's
    early statistics besides (`Mix`), and teach concepts alone. `ramp`: steps until full strength.

    `styled`: which caption forms (in the order of `data/captions.py`) name the style; the others fit a concept's drawing in any style.
    """

    concept: float = 1.0
    style: float = 1.0
    contrast: float = 0.5
    smoothing: float = 0.1
    dropout: float = 0.25
    mild: float = 0.4
    ramp: int = 800
    styled: tuple[bool, ...] = (False, True, True, False, True)


class JudgeTask:
    """Batches hold `images` (B, 3, H, W) uint8, `concept` and `style` (B,) class numbers, `text` (B, F, 384): a vector per caption form."""

    def __init__(self, net: JudgeNet, config: JudgeTaskConfig, side: int) -> None:
        # Convolutions in bf16 on a CPU run fastest with channels last.
        self.net: JudgeNet = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules: Mapping[str, nn.Module] = {"judge": self.net}
        self.config, self.side = config, side

    def phases(self, step: int) -> Sequence[Phase]:
        return [Phase("judge", ("judge",))]

    def loss(self, phase: Phase, batch: Batch, carry: MutableMapping[str, Any], draws: Draws) -> Loss:
        config, concept, style = self.config, batch["concept"], batch["style"]
        count, device = len(concept), concept.device
        wild = torch.arange(count, device=device) % 2 == 1  # batches are shuffled: any half will do
        strength = torch.where(wild, min(1.0, (draws.step + 1) / max(1, self.config.ramp)), config.mild)
        share = torch.where(wild, draws.uniform((count,), "share").to(device), 1.0)
        mix = Mix(draws.uniform((count,), "partner").argsort().to(device), share)
        pooled = self.net.pooled(augment(batch["images"], draws, self.side, strength), mix)
        kept = draws.uniform(pooled.shape, "dropout").to(pooled.device) >= config.dropout
        thinned = pooled * kept / (1.0 - config.dropout)
        concept_logits, style_logits = self.net.concept(thinned).float(), self.net.style(thinned).float()
        concept_loss = F.cross_entropy(concept_logits, concept, label_smoothing=config.smoothing)
        style_loss = F.cross_entropy(style_logits[~wild], style[~wild], label_smoothing=config.smoothing)
        contrast = self._contrast(pooled, batch, draws)
        total = config.concept * concept_loss + config.style * style_loss + config.contrast * contrast
        hits = (concept_logits.argmax(1) == concept).float().mean()
        return Loss(total, {"concept": concept_loss, "style": style_loss, "contrast": contrast, "top1": hits})

    def _contrast(self, pooled: Tensor, batch: Batch, draws: Draws) -> Tensor:
        """Symmetric cross entropy between pictures and one caption of each (CLIP), in which every fitting caption is a target."""
        concept, style, count = batch["concept"], batch["style"], len(pooled)
        form = (draws.uniform((count,), "caption") * len(self.config.styled)).long().to(pooled.device)
        text = batch["text"][torch.arange(count, device=pooled.device), form].float()
        logits = self.net.log_scale.clamp(max=4.6).exp() * self.net.embed_image(pooled) @ self.net.embed_text(text).T
        styled = torch.tensor(self.config.styled, device=pooled.device)[form]
        fits = matches(concept, style, styled).float()
        return 0.5 * (F.cross_entropy(logits, fits / fits.sum(1, keepdim=True)) + F.cross_entropy(logits.T, (fits / fits.sum(0)).T))


def matches(concept: Tensor, style: Tensor, styled: Tensor) -> Tensor:
    """(B, B) whether picture i fits caption j: the concept is the same, and so is the style where caption j names one."""
    same_concept, same_style = concept[:, None] == concept[None], style[:, None] == style[None]
    return same_concept & (same_style | ~styled[None])


class StyleTask:
    """Batches as for `JudgeTask`. Pictures at their own size; augmentation of a strength between none and `strength`."""

    def __init__(self, styler: StyleNet, strength: float = 0.6, smoothing: float = 0.05) -> None:
        self.styler: StyleNet = styler.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules: Mapping[str, nn.Module] = {"styler": self.styler}
        self.strength, self.smoothing = strength, smoothing

    def phases(self, step: int) -> Sequence[Phase]:
        return [Phase("style", ("styler",))]

    def loss(self, phase: Phase, batch: Batch, carry: MutableMapping[str, Any], draws: Draws) -> Loss:
        images, style = batch["images"], batch["style"]
        strength = self.strength * draws.uniform((len(images),), "strength").to(images.device)
        logits = self.styler(augment(images, draws, images.shape[-1], strength)).float()
        loss = F.cross_entropy(logits, style, label_smoothing=self.smoothing)
        return Loss(loss, {"hits": (logits.argmax(1) == style).float().mean()})
