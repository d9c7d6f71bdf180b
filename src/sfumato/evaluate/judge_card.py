"""The judge judged: its own accuracy on real drawings and on rendered scenes that it never saw, to stand beside every score it gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ..data.packages import TRAINABLE
from .eyes import detections, features
from .judge import Judge
from .lessons import Scenery
from .metrics import Score
from .metrics.detection import matches, mean_average_precision
from .metrics.tasks import Detection
from .pictures import Pictures
from .witness import hear

# Alike in every style, so easy to recognise: a rate without them says more about drawings proper.
LETTERED = {"flags", "keycap"}
# A thing of which less is seen may be found or not; neither is counted.
SEEN = 0.25


def measure(judge: Judge, pictures: Pictures, scenes: Scenery) -> dict[str, Any]:
    """Drawings: only those of concepts that it has a class for. Scenes: of a held-out split.

    `held_out`: validation and test pairs of the trained styles, a concept never seen in that style. `unseen_styles`: share-alike
    styles of which it saw no drawing. Each: concept top-1 and top-5 with a 95% Wilson interval, the same without flags and keycaps,
    style accuracy, top-1 by style, by group and by the number of styles in which the concept was seen in training. `scenes`: see there.
    """
    known = judge.concept_index

    def held_out(i: int) -> bool:
        return pictures.split[i] != "train" and pictures.style[i] in judge.style_index and pictures.concept[i] in known

    def unseen(i: int) -> bool:
        return pictures.style[i] not in judge.style_index and pictures.concept[i] in known

    kinds = {"held_out": held_out, "unseen_styles": unseen}
    found: dict[str, Any] = {name: accuracy(judge, pictures, pictures.rows(keep)) for name, keep in kinds.items()}
    return {**found, "scenes": scene_accuracy(judge, scenes)}


def accuracy(judge: Judge, pictures: Pictures, rows: Sequence[int]) -> dict[str, Any]:
    """Concept and style accuracy of `judge` on these rows of `pictures`; every concept must be one of its classes."""
    if not rows:
        return {"count": 0}
    hits1: list[bool] = []
    hits5: list[bool] = []
    styled: list[bool] = []
    for start in range(0, len(rows), 256):
        chunk = rows[start : start + 256]
        verdict = judge(pictures.unit(chunk))
        best = verdict.concept.topk(min(5, len(judge.concepts)), dim=1).indices.tolist()
        truth = [judge.concept_index[pictures.concept[i]] for i in chunk]
        hits1 += [t == b[0] for t, b in zip(truth, best, strict=True)]
        hits5 += [t in b for t, b in zip(truth, best, strict=True)]
        named = [judge.styles[s] for s in verdict.style.argmax(1).tolist()]
        styled += [pictures.style[i] == s for i, s in zip(chunk, named, strict=True)]
    plain = [hit for i, hit in zip(rows, hits1, strict=True) if not {pictures.group[i], pictures.concept[i].split(":")[0]} & LETTERED]
    result: dict[str, Any] = {"count": len(rows), "concept_top1": _rate(hits1), "concept_top5": _rate(hits5)}
    result |= {"concept_top1_without_flags_keycaps": _rate(plain), "top1_by_style": _by([pictures.style[i] for i in rows], hits1)}
    shipped = [i for i in range(len(pictures)) if pictures.split[i] == "train" and pictures.licence[i] in TRAINABLE]
    times = Counter(concept for concept, _ in {(pictures.concept[i], pictures.style[i]) for i in shipped})
    result["top1_by_styles_seen"] = _by([str(times[pictures.concept[i]]) for i in rows], hits1)
    result["top1_by_group"] = _by([pictures.group[i] or "other" for i in rows], hits1)
    if all(pictures.style[i] in judge.style_index for i in rows):
        result["style"] = _rate(styled)
    return result


def scene_accuracy(judge: Judge, scenes: Scenery) -> dict[str, Any]:
    """What the judge finds in rendered scenes: `map50` over concepts; of the things it should find, `recall` (box and name right),
    `recall_unseen` of drawings it never saw, `style` and `colour` of those found; `words` read exactly, and signs told where none is.
    """
    told, truth = hear(judge, scenes.images, [True] * len(scenes)), truths(scenes)
    found = told.found
    hits = [hit for seen, things in zip(found, truth, strict=True) for hit in _found(seen, things)]
    kept = [i for i in range(len(scenes.boxes)) if scenes.visible[i] >= SEEN]
    right = torch.tensor([hit is not None for hit in hits])
    unseen = torch.tensor([scenes.split[i] != "train" for i in kept])
    pairs = [(hit, scenes.style[i], scenes.colour[i]) for hit, i in zip(hits, kept, strict=True) if hit is not None]
    read, said = told.read, dict(zip(scenes.sign_place.tolist(), scenes.words, strict=True))
    return {
        "scenes": len(scenes),
        "things": len(kept),
        "map50": asdict(mean_average_precision(_without_hidden(found, scenes), truth)),
        "recall": asdict(Score.rate(right)),
        "recall_unseen": asdict(Score.rate(right[unseen])),
        "style": _rate([hit.style == style for hit, style, _ in pairs]),
        "colour": _rate([hit.colour == colour for hit, _, colour in pairs]),
        "words": _rate([read[m] == word for m, word in said.items()]),
        "words_where_none": _rate([bool(read[m]) for m in range(len(scenes)) if m not in said]),
    }


def truths(scenes: Scenery, least: float = SEEN) -> list[list[Detection]]:
    """The things of each scene of which at least `least` is seen."""
    told: list[list[Detection]] = [[] for _ in range(len(scenes))]
    for i, m in enumerate(scenes.place.tolist()):
        if scenes.visible[i] >= least:
            x0, y0, x1, y1 = scenes.boxes[i].tolist()
            told[m].append(Detection(scenes.concept[i], (x0, y0, x1, y1), 1.0, scenes.style[i], scenes.colour[i]))
    return told


def _without_hidden(found: Sequence[Sequence[Detection]], scenes: Scenery) -> list[list[Detection]]:
    """The detections but for those of things that are nearly hidden."""
    hidden: list[list[Detection]] = [[] for _ in range(len(scenes))]
    for i, m in enumerate(scenes.place.tolist()):
        if scenes.visible[i] < SEEN:
            x0, y0, x1, y1 = scenes.boxes[i].tolist()
            hidden[m].append(Detection(scenes.concept[i], (x0, y0, x1, y1), 1.0))
    return [[d for d, there in zip(seen, matches(seen, of), strict=True) if not there] for seen, of in zip(found, hidden, strict=True)]


def _found(seen: Sequence[Detection], things: Sequence[Detection]) -> list[Detection | None]:
    """For each thing the detection that is right about it, or None."""
    right = [d for d, hit in zip(seen, matches(seen, things), strict=True) if hit]
    told: list[Detection | None] = []
    for thing in things:
        mine = next((d for d in right if matches([d], [thing])[0]), None)
        told.append(mine)
        if mine is not None:
            right.remove(mine)
    return told


def settle_chance(judge: Judge, scenes: Scenery) -> None:
    """Fit the scores of `judge.eyes` to what was right on these scenes (Platt 1999: logistic regression), rounded as fp16 keeps it."""
    assert judge.eyes is not None
    told, numbers, start = truths(scenes), [], 0
    right: list[bool] = []
    for chunk in scenes.images.split(256):
        named = judge.look(chunk.float() / 127.5 - 1.0)
        # All equally sure: so that the rows keep their order, and the first of two that name one thing takes it.
        seen = detections(named, torch.zeros(len(named.place)), len(chunk), judge.concepts, judge.styles)
        right += [hit for found, things in zip(seen, told[start : start + len(chunk)], strict=True) for hit in matches(found, things)]
        numbers.append(features(named))
        start += len(chunk)
    fitted = _logistic(torch.cat(numbers).double(), torch.tensor(right, dtype=torch.float64))
    judge.eyes.chance.copy_(fitted.half())


def _logistic(x: Tensor, target: Tensor, rounds: int = 50) -> Tensor:
    """Weights (D,) of the likeliest logistic model of `target` (N,) in [0, 1] from x (N, D), by Newton's method, a little damped."""
    weights = torch.zeros(x.shape[1], dtype=x.dtype)
    for _ in range(rounds):
        p = (x @ weights).sigmoid()
        curve = x.T @ (x * (p * (1 - p))[:, None]) + 1e-3 * torch.eye(x.shape[1], dtype=x.dtype)
        weights = weights + torch.linalg.solve(curve, x.T @ (target - p) - 1e-3 * weights)
    return weights


def _rate(hits: Sequence[bool]) -> dict[str, Any]:
    score = Score.rate(torch.tensor(hits, dtype=torch.bool))
    return {"value": round(score.value, 4), "low": round(score.low, 4), "high": round(score.high, 4), "count": score.count}


def _by(names: Sequence[str], hits: Sequence[bool]) -> dict[str, float]:
    totals, right = Counter(names), Counter(n for n, hit in zip(names, hits, strict=True) if hit)
    return {name: round(right[name] / totals[name], 4) for name in sorted(totals)}
