"""Feature extractors: what the distances between sets of pictures are computed in. The judge is one; CLIP, DINO and Inception are others
for whoever has their weights in a folder. Nothing is ever fetched.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UnknownNameError, WeightsError
from ..core.pretrained import load_pretrained, require_safetensors
from ..core.weights import read_json
from .pictures import chunks

if TYPE_CHECKING:
    from .judge import Judge

WANTED = (
    "a folder as save_pretrained writes it (config.json, model.safetensors and, best, preprocessor_config.json): "
    "CLIP, openai/clip-vit-large-patch14-336 say; DINOv2, facebook/dinov2-base say; DINO, facebook/dino-vits16 say. "
    "Inception: a folder with inception.safetensors, the tensors of pt_inception-2015-12-05"
)


class Features(Protocol):
    """`size`: side in pixels that the network sees, larger and smaller pictures are brought to it; `dims`: width of a row."""

    name: str
    size: int
    dims: int

    def __call__(self, images: Tensor) -> Tensor:
        """(N, dims) fp32 on the CPU from images (N, 3, H, W) in [-1, 1]. Raises `NonFiniteError` that names the rows with NaN."""
        ...


@dataclass(frozen=True)
class Preparation:
    """How a network wants its pictures: shorter side to `resize` pixels, a square of `crop` from the middle, then (x - mean) / std of
    values in [0, 1] by channel."""

    resize: int
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: Tensor) -> Tensor:
        """(N, 3, crop, crop) from images (N, 3, H, W) in [-1, 1]. Bicubic with antialiasing, as Pillow's to within a grey level."""
        unit = (images.float().clamp(-1, 1) + 1) / 2
        height, width = unit.shape[-2:]
        short = min(height, width)
        if short != self.resize:
            sides = [round(n * self.resize / short) for n in (height, width)]
            unit = F.interpolate(unit, size=sides, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = ((n - self.crop) // 2 for n in unit.shape[-2:])
        middle = unit[..., top : top + self.crop, left : left + self.crop]
        mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in (self.mean, self.std))
        return (middle - mean) / std


CLIP_LOOK = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET_LOOK = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def preparation(folder: Path, size: int, look: tuple[tuple[float, float, float], tuple[float, float, float]]) -> Preparation:
    """From `folder/preprocessor_config.json` where there is one; else straight to `size` with mean and std `look`."""
    path = folder / "preprocessor_config.json"
    found: dict[str, Any] = read_json(path) if path.is_file() else {}
    crop = _side(found["crop_size"]) if found.get("do_center_crop", "crop_size" in found) and "crop_size" in found else 0
    resize = _side(found["size"]) if found.get("do_resize", True) and "size" in found else crop or size
    mean, std = (tuple(map(float, found.get(key, own))) for key, own in zip(("image_mean", "image_std"), look, strict=True))
    if len(mean) != 3 or len(std) != 3:
        raise WeightsError(f"{path} is for pictures of {len(mean)} channels", "a network for colour pictures has 3")
    return Preparation(max(resize, crop), crop or resize, mean, std)


def _side(size: Any) -> int:
    """The size of a preprocessor: a number, {"shortest_edge": n} or {"height": n, "width": n}."""
    return int(size.get("shortest_edge") or size["height"]) if isinstance(size, dict) else int(size)


class JudgeFeatures:
    """The judge's embedding, its maps, and the scale that distances use."""

    def __init__(self, judge: Judge) -> None:
        self.judge, self.name, self.size, self.dims = judge, "judge", judge.config.size, judge.config.embed

    def __call__(self, images: Tensor) -> Tensor:
        return self.scaled(self.judge(images).embedding)

    @staticmethod
    def scaled(embedding: Tensor) -> Tensor:
        """Embeddings (N, E) of unit length with entries of about 1: so that x.y / E in the cubic kernel is their cosine."""
        return embedding * embedding.shape[1] ** 0.5

    def maps(self, images: Tensor) -> list[Tensor]:
        """Feature maps (N, C_l, h_l, w_l) at each level of the judge's picture tower, of images as the judge takes them."""
        seen: list[list[Tensor]] = [[] for _ in self.judge.net.levels]
        hooks = [
            level.register_forward_hook(lambda _, __, out, kept=kept: kept.append(out.float().cpu()))
            for level, kept in zip(self.judge.net.levels, seen, strict=True)
        ]
        try:
            self.judge(images)
        finally:
            for hook in hooks:
                hook.remove()
        return [torch.cat(kept) for kept in seen]


class NetFeatures:
    """A network and which of its outputs is the feature: `take(net, pictures)` -> (n, dims)."""

    def __init__(self, name: str, net: nn.Module, prepare: Preparation, take: Any, dims: int) -> None:
        self.name, self.net, self.prepare, self.take, self.size, self.dims = name, net.eval(), prepare, take, prepare.crop, dims

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        device = next(self.net.parameters()).device
        parts = [self.take(self.net, self.prepare(chunk)).float().cpu() for chunk in chunks(images, device)]
        return torch.cat(parts) if parts else torch.zeros(0, self.dims)


def clip_image(net: Any, pictures: Tensor) -> Tensor:
    """(n, E) projected image embeddings of a CLIPModel; not normalised."""
    return net.visual_projection(net.vision_model(pixel_values=pictures).pooler_output)


def _class_token(net: Any, pictures: Tensor) -> Tensor:
    return net(pixel_values=pictures).last_hidden_state[:, 0]


# `architectures` of a config.json -> weights that may be left behind.
SELF_SUPERVISED = {"Dinov2Model": (), "Dinov2WithRegistersModel": (), "DINOv3ViTModel": (), "ViTModel": ("pooler",)}


def load_features(folder: Path | str, device: torch.device | str = "cpu") -> Features:
    """The extractor in `folder`: CLIP (projected embedding), DINO, DINOv2 or DINOv3 (class token after the last norm), Inception (2048
    pooled features before the classifier).

    Raises `WeightsError` naming what is missing, misshapen or unknown and what to put where; `UnknownNameError` for another architecture.
    """
    folder = Path(folder)
    if (folder / "inception.safetensors").is_file():
        from .inception import load_inception

        return load_inception(folder / "inception.safetensors", device)
    architecture = named_architecture(folder, (*SELF_SUPERVISED, "CLIPModel"), "a feature extractor", WANTED)
    require_safetensors(folder)
    if architecture == "CLIPModel":
        clip = load_pretrained("CLIPModel", folder, torch.float32).to(device)
        prepare = preparation(folder, int(clip.config.vision_config.image_size), CLIP_LOOK)
        return NetFeatures(f"CLIP ({folder.name})", clip, prepare, clip_image, int(clip.config.projection_dim))
    dino = load_pretrained(architecture, folder, torch.float32, SELF_SUPERVISED[architecture]).to(device)
    prepare = preparation(folder, int(dino.config.image_size), IMAGENET_LOOK)
    return NetFeatures(f"DINO ({folder.name})", dino, prepare, _class_token, int(dino.config.hidden_size))


def named_architecture(folder: Path, known: tuple[str, ...], what: str, wanted: str) -> str:
    """The architecture that `folder/config.json` names, one of `known`. `WeightsError` says what to put where when there is none."""
    if not (folder / "config.json").is_file():
        raise WeightsError(f"no weights of {what} in {folder}: config.json is missing", f"put there {wanted}")
    names = read_json(folder / "config.json").get("architectures") or [""]
    if names[0] not in known:
        raise UnknownNameError(f"architecture of {what} in {folder}:", str(names[0]), known)
    return str(names[0])
