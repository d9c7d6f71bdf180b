"""A small PDF writer: pages of text and pictures, each a real text run and a real image object (PDF 1.4, ISO 32000-1 sections 7 to 9).

Written here because what is needed is one page of code, and because the same document must give the same bytes: no clock, no identifier.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from ..pictures import Pixels

PAGE = (420.0, 595.0)
"""Width and height in points (A5); the origin is the lower left corner."""


@dataclass(frozen=True)
class Text:
    """A line of text whose baseline starts at (x, y), in Helvetica of `size` points."""

    x: float
    y: float
    size: float
    text: str
    bold: bool = False


@dataclass(frozen=True, eq=False)
class Picture:
    """`pixels` (H, W, 3) uint8 in the box (x, y, width, height), in points."""

    x: float
    y: float
    width: float
    height: float
    pixels: Pixels


def write_pdf(pages: Sequence[Sequence[Text | Picture]]) -> bytes:
    """The bytes of a PDF file with these pages. Characters that Windows-1252 lacks become question marks."""
    bodies: list[bytes] = [b"<< /Type /Catalog /Pages 2 0 R >>", b""]
    for name in (b"Helvetica", b"Helvetica-Bold"):
        bodies.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /%s /Encoding /WinAnsiEncoding >>" % name)
    kids = []
    for page in pages:
        pictures = [part for part in page if isinstance(part, Picture)]
        numbers = range(len(bodies) + 1, len(bodies) + 1 + len(pictures))
        bodies += [_image(picture) for picture in pictures]
        marks = iter(numbers)
        drawn = "\n".join(_draw_text(part) if isinstance(part, Text) else _draw_picture(part, next(marks)) for part in page)
        bodies.append(_stream(b"", drawn.encode("cp1252", "replace")))
        images = " ".join(f"/I{number} {number} 0 R" for number in numbers)
        resources = f"<< /Font << /F1 3 0 R /F2 4 0 R >> /XObject << {images} >> >>"
        box = f"[0 0 {PAGE[0]:g} {PAGE[1]:g}]"
        contents = len(bodies)
        bodies.append(f"<< /Type /Page /Parent 2 0 R /MediaBox {box} /Resources {resources} /Contents {contents} 0 R >>".encode())
        kids.append(f"{len(bodies)} 0 R")
    bodies[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>".encode()
    return _file(bodies)


def _stream(entries: bytes, content: bytes) -> bytes:
    packed = zlib.compress(content, 6)
    return b"<< %s /Filter /FlateDecode /Length %d >>\nstream\n%s\nendstream" % (entries, len(packed), packed)


def _image(picture: Picture) -> bytes:
    height, width = picture.pixels.shape[:2]
    entries = b"/Type /XObject /Subtype /Image /Width %d /Height %d /ColorSpace /DeviceRGB /BitsPerComponent 8" % (width, height)
    return _stream(entries, picture.pixels.tobytes())


def _draw_text(part: Text) -> str:
    escaped = part.text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
    return f"BT /F{2 if part.bold else 1} {part.size:g} Tf {part.x:g} {part.y:g} Td ({escaped}) Tj ET"


def _draw_picture(part: Picture, number: int) -> str:
    return f"q {part.width:g} 0 0 {part.height:g} {part.x:g} {part.y:g} cm /I{number} Do Q"


def _file(bodies: Sequence[bytes]) -> bytes:
    """Objects 1, 2, ... with the table of where each begins."""
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    starts = []
    for number, body in enumerate(bodies, 1):
        starts.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(bodies) + 1)
    out += b"".join(b"%010d 00000 n \n" % start for start in starts)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(bodies) + 1, table)
    return bytes(out)
