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
from .augment import augment, degrade, recolour, warp
from .judge_net import JudgeNet, Mix, StyleNet


@dataclass(frozen=True)
class JudgeTaskConfig:
    """Weights of the losses, label smoothing of the classifications, and the share of features dropped before the heads.

    Every other drawing is seen as it is, under augmentation of strength `mild`: it teaches style too. The rest come redrawn by another
    hand, under all of the augmentation and each other's early statistics (`Mix`), and teach concepts alone; where a name tells colours
    they change by `faithful` of that and are not mixed. Things cut out of scenes (`close`: the strength there) teach concepts, styles
    and colours. `ramp`: steps until full strength. `small_steps`: at first pictures are brought to `small_side`, which shows several
    times as many in the same time.

    `styled`: which caption forms (in the order of `data/captions.py`) name the style; the others fit a concept's drawing in any style.
    """

    style: float = 0.5
    colour: float = 0.25
    contrast: float = 0.5
    smoothing: float = 0.1
    dropout: float = 0.25
    mild: float = 0.4
    faithful: float = 0.25
    close: float = 0.3
    ramp: int = 1000
    small_steps: int = 2100
    small_side: int = 64
    styled: tuple[bool, ...] = (False, True, True, False, True)


class JudgeTask:
    """Batches hold `drawings.images` (B, 3, H, W) and `drawings.others` (B, V, 3, H, W) uint8, `drawings.concept` and `drawings.style` (B,)
    class numbers (a style beyond the last class is not learned), `drawings.text` (B, F, 384): a vector per caption form; and cuts:
    `things.images` (C, 3, H, W), `things.concept`, `things.style` and `things.colour` (C,).

    `labels` (K, 384): sentence vectors of the concepts' names; `coloured` (K,): whose names tell colours.
    """

    def __init__(self, net: JudgeNet, config: JudgeTaskConfig, side: int, labels: Tensor, coloured: Tensor) -> None:
        # Convolutions in bf16 on a CPU run fastest with channels last.
        self.net: JudgeNet = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules: Mapping[str, nn.Module] = {"judge": self.net}
        self.config, self.side, self.labels, self.coloured = config, side, labels, coloured

    def phases(self, step: int) -> Sequence[Phase]:
        return [Phase("judge", ("judge",))]

    def loss(self, phase: Phase, batch: Batch, carry: MutableMapping[str, Any], draws: Draws) -> Loss:
        config, device = self.config, batch["drawings.concept"].device
        drawn, cuts = len(batch["drawings.concept"]), len(batch["things.concept"])
        concept, style = (torch.cat([batch[f"drawings.{name}"], batch[f"things.{name}"]]) for name in ("concept", "style"))
        wild = (torch.arange(drawn + cuts, device=device) % 2 == 1) & (torch.arange(drawn + cuts, device=device) < drawn)
        pooled = self._look(batch, wild, self.coloured.to(device)[concept], draws)
        kept = draws.uniform(pooled.shape, "dropout").to(device) >= config.dropout
        thinned = pooled * kept / (1.0 - config.dropout)
        named = ~wild & (style < self.net.style.out_features)
        names = self.net.embed_text(self.labels.to(device))
        logits = self.net.concepts(thinned, names)
        losses = {
            "concept": F.cross_entropy(logits, concept, label_smoothing=config.smoothing),
            "style": F.cross_entropy(self.net.style(thinned)[named].float(), style[named], label_smoothing=config.smoothing),
            "colour": F.cross_entropy(self.net.colour(thinned[drawn:]).float(), batch["things.colour"], label_smoothing=config.smoothing),
            "contrast": self._contrast(pooled[:drawn], batch, draws),
        }
        total = losses["concept"] + sum(getattr(config, name) * losses[name] for name in ("style", "colour", "contrast"))
        hits = (logits.argmax(1) == concept).float()
        return Loss(total, {**losses, "top1": hits[:drawn].mean(), "things": hits[drawn:].mean()})

    def _look(self, batch: Batch, wild: Tensor, told: Tensor, draws: Draws) -> Tensor:
        """(B + C, features) of the drawings, those `wild` by another hand, and the cuts. `told` (B + C,): colours are in the name."""
        config, others, drawn = self.config, batch["drawings.others"], len(batch["drawings.images"])
        hand = (draws.uniform((drawn,), "hand") * others.shape[1]).long().to(others.device)
        redrawn = others[torch.arange(drawn, device=others.device), hand]
        pictures = torch.where(wild[:drawn, None, None, None], redrawn, batch["drawings.images"])
        pictures = torch.cat([pictures, batch["things.images"]])
        strength = torch.full((len(pictures),), config.mild, device=pictures.device)
        strength[drawn:] = config.close
        strength[wild] = min(1.0, (draws.step + 1) / max(1, config.ramp))
        share = torch.where(wild & ~told, draws.uniform((len(pictures),), "share").to(pictures.device), 1.0)
        mix = Mix(draws.uniform((len(pictures),), "partner").argsort().to(pictures.device), share)
        side = config.small_side if draws.step < config.small_steps else self.side
        colours = torch.where(told, config.faithful * strength, strength)
        return self.net.pooled(augment(pictures, draws, side, strength, colours), mix)

    def _contrast(self, pooled: Tensor, batch: Batch, draws: Draws) -> Tensor:
        """Symmetric cross entropy between pictures and one caption of each (CLIP), in which every fitting caption is a target."""
        concept, style, count = batch["drawings.concept"], batch["drawings.style"], len(pooled)
        form = (draws.uniform((count,), "caption") * len(self.config.styled)).long().to(pooled.device)
        text = batch["drawings.text"][torch.arange(count, device=pooled.device), form].float()
        logits = self.net.log_scale.clamp(max=4.6).exp() * self.net.embed_image(pooled) @ self.net.embed_text(text).T
        styled = torch.tensor(self.config.styled, device=pooled.device)[form]
        fits = matches(concept, style, styled).float()
        return 0.5 * (F.cross_entropy(logits, fits / fits.sum(1, keepdim=True)) + F.cross_entropy(logits.T, (fits / fits.sum(0)).T))


