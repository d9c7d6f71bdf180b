"""A contact sheet: many pictures in one, each with its prompt below."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

MARGIN, LINE = 8, 12


def contact_sheet(pictures: Sequence[Image.Image], captions: Sequence[str], columns: int = 4) -> Image.Image:
    """Pictures row by row on white, every cell as large as the largest, captions wrapped to the cell's width (three lines at most)."""
    columns = min(columns, len(pictures))
    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    font = ImageFont.load_default(10)
    wrapped = [textwrap.wrap(caption, max(8, width // 5), max_lines=3, placeholder=" …") for caption in captions]
    text = LINE * max((len(lines) for lines in wrapped), default=0)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (MARGIN + columns * (width + MARGIN), MARGIN + rows * (height + text + MARGIN)), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (picture, lines) in enumerate(zip(pictures, wrapped, strict=True)):
        x, y = MARGIN + i % columns * (width + MARGIN), MARGIN + i // columns * (height + text + MARGIN)
        sheet.paste(picture, (x, y))
        for n, line in enumerate(lines):
            pen.text((x, y + height + 2 + n * LINE), line, fill="black", font=font)
    return sheet
