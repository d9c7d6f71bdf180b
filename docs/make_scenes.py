"""Write docs/scenes.md and its pictures from an EmojiWorld folder; every caption on the page comes from the generator.

python docs/make_scenes.py data/emoji
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sfumato.core import files
from sfumato.data.scenes import LEVELS, Cast, Scene, captions_of, edit, negatives, probe, render, scene, story, subjects, tryon, video
from sfumato.data.scenes.captions import facts_of, long
from sfumato.data.scenes.description import dice

DOCS = Path(__file__).parent
SIDE, GAP = 112, 4


def sheet(name: str, rows: Sequence[Sequence[Image.Image]]) -> str:
    """Save the pictures as one palette PNG in docs/images; the line of Markdown that shows it."""
    width, height = (max(map(len, rows)) * (SIDE + GAP) - GAP, len(rows) * (SIDE + GAP) - GAP)
    board = Image.new("RGB", (width, height), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            board.paste(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x * (SIDE + GAP), y * (SIDE + GAP)))
    small = board.quantize(160, dither=Image.Dither.NONE)
    files.write_with(DOCS / "images" / f"{name}.png", lambda temporary: small.save(temporary, "PNG", optimize=True))
    return f"![{name.replace('-', ' ')}](images/{name}.png)"


def main(folder: str) -> None:
    cast = Cast.open(folder)

    def drawn(one: Scene) -> Image.Image:
        return Image.fromarray(render(one, cast, 2 * SIDE).picture)

    levels = sheet("scene-levels", [[drawn(scene(cast, 0, i, level)) for i in range(7)] for level in LEVELS])
    shown = next(s for s in (scene(cast, 0, i, 4) for i in range(999)) if s.sign and "behind" in str(s.relations) and len(s.groups) == 3)
    truth = render(shown, cast, 2 * SIDE)
    colours = np.array(
        [[235, 235, 235], *([40 + 53 * k % 215, 90 + 97 * k % 160, 60 + 151 * k % 190] for k in range(len(truth.full)))], np.uint8
    )
    layers = [truth.picture, colours[truth.labels], np.stack([truth.depth] * 3, -1), np.stack([~truth.edges * np.uint8(255)] * 3, -1)]
    truths = sheet("scene-truth", [[Image.fromarray(layer) for layer in layers]])
    edits = [edit(cast, 1, i, 4) for i in range(7)]
    pairs = sheet("scene-edits", [[drawn(e.before) for e in edits], [drawn(e.after) for e in edits]])
    subject, tale, film = subjects(cast, 0, 3, 4), story(cast, 0, 5, 4), video(cast, 0, 2, 4)
    strips = sheet(
        "scene-sequences",
        [[drawn(s) for s in subject.scenes], [drawn(f.scene) for f in tale.frames], [drawn(s) for s in film.frames[::2][:7]]],
    )
    fits = [tryon(cast, 0, i, 2) for i in (2, 4)]
    dressed = sheet("scene-tryon", [[drawn(s) for fit in fits for s in (fit.person, fit.garment, fit.worn)]])
    wrong = "\n".join(f"- {n.fact}, {n.said} for {n.true}: {n.caption}" for n in negatives(cast, shown, dice("docs", 0, 0)))
    asked = "\n".join(f"- {p.skill}: {p.prompt}. {p.question} *{p.answer}*" for p in (probe(cast, 0, i, 3) for i in range(5)))
    page = f"""# Scenes

EmojiWorld's drawings, composed by code, so that every count, place, colour, mask and word is known. This page and its pictures are made by

    python docs/make_scenes.py data/emoji

from the folder that `sfumato data emoji` builds; no caption below was written by hand. To make samples of your own:

    sfumato data scenes --data data/emoji --out data/scenes --count 10000 --difficulty 3
    sfumato data scenes --data data/emoji --out data/edits --kind edits

Kinds: scenes, edits, subjects, stories, videos, tryon, documents, probes. `open_source("data/scenes", split="train")` reads the
result: picture and captions, and as attributes `boxes`, `masks` (each object whole), `labels` (what is seen where), `depth`, `edges`,
`regions`, `negatives`, `frames`, `pdf` and `description`, from which the sample can be drawn again at any size. A sample is a pure
function of the generator's version, its seed and its index, given the same drawings. Its split is the most held-out of its prompt's
hash and of its drawings' own splits, so nothing of a test set is ever in a training sample.

## Difficulty 1 to 5

{levels}

## One scene and what is known about it

Picture, owner of each pixel, depth, edges:

{truths}

True captions, some of {len(captions_of(shown))}:

- {captions_of(shown)[0]}
- {captions_of(shown)[2]}
- {long(facts_of(shown))}

Captions that are wrong in one fact:

{wrong}

## Edit pairs

{pairs}

{chr(10).join(f"{i}. {e.instruction}" for i, e in enumerate(edits, 1))}

## Subjects, stories, videos

{strips}

- Subject: the {subject.concept} in four scenes.
- Story: {" ".join(frame.sentence for frame in tale.frames)}
- Video, every second frame: {film.caption}.

## Try-on

{dressed}

{chr(10).join(f"- {fit.caption}" for fit in fits)}

## Probes

{asked}
"""
    files.write_bytes(DOCS / "scenes.md", page.encode())


if __name__ == "__main__":
    main(sys.argv[1])