def matches(concept: Tensor, style: Tensor, styled: Tensor) -> Tensor:
    """(B, B) whether picture i fits caption j: the concept is the same, and so is the style where caption j names one."""
    same_concept, same_style = concept[:, None] == concept[None], style[:, None] == style[None]
    return same_concept & (same_style | ~styled[None])


class StyleTask:
    """Batches hold `images` (B, 3, H, W) uint8 and `style` (B,). Places and softness change with a strength between none and `strength`,
    colours by a quarter of that: a palette is half of a style.
    """

    def __init__(self, styler: StyleNet, strength: float = 0.5, smoothing: float = 0.05) -> None:
        self.styler: StyleNet = styler.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules: Mapping[str, nn.Module] = {"styler": self.styler}
        self.strength, self.smoothing = strength, smoothing

    def phases(self, step: int) -> Sequence[Phase]:
        return [Phase("style", ("styler",))]

    def loss(self, phase: Phase, batch: Batch, carry: MutableMapping[str, Any], draws: Draws) -> Loss:
        images, style = batch["images"], batch["style"]
        strength = self.strength * draws.uniform((len(images),), "strength").to(images.device)
        ink = warp(1.0 - images.float() / 255.0, draws, images.shape[-1], strength)
        ink = degrade(recolour(ink, draws, strength / 4), draws, strength)
        logits = self.styler((1.0 - 2.0 * ink).clamp(-1.0, 1.0)).float()
        loss = F.cross_entropy(logits, style, label_smoothing=self.smoothing)
        return Loss(loss, {"hits": (logits.argmax(1) == style).float().mean()})
