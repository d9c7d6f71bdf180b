"""The critic judged: how often it prefers the true caption on drawings and scenes that it never saw, by what is wrong with the other."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ..data.scenes import Cast
from .critic import Critic
from .critic_lessons import STYLED, Pair, Rivals, drawing_pairs, other_scene, scene_pairs
from .lessons import Scenery
from .metrics import Score
from .pictures import Pictures


def measure(critic: Critic, pictures: Pictures, styles: frozenset[str], scenes: Scenery, cast: Cast, seed: int = 0) -> dict[str, Any]:
    """`drawings`: validation and test pairs of the trained `styles`, a concept never seen in that style, each asked about in one caption
    form. `scenes`: of a held-out split. Both: see `preferences`.
    """
    rivals = Rivals(pictures, pictures.rows(lambda i: pictures.style[i] in styles))
    rng = random.Random(f"{seed}|card")
    rows = pictures.rows(lambda i: pictures.split[i] != "train" and pictures.style[i] in styles)
    drawn = [drawing_pairs(rivals, row, k % len(STYLED), rng) for k, row in enumerate(rows)]
    composed = scene_questions(cast, scenes, seed)
    composed = [[*pairs, other_scene(composed, m, rng.choice(pairs).fact, rng)] for m, pairs in enumerate(composed)]
    return {
        "drawings": preferences(critic, pictures.images[torch.tensor(rows, dtype=torch.long)], drawn),
        "scenes": preferences(critic, scenes.images, composed),
    }


def scene_questions(cast: Cast, scenes: Scenery, seed: int) -> list[list[Pair]]:
    """The pairs of each scene; a pure function of the scenes and `seed`."""
    return [scene_pairs(cast, scene, random.Random(f"{seed}|scene|{m}")) for m, scene in enumerate(scenes.scenes)]


def preferences(critic: Critic, images: Tensor, pairs: Sequence[Sequence[Pair]]) -> dict[str, Any]:
    """Of images (M, 3, H, W) uint8 and the pairs of each: how often the true caption scores more than the wrong one (a tie is a miss), in
    all and by the fact that is wrong; `true`, `wrong`: how often a caption of each kind was told for what it is (log-odds above or below
    0). 95% Wilson intervals, of pairs; those of one picture are not independent, so the intervals over all facts are a little narrow.
    """
    numbered = [(m, pair) for m, some in enumerate(pairs) for pair in some]
    scores = _scores(critic, images, numbered)
    hits = scores[:, 0] > scores[:, 1]
    facts = sorted({pair.fact for _, pair in numbered})
    by_fact = {fact: _rate(hits[torch.tensor([pair.fact == fact for _, pair in numbered])]) for fact in facts}
    told = {"true": _rate(scores[:, 0] > 0), "wrong": _rate(scores[:, 1] < 0)}
    return {"pictures": len(images), "preferred": _rate(hits), "by_fact": by_fact, **told}


def _scores(critic: Critic, images: Tensor, numbered: Sequence[tuple[int, Pair]], batch: int = 256) -> Tensor:
    """(N, 2) scores of the true and the wrong caption of N pairs about pictures by number; a caption is asked once a picture."""
    scores: dict[tuple[int, str], float] = {}
    for start in range(0, len(images), batch):
        chunk = images[start : start + batch].float() / 127.5 - 1.0
        about = [(m, pair) for m, pair in numbered if start <= m < start + batch]
        asked = sorted({(m, caption) for m, pair in about for caption in (pair.true, pair.wrong)})
        place = torch.tensor([m - start for m, _ in asked], dtype=torch.long)
        found = critic.ask(chunk, [caption for _, caption in asked], place).tolist()
        scores |= dict(zip(asked, found, strict=True))
    return torch.tensor([[scores[m, pair.true], scores[m, pair.wrong]] for m, pair in numbered]).view(-1, 2)


def _rate(hits: Tensor) -> Mapping[str, Any]:
    return asdict(Score.rate(hits))
