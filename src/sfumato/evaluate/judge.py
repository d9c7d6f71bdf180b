"""The judge: says which concept and style a picture shows, how well it fits a caption, and what stands where in a scene, in numbers that
carry their own doubt.

Its embedding is also the feature space of the Fréchet and kernel distances. It is trained apart from every generator it scores, and its
own accuracy on held-out drawings travels with it (`Judge.card`), to be printed beside each score it gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.config import from_dict, to_dict
from ..core.errors import WeightsError
from ..core.kept import fetch, keep
from .eyes import Eyes, Named, detections
from .judge_net import JudgeConfig, JudgeNet, StyleNet
from .metrics.tasks import Detection
from .pictures import checked


@dataclass(frozen=True)
class Verdict:
    """What the judge says of B pictures: logits over its concepts (B, K) and styles (B, S), embeddings (B, E) of unit length; fp32, CPU."""

    concept: Tensor
    style: Tensor
    embedding: Tensor


class Judge:
    """Trained networks with the names of its classes and its card: training data, own held-out accuracy, checksum.

    `eyes`: what it finds and reads in scenes with; None where it was not trained on any.
    """

    def __init__(
        self,
        net: JudgeNet,
        styler: StyleNet,
        config: JudgeConfig,
        concepts: Sequence[str],
        styles: Sequence[str],
        card: Mapping[str, Any],
        eyes: Eyes | None = None,
    ) -> None:
        self.net, self.styler, self.config, self.card = net.eval(), styler.eval(), config, dict(card)
        self.eyes = None if eyes is None else eyes.eval()
        self.concepts, self.styles = tuple(concepts), tuple(styles)
        self.concept_index = {name: i for i, name in enumerate(self.concepts)}
        self.style_index = {name: i for i, name in enumerate(self.styles)}

    @torch.no_grad()
    def __call__(self, images: Tensor, batch: int = 64) -> Verdict:
        """Judge images (B, 3, size, size) in [-1, 1], in fp32. Raises `UsageError` on another shape, `NonFiniteError` on NaN, infinity."""
        self._check(images)
        device = self.net.log_scale.device
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for chunk in images.split(batch) if len(images) else ():
            whole = chunk.to(device, torch.float32).clamp(-1, 1)
            pooled = self.net.pooled(self._resize(whole))
            parts.append((self.net.concepts(pooled, self.net.names), self.styler(whole), self.net.embed_image(pooled)))
        widths = (len(self.concepts), len(self.styles), self.config.embed)
        columns = zip(*parts, strict=True) if parts else ([torch.zeros(0, width)] for width in widths)
        concept, style, embedding = (torch.cat(list(column)).float().cpu() for column in columns)
        return Verdict(concept, style, embedding)

    def detect(self, images: Tensor) -> list[list[Detection]]:
        """What stands where in images (B, 3, size, size) in [-1, 1], surest first; a score is the chance that name and box are right.

        Raises as a call does, and `WeightsError` for a judge without eyes.
        """
        named = self.look(images)
        return detections(named, self._eyes().scores(named), len(images), self.concepts, self.styles)

    def read(self, images: Tensor) -> list[str]:
        """The word on the sign of each picture, "" where none is seen. Raises as `detect`."""
        eyes, images = self._eyes(), self._checked(images)
        return eyes.read(images, eyes.find(images))

    def look(self, images: Tensor) -> Named:
        """What `detect` tells, as numbers."""
        eyes, images = self._eyes(), self._checked(images)
        return eyes.name(self.net, images, eyes.find(images), self.config.working)

    def _eyes(self) -> Eyes:
        if self.eyes is None:
            raise WeightsError(
                "this judge was not trained on scenes: it cannot find things or read", "sfumato train judge makes one that can"
            )
        return self.eyes

    def _checked(self, images: Tensor) -> Tensor:
        self._check(images)
        return images.to(self.net.log_scale.device, torch.float32).clamp(-1, 1)

    def _check(self, images: Tensor) -> None:
        checked(images, self.config.size, "the judge")

    def _resize(self, images: Tensor) -> Tensor:
        side = self.config.working
        return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True) if side != self.config.size else images

    @torch.no_grad()
    def embed_sentences(self, sentences: Tensor) -> Tensor:
        """(B, embed) of unit length from sentence vectors (B, 384) (`sentences.sentence_vectors`)."""
        return self.net.embed_text(sentences.to(self.net.log_scale.device, torch.float32)).cpu()

    def embed_captions(self, captions: Sequence[str]) -> Tensor:
        """(B, embed) of unit length. Imports transformers when first used."""
        from .sentences import sentence_vectors

        return self.embed_sentences(sentence_vectors(captions))

    def _nets(self) -> dict[str, nn.Module]:
        return {"net": self.net, "styler": self.styler} | ({} if self.eyes is None else {"eyes": self.eyes})

    def save(self, folder: Path) -> None:
        """Write `judge.safetensors` (fp16) and `judge.json` (labels, config, card, checksum) into `folder`."""
        content = {"config": to_dict(self.config), "card": self.card, "styles": list(self.styles), "concepts": list(self.concepts)}
        keep(folder, "judge", self._nets(), {"eyes": self.eyes is not None, **content})

    @classmethod
    def load(cls, folder: Path | None = None) -> Judge:
        """The judge in `folder`, or the one that ships with sfumato. Raises `WeightsError` when a file is missing, damaged or misshapen."""

        def build(content: Mapping[str, Any]) -> Judge:
            config = from_dict(JudgeConfig, content["config"])
            concepts, styles = content["concepts"], content["styles"]
            net, styler = JudgeNet(config, len(concepts), len(styles)), StyleNet(config, len(styles))
            return cls(net, styler, config, concepts, styles, content["card"], Eyes() if content["eyes"] else None)

        return fetch(Path(str(package_files("sfumato") / "assets" / "judge")) if folder is None else folder, "judge", build, Judge._nets)
