"""What a sign says: a small convolutional network reads a board's letters from left to right (CTC, Graves et al. 2006).

It learns from strings of random letters, so that it reads what is there and not what signs usually say.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from random import Random
from string import ascii_uppercase
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.rng import Draws
from ..core.task import Batch, Loss, Phase
from ..data.scenes.colours import INKS, SOFT, TINTS, rgb
from ..data.scenes.lettering import WORDS, letter
from ..data.scenes.plan import BOARDS
from .augment import degrade, recolour

LETTERS = ascii_uppercase
"""Class 0 is CTC's blank, letter k is class k + 1."""
SIZE = (32, 128)
"""Height and width in pixels to which a board is brought; a column of features covers four pixels of the width."""
LONGEST = 9
BEYOND = 0.06
"""How far past a found board one looks, as a part of its sides."""


class Reader(nn.Module):
    """Boards (B, 3, 32, 128) in [-1, 1] -> (32, B, 27) log probabilities, from left to right."""

    def __init__(self, widths: tuple[int, int, int] = (48, 96, 160)) -> None:
        super().__init__()
        a, b, c = widths

        def layer(before: int, after: int, stride: tuple[int, int]) -> list[nn.Module]:
            return [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]

        steps = ((3, a, (2, 2)), (a, b, (2, 2)), (b, b, (1, 1)), (b, c, (2, 1)), (c, c, (2, 1)))
        self.net = nn.Sequential(*(part for step in steps for part in layer(*step)))
        # Two rows are left: they become channels, and neighbours along the line decide together.
        self.line = nn.Sequential(nn.Conv1d(2 * c, c, 5, padding=2, bias=False), nn.BatchNorm1d(c), nn.ReLU())
        self.head = nn.Conv1d(c, len(LETTERS) + 1, 3, padding=1)

    def forward(self, boards: Tensor) -> Tensor:
        x: Tensor = self.net(boards.contiguous(memory_format=torch.channels_last))
        logits: Tensor = self.head(self.line(x.flatten(1, 2).contiguous()))
        return logits.float().log_softmax(1).permute(2, 0, 1)


def spell(answers: Tensor) -> list[str]:
    """The likeliest class at each place of (T, B, 27), repeats and blanks left out."""
    return [
        "".join(LETTERS[k - 1] for k, before in zip(row, [0, *row], strict=False) if k and k != before)
        for row in answers.argmax(2).T.tolist()
    ]


def cut_boards(images: Tensor, place: Tensor, boxes: Tensor) -> Tensor:
    """(N, 3, 32, 128) in [-1, 1]: of images (B, 3, H, W) in [-1, 1] the rows `place` inside `boxes` (N, 4), and a little around them."""
    half = (0.5 + BEYOND) * (boxes[:, 2:] - boxes[:, :2]) * 2.0
    theta = torch.zeros(len(boxes), 2, 3, device=images.device)
    theta[:, 0, 0], theta[:, 1, 1] = half.T
    theta[:, :, 2] = boxes[:, :2] + boxes[:, 2:] - 1.0
    grid = F.affine_grid(theta, [len(boxes), 3, *SIZE], align_corners=False)
    return F.grid_sample(images[place], grid, padding_mode="border", align_corners=False)


@dataclass(frozen=True)
class Boards:
    """A stream of drawn words: `boards` (B, 3, 32, 128) uint8, `letters` (B, 9) class numbers (0 beyond the end), `length` (B,)."""

    size: int = 64
    seed: int = 0

    def batch(self, index: int) -> dict[str, Tensor]:
        rng = Random(f"{self.seed}|boards|{index}")
        words = [_word(rng) for _ in range(self.size)]
        boards = torch.from_numpy(np.stack([_board(rng, word) for word in words])).permute(0, 3, 1, 2).contiguous()
        letters = torch.tensor([[LETTERS.index(c) + 1 for c in word] + [0] * (LONGEST - len(word)) for word in words])
        return {"boards": boards, "letters": letters, "length": torch.tensor([len(word) for word in words])}


def _word(rng: Random) -> str:
    if rng.random() < 0.25:
        return rng.choice(WORDS)
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(2, LONGEST - 1)))


def _board(rng: Random, word: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(32, 128, 3): a board of 12 to 40 pixels' height as a picture of 128 shows it, found a little beside its place, on some ground."""
    from PIL import Image

    height = rng.randint(12, 40)
    width = min(126, round(height * (rng.uniform(0.55, 0.8) * len(word) + rng.uniform(0.5, 1.0))))
    ground = rgb(rng.choice([*SOFT.values(), *(shade for shades in TINTS.values() for shade in shades)]))
    board, ink = rng.choice(BOARDS) if rng.random() < 0.8 else ("", rng.choice(sorted(INKS)))
    if not board and sum(abs(a - b) for a, b in zip(ground, rgb(INKS[ink]), strict=True)) < 160:
        ink = "black" if sum(ground) > 380 else "white"
    drawn = letter(word, width, height, ink, board)
    sheet = Image.new("RGB", (2 * width, 2 * height), ground)
    sheet.paste(drawn, (width // 2, height // 2), drawn)
    x0, y0, x1, y1 = (rng.uniform(-0.08, 0.08) - BEYOND * sign for sign in (1, 1, -1, -1))
    box = (width * (0.5 + x0), height * (0.5 + y0), width * (1.5 + x1), height * (1.5 + y1))
    return np.asarray(sheet.resize((SIZE[1], SIZE[0]), Image.Resampling.BILINEAR, box=box))


class ReaderTask:
    """Batches as `Boards` makes them."""

    def __init__(self, net: Reader, strength: float = 0.6) -> None:
        self.net: Reader = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules: Mapping[str, nn.Module] = {"reader": self.net}
        self.strength = strength

    def phases(self, step: int) -> Sequence[Phase]:
        return [Phase("read", ("reader",))]

    def loss(self, phase: Phase, batch: Batch, carry: MutableMapping[str, Any], draws: Draws) -> Loss:
        ink = 1.0 - batch["boards"].float() / 255.0
        strength = self.strength * draws.uniform((len(ink),), "strength").to(ink.device)
        answers = self.net(1.0 - 2.0 * degrade(recolour(ink, draws, strength), draws, strength))
        seen = torch.full((len(ink),), len(answers), dtype=torch.long)
        loss = F.ctc_loss(answers, batch["letters"], seen, batch["length"], zero_infinity=True)
        said = ["".join(LETTERS[k - 1] for k in row if k) for row in batch["letters"].tolist()]
        right = torch.tensor([a == b for a, b in zip(spell(answers.detach()), said, strict=True)], dtype=torch.float32).mean()
        return Loss(loss, {"read": right})
