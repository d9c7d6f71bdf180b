"""Documents: PDF pages with figures, captions and running text, for programs that must find which caption belongs to which picture."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from .captions import facts_of, long, short
from .cast import Cast
from .content import draw_content
from .description import Box, Scene, dice, tally
from .painting import render
from .pdf import PAGE, Picture, Text, write_pdf
from .plan import arrange

LEFT, TOP, LINE, WIDTH = 40.0, PAGE[1] - 50, 12.0, 66
LONGEST = 440
"""Characters of a caption, so that it ends above the next figure and on the page."""
_OPENINGS = (
    "As {figure} shows, there is much to count here.",
    "We now turn to {figure}.",
    "Compare {figure} with what was said before.",
    "The reader may check every word of {figure}.",
)
_FILLERS = (
    "Nothing in this paragraph describes a picture.",
    "The order of things on a page is not always the order in which they are read.",
    "Pictures of small things are easily made and easily counted.",
    "A caption stands below its figure, and the text around it does not.",
    "Whoever drew these things wished to be understood at a glance.",
)


@dataclass(frozen=True)
class Figure:
    """One figure of a document: its scene, the caption printed below it, its page (from 0) and its box in fractions of the page."""

    scene: Scene
    caption: str
    page: int
    box: Box


@dataclass(frozen=True)
class Document:
    """`text`: the lines of running text of each page, the title first."""

    title: str
    figures: tuple[Figure, ...]
    text: tuple[tuple[str, ...], ...]


def document(cast: Cast, seed: int, index: int, difficulty: int = 3) -> Document:
    """The document (seed, index): 1 to 3 pages with one or two figures each."""
    rng = dice(f"document {difficulty}", seed, index)
    figures: list[Figure] = []
    pages: list[tuple[str, ...]] = []
    for page in range(rng.randint(1, 3)):
        lines: list[str] = []
        for slot in range(rng.randint(1, 2)):
            scene = arrange(cast, rng, draw_content(cast, rng, difficulty), difficulty).scene
            facts = facts_of(scene)
            said = rng.choice([short(facts), long(facts)])
            said = said if len(said) < LONGEST else short(facts)
            side = rng.choice([110.0, 125.0, 140.0])
            x, y = rng.choice([LEFT, (PAGE[0] - side) / 2, PAGE[0] - LEFT - side]), PAGE[1] - 105 - 250 * slot - side
            box = (x / PAGE[0], 1 - (y + side) / PAGE[1], (x + side) / PAGE[0], 1 - y / PAGE[1])
            name = f"Figure {len(figures) + 1}"
            caption = f"{name}: {said[0].upper()}{said[1:]}"
            figures.append(Figure(scene, caption, page, box))
            lines.append(f"{rng.choice(_OPENINGS).format(figure=name)} {rng.choice(_FILLERS)}")
        pages.append(tuple(lines))
    thing = max(tally(figures[0].scene).items(), key=lambda pair: (pair[1], pair[0]))[0]
    return Document(f"On the {thing}, and other things", tuple(figures), tuple(pages))


def to_pdf(document: Document, cast: Cast, size: int = 128) -> bytes:
    """The document as a PDF file whose figures are pictures of `size` pixels, stored without loss."""
    pages: list[list[Text | Picture]] = [[] for _ in document.text]
    pages[0].append(Text(LEFT, TOP, 15, document.title, bold=True))
    for number, lines in enumerate(document.text):
        figures = [figure for figure in document.figures if figure.page == number]
        for figure, line in zip(figures, lines, strict=True):
            x0, _, x1, y1 = figure.box
            x, y, side = x0 * PAGE[0], (1 - y1) * PAGE[1], (x1 - x0) * PAGE[0]
            pages[number] += _paragraph(line, y + side + 10 + LINE, 9.5)
            pages[number].append(Picture(x, y, side, side, render(figure.scene, cast, size).picture))
            pages[number] += _paragraph(figure.caption, y - 12, 8.5)
        pages[number].append(Text(PAGE[0] - LEFT, TOP + 15, 8, str(number + 1)))
    return write_pdf(pages)


def _paragraph(text: str, y: float, size: float) -> list[Text]:
    """The wrapped lines of a paragraph, from the baseline `y` downwards."""
    lines = textwrap.wrap(text, round(WIDTH * 9.5 / size))
    return [Text(LEFT, y - LINE * i, size, line) for i, line in enumerate(lines)]
