"""Every kind of sample in one form: a main picture, further frames, captions, and the description it can all be made from again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .captions import captions_of, region_captions
from .cast import Cast
from .description import Scene
from .documents import document, to_pdf
from .edits import edit
from .fitting import tryon
from .plan import scene
from .probes import probe
from .stories import story, subjects
from .videos import video


@dataclass(frozen=True)
class Sample:
    """`main` is the picture that the captions describe, `frames` are (role, what is said of it, scene), `description` says it all.

    `plain`: whether the captions are those of `captions_of(main)`, so that negatives of them exist. `texts` holds what is particular to
    a kind: instruction, question, answer, skill, word, body.
    """

    description: Any
    main: Scene
    captions: tuple[str, ...]
    regions: tuple[str, ...]
    frames: tuple[tuple[str, str, Scene], ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    plain: bool = True
    pdf: Callable[[int], bytes] | None = None

    @property
    def scenes(self) -> tuple[Scene, ...]:
        """Every scene of the sample."""
        return (self.main, *(frame for _, _, frame in self.frames))


def _scenes(cast: Cast, seed: int, index: int, difficulty: int) -> Sample:
    made = scene(cast, seed, index, difficulty)
    return Sample(made, made, captions_of(made), region_captions(made))


def _edits(cast: Cast, seed: int, index: int, difficulty: int) -> Sample:
    made = edit(cast, seed, index, difficulty)
    before = ("before", captions_of(made.before)[0], made.before)
    texts = {"instruction": made.instruction, "edit": made.kind}
    return Sample(made, made.after, captions_of(made.after), region_captions(made.after), (before,), texts)


def _subjects(cast: Cast, seed: int, index: int, difficulty: int) -> Sample:
    made = subjects(cast, seed, index, difficulty)
    first = made.scenes[0]
    frames = tuple(("scene", captions_of(one)[0], one) for one in made.scenes[1:])
    return Sample(made, first, captions_of(first), region_captions(first), frames, {"subject": made.concept})


def _stories(cast: Cast, seed: int, index: int, difficulty: int) -> Sample:
    made = story(cast, seed, index, difficulty)
    first = made.frames[0].scene
    frames = tuple(("frame", frame.sentence, frame.scene) for frame in made.frames)
    told = (made.frames[0].sentence, " ".join(frame.sentence for frame in made.frames))
    return Sample(made, first, told, region_captions(first), frames, plain=False)


def _videos(cast: Cast, seed: int, index: int, difficulty: int) -> Sample:
    made = video(cast, seed, index, difficulty)
    last = made.frames[-1]  # where everything has appeared
    frames = tuple(("frame", "", frame) for frame in made.frames)
    return Sample(made, last, (made.caption,), region_captions(last), frames, plain=False)


def _tryon(cast: Cast, seed: int, index: int, difficulty: int) -> Sample:
    made = tryon(cast, seed, index, difficulty)
    frames = (("person", made.wearer, made.person), ("garment", made.piece, made.garment))
    texts = {"word": made.word, "body": " ".join(f"{edge:g}" for edge in made.body)}
    return Sample(made, made.worn, (made.caption,), (made.wearer, made.piece, f'the word "{made.word}"'), frames, texts, plain=False)


def _documents(cast: Cast, seed: int, index: int, difficulty: int) -> Sample:
    made = document(cast, seed, index, difficulty)
    first, *rest = made.figures
    frames = tuple(("figure", figure.caption, figure.scene) for figure in rest)
    regions = region_captions(first.scene)
    return Sample(made, first.scene, (first.caption,), regions, frames, plain=False, pdf=lambda size: to_pdf(made, cast, size))


def _probes(cast: Cast, seed: int, index: int, difficulty: int) -> Sample:
    made = probe(cast, seed, index, difficulty)
    texts = {"skill": made.skill, "question": made.question, "answer": made.answer}
    told = tuple(dict.fromkeys((made.prompt, *captions_of(made.scene))))
    return Sample(made, made.scene, told, region_captions(made.scene), texts=texts)


KINDS: dict[str, Callable[[Cast, int, int, int], Sample]] = {
    "scenes": _scenes, "edits": _edits, "subjects": _subjects, "stories": _stories, "videos": _videos, "tryon": _tryon,
    "documents": _documents, "probes": _probes,
}  # fmt: skip
"""Kind -> (cast, seed, index, difficulty) -> its sample."""
