"""From the options of `sfumato evaluate` to the parts it runs: what to draw is settled here, once for both models, before any is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..data.scenes import Cast
from ..data.sources import open_source
from ..evaluate.evaluate import Examined, examine
from ..evaluate.features import Features, load_features
from ..evaluate.judge import Judge
from ..evaluate.suites.bias import EACH, Bias
from ..evaluate.suites.lines import BadLine, read_lines
from ..evaluate.suites.prompts import Prompts
from ..evaluate.suites.skills import Skills
from ..evaluate.suites.words import Words
from ..evaluate.witness import witness_of
from .jobs import Numbered
from .verb import pick_device

if TYPE_CHECKING:
    from ..evaluate.selection import Drawings
    from ..evaluate.suites.sitting import Sitting
    from .evaluate import Evaluate

Kind = Literal["train", "test"]
COUNT = 300


class Part(Protocol):
    """Something to draw and judge: `name` is its folder, `pictures` how many there are at most."""

    @property
    def name(self) -> str: ...

    @property
    def pictures(self) -> int: ...

    def examine(self, sitting: Sitting) -> Any: ...


@dataclass(frozen=True)
class DrawingsPart:
    """One kind of pairs of named drawings, as `evaluate/evaluate.py` has them."""

    source: Drawings
    judge: Judge
    kind: Kind
    count: int
    features: Features | None

    @property
    def name(self) -> str:
        return self.kind

    @property
    def pictures(self) -> int:
        return self.count

    def examine(self, sitting: Sitting) -> Examined:
        return examine(
            sitting.pipe,
            self.source,
            self.judge,
            pairs=self.kind,
            count=self.count,
            seed=sitting.seed,
            steps=sitting.steps,
            guidance=sitting.guidance,
            batch=sitting.batch,
            out=sitting.out,
            progress=sitting.progress,
            model=sitting.model,
            features=self.features,
            weights=sitting.weights,
        )


@dataclass(frozen=True)
class Asked:
    """The parts in their order, the side of the pictures that are judged, and the lines of a prompt file that are none."""

    parts: Sequence[Part]
    size: int
    bad_lines: Sequence[BadLine] = ()


def ask(options: Evaluate, suites: Sequence[str], judge: Judge, lines: Numbered | None = None) -> Asked:
    """What these suites draw, or the `lines` of a file. Raises what can be known beforehand: a count that is too small, a judge that cannot
    tell scenes, lines of which none is a prompt.
    """
    if lines is not None:
        return _own_prompts(options, lines, judge)
    source = open_source(options.folder, split=None, size=judge.config.size)
    count = COUNT if options.count is None else options.count
    kinds: tuple[Kind, ...] = (options.pairs,) if options.pairs in ("train", "test") else ("train", "test")
    parts: list[Part] = []
    if "drawings" in suites:
        features = None if options.features is None else load_features(options.features, pick_device(options.device))
        parts += [DrawingsPart(source, judge, kind, count, features) for kind in kinds]
    if "skills" in suites:
        witness, cast = witness_of(judge), Cast.open(options.folder)
        parts += [Skills.prepare(cast, judge, witness, kind, count, options.seed) for kind in kinds]
    if "bias" in suites:
        parts.append(Bias.prepare(source, judge, count, options.seed, EACH if options.each is None else options.each))
    if "words" in suites:
        parts.append(Words.prepare(source, judge, options.seed, 1 if options.each is None else options.each))
    return Asked(parts, judge.config.size)


def _own_prompts(options: Evaluate, lines: Numbered, judge: Judge) -> Asked:
    name, json_lines, numbered = lines
    good, bad = read_lines(numbered, json_lines, judge)
    stated = any(line.facts is not None for line in good)
    each = 1 if options.each is None else options.each
    return Asked([Prompts(name, good, bad, judge, witness_of(judge) if stated else None, each)], judge.config.size, bad)
