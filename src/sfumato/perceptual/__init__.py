"""How alike two pictures look, as a number that a network can learn from.

A small network trained here, apart from the judge and the critic: what optimises a score must not be rated by it. May touch `core/` only.
"""

from .net import PerceptualConfig, PerceptualNet
from .perceptual import Perceptual

__all__ = ["Perceptual", "PerceptualConfig", "PerceptualNet"]
