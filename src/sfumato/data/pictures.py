"""Encoded bytes -> pixels: any format pillow reads, upright, cropped to a shape, laid over a background, with its alpha kept."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from sfumato.core.errors import DataError

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]


def decode(content: bytes, size: int | tuple[int, int] | None, background: Colour) -> tuple[Pixels, Pixels | None]:
    """((H, W, 3) picture over `background`, (H, W) alpha or None when the file has none), both uint8. `size`: H and W, or one number for
    both; None: as the file has them.

    The largest centred part of that shape is kept and resampled (Lanczos, premultiplied). Raises `DataError` with the reason when the bytes
    are no whole picture.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content)) as opened:
            picture: Image.Image = ImageOps.exif_transpose(opened)
            transparent = picture.has_transparency_data
            picture = picture.convert("RGBA" if transparent else "RGB")
        height, width = (size, size) if isinstance(size, int) else size or (picture.height, picture.width)
        if picture.size != (width, height):
            picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
        if not transparent:
            return np.array(picture), None
        under = Image.new("RGBA", picture.size, (*background, 255))
        return np.array(Image.alpha_composite(under, picture).convert("RGB")), np.array(picture.getchannel("A"))
    except Exception as error:  # a decoder may raise anything on damaged or hostile bytes; each is a reason to leave the picture out
        raise DataError(f"the image cannot be decoded: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The decoder's own words, without the address of the buffer that pillow names."""
    return str(error).split("<_io")[0].strip() or type(error).__name__
