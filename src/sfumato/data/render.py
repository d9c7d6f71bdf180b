"""SVG -> pixels, with resvg: deterministic (no system fonts), one drawing at a time, so that any number of processes can share the work."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from sfumato.core.errors import DataError

from .building import in_order
from .palette import dominant_colours

Rendered = tuple[bytes, tuple[str, ...]] | str
"""(PNG bytes, dominant colours), or the reason why there is no picture."""


def render(svg: str, size: int) -> Rendered:
    """Draw `svg` as a (size, size) RGBA PNG with straight alpha and name its colours; a broken drawing gives its reason as a text."""
    import numpy as np
    from PIL import Image

    try:
        png = rasterise(svg, size)
    except DataError as error:
        return error.message
    with Image.open(io.BytesIO(png)) as image:
        rgba = np.asarray(image.convert("RGBA"))
    if rgba.shape != (size, size, 4):
        return f"drawn as {rgba.shape[1]}x{rgba.shape[0]} instead of {size}x{size}"
    if not rgba[..., 3].any():
        return "the SVG draws nothing"
    return png, dominant_colours(rgba)


def rasterise(svg: str, size: int) -> bytes:
    """`svg` as the bytes of a (size, size) RGBA PNG. Raises `DataError` when it cannot be drawn."""
    import resvg_py

    try:
        return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True))
    except ValueError as error:
        raise DataError(f"the SVG cannot be drawn: {error}") from error


def _render_job(job: tuple[str, int]) -> Rendered:
    return render(*job)


def render_all(svgs: Sequence[str], size: int, workers: int) -> Iterator[Rendered]:
    """`render` of each SVG, in order; with `workers` > 1 in that many processes (resvg holds the interpreter's lock)."""
    return in_order(_render_job, [(svg, size) for svg in svgs], workers)
