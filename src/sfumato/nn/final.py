"""The last layer of a network over patches: a norm, shift and scale by the condition, a Linear, and tokens laid out as a picture (DiT;
Peebles and Xie, arXiv 2212.09748).

A function, not a module: norm, modulation and Linear are the network's own, under the names its published weights are read by.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..core.call import Call
from ..core.state import Stream
from .embeddings import unpatchify
from .linear import Linear
from .modulation import modulate
from .rewires import scattered


def finished(image: Stream, norm: nn.Module, vectors: Sequence[Tensor], final: Linear, patch: int, call: Call | None) -> Tensor:
    """(B, C, rows * patch, columns * patch). `vectors`: shift and scale. Cells whose tokens were left out are zero."""
    shift, scale = vectors
    assert image.grid is not None
    return unpatchify(scattered(final(modulate(norm(image.x), shift, scale), call), image), image.grid, patch)
