"""The judge: says which concept and style a picture shows and how well it fits a caption, in numbers that carry their own doubt.

Its embedding is also the feature space of the Fréchet and kernel distances. It is trained apart from every generator it scores, and its
own accuracy on held-out drawings travels with it (`Judge.card`), to be printed beside each score it gives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.config import from_dict, to_dict
from ..core.errors import NonFiniteError, UsageError, WeightsError
from ..core.files import read_tensors, sha256, verify, write_json, write_tensors
from .judge_net import JudgeConfig, JudgeNet, StyleNet


@dataclass(frozen=True)
class Verdict:
    """What the judge says of B pictures: logits over its concepts (B, K) and styles (B, S), embeddings (B, E) of unit length; fp32, CPU."""

    concept: Tensor
    style: Tensor
    embedding: Tensor


class Judge:
    """Trained networks with the names of its classes and its card: training data, own held-out accuracy, checksum."""

    def __init__(
        self, net: JudgeNet, styler: StyleNet, config: JudgeConfig, concepts: Sequence[str], styles: Sequence[str], card: Mapping[str, Any]
    ) -> None:
        self.net, self.styler, self.config, self.card = net.eval(), styler.eval(), config, dict(card)
        self.concepts, self.styles = tuple(concepts), tuple(styles)
        self.concept_index = {name: i for i, name in enumerate(self.concepts)}
        self.style_index = {name: i for i, name in enumerate(self.styles)}

    @torch.no_grad()
    def __call__(self, images: Tensor, batch: int = 64) -> Verdict:
        """Judge images (B, 3, size, size) in [-1, 1], in fp32. Raises `UsageError` on another shape, `NonFiniteError` on NaN, infinity."""
        size = self.config.size
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size):
            raise UsageError(f"the judge was given pictures of shape {tuple(images.shape)}", f"(B, 3, {size}, {size}), values in [-1, 1]")
        finite = images.isfinite().flatten(1).all(1)
        if not finite.all():
            bad = (~finite).nonzero().flatten().tolist()
            raise NonFiniteError(f"{len(bad)} of {len(images)} pictures to judge hold NaN or infinity: rows {bad[:8]} ({images.dtype})")
        device = self.net.log_scale.device
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for chunk in images.split(batch) if len(images) else ():
            whole = chunk.to(device, torch.float32).clamp(-1, 1)
            pooled = self.net.pooled(self._resize(whole))
            parts.append((self.net.concept(pooled), self.styler(whole), self.net.embed_image(pooled)))
        widths = (len(self.concepts), len(self.styles), self.config.embed)
        columns = zip(*parts, strict=True) if parts else ([torch.zeros(0, width)] for width in widths)
        concept, style, embedding = (torch.cat(list(column)).float().cpu() for column in columns)
        return Verdict(concept, style, embedding)

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
        return {"net": self.net, "styler": self.styler}

    def save(self, folder: Path) -> None:
        """Write `judge.safetensors` (fp16) and `judge.json` (labels, config, card, checksum) into `folder`."""
        state = {f"{name}.{n}": t.detach().cpu() for name, net in self._nets().items() for n, t in net.state_dict().items()}
        weights = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
        path = folder / "judge.safetensors"
        write_tensors(path, weights)
        content = {"config": to_dict(self.config), "card": self.card, "styles": list(self.styles), "concepts": list(self.concepts)}
        write_json(folder / "judge.json", {"sha256": sha256(path), **content})

    @classmethod
    def load(cls, folder: Path | None = None) -> Judge:
        """The judge in `folder`, or the one that ships with sfumato. Raises `WeightsError` when a file is missing, damaged or misshapen."""
        folder = Path(str(package_files("sfumato") / "assets" / "judge")) if folder is None else folder
        path = folder / "judge.safetensors"
        try:
            content = json.loads((folder / "judge.json").read_text(encoding="utf-8"))
            config = from_dict(JudgeConfig, content["config"])
            concepts, styles, card, expected = (content[key] for key in ("concepts", "styles", "card", "sha256"))
        except FileNotFoundError as error:
            raise WeightsError(f"no judge in {folder}: judge.json is missing", "train one: sfumato train judge") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"damaged file {folder / 'judge.json'}: {error!r}", "fetch it again, or sfumato train judge") from error
        verify(path, expected)
        judge = cls(JudgeNet(config, len(concepts), len(styles)), StyleNet(config, len(styles)), config, concepts, styles, card)
        try:
            state = {n: t.float() if t.is_floating_point() else t for n, t in read_tensors(path).items()}
            nn.ModuleDict(judge._nets()).load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise WeightsError(f"{path} does not fit its judge.json: {error}", "the two files must come from one judge") from error
        return judge
