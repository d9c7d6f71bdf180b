"""Pipelines: named components and ordered passes. `load` is the way in."""

from .best_of import Best, BestOf, Scorer
from .folder import load, shipped
from .going_on import Refined, redraw
from .pictures import Pictures
from .settings import Defaults
from .text_to_image import TextToImage

__all__ = ["Best", "BestOf", "Defaults", "Pictures", "Refined", "Scorer", "TextToImage", "load", "redraw", "shipped"]
