"""Words on signs: which words, and their pixels in the font that pillow carries (Aileron by Sora Sagano, CC0).

The font comes with pillow itself, so nothing depends on the fonts of a machine; layout is pillow's basic one, without ligatures.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from .colours import INKS, rgb

if TYPE_CHECKING:
    from PIL import Image, ImageFont

_WORDS = """
GO STOP OPEN CLOSED SALE HELLO BYE YES NO WELCOME FREE CAFE ZOO PARK HOTEL TAXI BUS EXIT ENTER PUSH PULL NEW HOT COLD LOVE HOME PLAY
DANGER QUIET MUSIC BOOKS FOOD FARM BEACH SLOW FAST LEFT RIGHT NORTH SOUTH EAST WEST MENU BAKERY MARKET SCHOOL BANK POST TEA FISH
TOYS ART MOON STAR SUN RAIN SNOW WIND FIRE LAKE HILL ROAD TOWN CITY RIVER FOREST GARDEN HAPPY LUCKY MAGIC DREAM SMILE PEACE THANKS
SORRY FIRST LAST BEST GOOD WOW FUN BIG TINY RED BLUE GREEN GOLD
"""
WORDS = tuple(_WORDS.split())
_REFERENCE = 200


@lru_cache(maxsize=256)
def _font(size: int) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):  # a pillow built without FreeType
        from sfumato.core.errors import DataError

        raise DataError("this pillow has no FreeType, so words cannot be drawn", "install a pillow wheel: pip install --upgrade pillow")
    return font


def letter(word: str, width: int, height: int, ink: str, board: str) -> Image.Image:
    """`word` as large as fits a (width, height) RGBA picture: on a bordered board, or on nothing where `board` is ""."""
    from PIL import Image, ImageDraw

    patch = Image.new("RGBA", (width, height), (*rgb(INKS[board]), 255) if board else (*rgb(INKS[ink]), 0))
    draw = ImageDraw.Draw(patch)
    border = max(1, round(min(width, height) / 16)) if board else 0
    if board:
        draw.rectangle((0, 0, width - 1, height - 1), outline=(*rgb(INKS[ink]), 255), width=border)
    margin = 2 * border
    x0, y0, x1, y1 = _font(_REFERENCE).getbbox(word, stroke_width=_REFERENCE // 24)
    fits = min((width - 2 * margin) / (x1 - x0), (height - 2 * margin) / (y1 - y0))
    size = max(4, int(_REFERENCE * fits))
    stroke = size / 24  # the face is light; a thin stroke makes it read at 128 pixels
    draw.text((width / 2, height / 2), word, (*rgb(INKS[ink]), 255), _font(size), anchor="mm", stroke_width=stroke)
    return patch
