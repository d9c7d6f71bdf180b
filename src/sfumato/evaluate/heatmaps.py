"""Which word looked where: a picture drawn with an attention recorder, and its maps for people (a page, a sheet) and programs (JSON).

The page is one file: pictures inlined, no script or style from elsewhere.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.call import Call
from ..core.errors import UsageError
from ..core.rng import Rows
from ..pipelines import Pictures, TextToImage
from ..pipelines.sheet import contact_sheet
from ..sampling.policies.attention_maps import AttentionRecorder, AttentionRecording, merged, resized
from ..text.encoded import WordSpan
from .attribution import spread

if TYPE_CHECKING:
    from PIL.Image import Image

SHOWN = 256  # pixels of the longer side, at least: small pictures hide what a map shows
# From nothing to all: dark violet, red, orange, pale yellow.
HEAT = ((24, 10, 60), (126, 26, 110), (214, 62, 62), (250, 148, 30), (252, 245, 180))


@dataclass(frozen=True)
class WordMap:
    """grid: (h, w) mean attention probability of the picture's tokens to the word's.   mass: its mean.   tokens: first and last + 1."""

    text: str
    tokens: tuple[int, int]
    grid: Tensor

    @property
    def mass(self) -> float:
        return float(self.grid.mean())


@dataclass(frozen=True)
class Heatmaps:
    """pictures: the one drawn, as the pipeline returned it.   words: in their order.   whole: mean mass of all the text's tokens."""

    pictures: Pictures
    picture: Image
    words: tuple[WordMap, ...]
    whole: float

    def record(self) -> dict[str, Any]:
        """Everything as JSON values; maps are lists of rows."""
        words = [{"text": w.text, "tokens": list(w.tokens), "mass": w.mass, "map": w.grid.tolist()} for w in self.words]
        drawn = {"prompt": self.pictures.prompts[0], "seed": self.pictures.seeds[0], **self.pictures.settings}
        return {**drawn, "text_mass": self.whole, "words": words}

    def sheet(self, columns: int = 4) -> Image:
        """The picture and each word's map over it, captioned."""
        base = _shown(self.picture)
        over = [_laid(base, _heat(word.grid, base.size)) for word in self.words]
        captions = [self.pictures.prompts[0], *(f"{w.text} ({w.mass:.2%})" for w in self.words)]
        return contact_sheet([base, *over], captions, columns)

    def page(self) -> str:
        """A self-contained HTML page: point at a word to see where it looked, click to keep it."""
        base = _shown(self.picture)
        largest = max((w.mass for w in self.words), default=0.0) or 1.0
        words, layers = [], []
        for i, word in enumerate(self.words):
            bar = f'<i style="width:{100 * word.mass / largest:.0f}%"></i>'
            words.append(f'<button data-layer="{i}">{escape(word.text)}<small>{word.mass:.2%}</small>{bar}</button>')
            layers.append(f'<img id="layer{i}" alt="" src="{_inlined(_heat(word.grid, base.size))}">')
        settings = {"seed": self.pictures.seeds[0], **{k: v for k, v in self.pictures.settings.items() if k != "model"}}
        facts = " · ".join(f"{name} {value}" for name, value in settings.items() if value not in ("", []))
        template = (resources.files(__package__) / "heatmaps.html").read_text(encoding="utf-8")
        filled = {
            "prompt": escape(self.pictures.prompts[0]),
            "model": escape(str(self.pictures.settings["model"].get("name", ""))),
            "facts": escape(facts),
            "whole": f"{self.whole:.1%}",
            "width": str(2 * base.width),
            "picture": _inlined(base),
            "layers": "".join(layers),
            "words": "".join(words),
        }
        return re.sub(r"{{(\w+)}}", lambda found: filled[found[1]], template)


def heatmaps(pipe: TextToImage, prompt: str, *, blocks: Sequence[int] | None = None, row: int = 0, **options: Any) -> Heatmaps:
    """Draw `prompt` with `options` as the pipeline takes them, and map its words; the picture is what it is without the recorder.

    `blocks`: those watched.   `row`: the picture's row in the batch drawn (a frame's). Raises `UsageError` for a block the network lacks.
    """
    count = len(pipe.denoiser.net.blocks)
    if blocks is not None and (not blocks or not all(0 <= b < count for b in blocks)):
        raise UsageError(f"blocks {', '.join(map(str, blocks)) or 'none'}", f"from 0 to {count - 1}, this network has {count}")
    recorder = AttentionRecorder(blocks=None if blocks is None else frozenset(blocks))
    pictures = pipe(prompt, policies=(recorder,), **options)
    (recording,) = pictures.sessions
    assert isinstance(recording, AttentionRecording)
    maps = recording.mean()[row].cpu()
    spans: tuple[WordSpan, ...] = pipe.encoder.encode([prompt]).words[0]
    words = tuple(WordMap(s.text, (s.start, s.end), merged(maps, range(s.start, s.end))) for s in spans)
    return Heatmaps(pictures, pictures[0], words, float(maps.sum(0).mean()))


@torch.no_grad()
def attended(pipe: TextToImage, image: Tensor, prompt: str, levels: Sequence[float], noises: int) -> Tensor:
    """(N, h, w): mean attention to each token of `prompt` while the network looks at a real picture (3, H, W) in [-1, 1], noised to each
    of `levels` with as many `noises`, once each. What is where in the picture is known, so maps can be held against it.
    """
    rows = Rows(tuple(range(noises)))
    latent = pipe.codec.encode(image[None].to(next(pipe.codec.parameters()))).float()
    noise = rows.normal(latent.shape[1:], "noise").to(pipe.device)
    conds, _ = pipe.conditions([prompt] * noises)
    recording = AttentionRecorder().begin()
    for step, level in enumerate(levels):
        t = torch.full((noises,), level, device=pipe.device)
        x = pipe.denoiser.path.mix(latent.expand_as(noise), noise, t)
        pipe.denoiser.out(x, t, conds["cond"].to(pipe.device), Call((recording,), step=step))
    return recording.mean().mean(0).cpu()


def _shown(picture: Image) -> Image:
    from PIL.Image import Resampling

    factor = -(-SHOWN // max(picture.size))
    return picture if factor == 1 else picture.resize((picture.width * factor, picture.height * factor), Resampling.LANCZOS)


def _heat(grid: Tensor, size: tuple[int, int]) -> Image:
    """A map as a translucent RGBA picture of `size` (width, height), spread over its own range."""
    from PIL import Image

    values = spread(resized(grid[None], (size[1], size[0])))[0]
    anchors = torch.tensor(HEAT, dtype=torch.float32)
    at = values * (len(HEAT) - 1)
    low = at.floor().clamp(max=len(HEAT) - 2)
    colour = torch.lerp(anchors[low.long()], anchors[low.long() + 1], (at - low)[..., None])
    rgba = torch.cat([colour, (70 + 160 * values)[..., None]], -1).round().to(torch.uint8)
    return Image.fromarray(rgba.numpy(), "RGBA")


def _laid(base: Image, heat: Image) -> Image:
    from PIL import Image

    # Over grey: a picture's own colours would be taken for heat.
    return Image.alpha_composite(base.convert("L").convert("RGBA"), heat).convert("RGB")


def _inlined(picture: Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
