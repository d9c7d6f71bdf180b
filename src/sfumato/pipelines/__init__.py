"""Pipelines: named components and ordered passes. `load` is the way in."""

from .folder import load, shipped
from .text_to_image import Defaults, Pictures, TextToImage

__all__ = ["Defaults", "Pictures", "TextToImage", "load", "shipped"]
