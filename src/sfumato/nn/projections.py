"""What attention is made of before and after its softmax: its shape, the Linears of queries, keys, values and output, and their norms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from ..core.attention import Heads
from ..core.call import Call
from ..core.errors import ConfigError, UsageError
from ..core.state import Stream
from .grids import plane, tokens
from .linear import Linear
from .norms import LayerNorm, RMSNorm


@dataclass(frozen=True)
class AttentionShape:
    """`width` = `heads` * head width. `qk_norm`: q and k are normalised, for bounded bf16 logits. `bias`: of q, k, v; `out_bias`: of out.

    norm: "rms" of each head; "rms across" and "layer across" of all heads at once, before they are split, "bare layer across" without gain
    and shift.   kv_heads: of keys and values, each serving heads / kv_heads queries (grouped queries; Ainslie et al., arXiv 2305.13245);
    0 = heads.   eps: of the norms.   outer: width of the tokens that queries come from and the output returns to; 0 = width.
    """

    width: int
    heads: int
    qk_norm: bool = True
    bias: bool = True
    norm: Literal["rms", "rms across", "layer across", "bare layer across"] = "rms"
    kv_heads: int = 0
    out_bias: bool = True
    eps: float = 1e-6
    outer: int = 0

    def __post_init__(self) -> None:
        if self.width % self.heads or self.heads % self.groups:
            raise ConfigError(
                f"width is {self.width}, heads {self.heads}, kv_heads {self.kv_heads}", "the width divides into heads, heads into kv_heads"
            )

    @property
    def groups(self) -> int:
        """Heads of keys and values."""
        return self.kv_heads or self.heads

    @property
    def kv_width(self) -> int:
        return self.groups * self.width // self.heads

    @property
    def coupled(self) -> bool:
        """Whether a norm reads all heads at once, see `Units`."""
        return self.qk_norm and self.norm != "rms"

    @property
    def width_in(self) -> int:
        """Of the tokens that queries come from."""
        return self.outer or self.width

    def cost(self, queries: int, keys: int) -> int:
        """Multiply-adds of one softmax, projections not counted."""
        return 2 * queries * keys * self.width

    @property
    def projecting(self) -> int:
        """Multiply-adds of a token's q, k, v and output."""
        return 2 * self.width_in * (self.width + self.kv_width)

    def normed(self, width: int) -> nn.Module:
        """The norm of a q or k that is `width` wide before it is split."""
        if not self.qk_norm:
            return nn.Identity()
        if self.norm == "rms":
            return RMSNorm(self.width // self.heads, self.eps)
        across = {"rms across": RMSNorm, "layer across": nn.LayerNorm, "bare layer across": LayerNorm}
        return across[self.norm](width, self.eps)

    def split(self, x: Tensor, norm: nn.Module | None = None, repeat: bool = False) -> Tensor:
        """(B, N, heads d) to (B, heads, N, d), normed. `repeat`: keys or values, of which a head comes once for each query that it serves.

        Heads are counted, not assumed: a surgery may have removed some.
        """
        if norm is not None and self.norm != "rms":
            x = norm(x).to(x.dtype)
        heads = x.unflatten(-1, (-1, self.width // self.heads)).transpose(1, 2)
        if norm is not None and self.norm == "rms":
            heads = norm(heads).to(x.dtype)  # norms may come back in fp32 under autocast; attention wants one type
        return heads.repeat_interleave(self.heads // self.groups, dim=1) if repeat and self.groups < self.heads else heads


class Reducer(nn.Module):
    """Keys or values of a token grid, `ratio` x `ratio` to one: depth-wise convolution, then LayerNorm (PixArt-Sigma, arXiv 2403.04692).

    One reducer serves keys and values. It starts as the average, so that a trained network keeps working ("Conv Avg").
    """

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, ratio, ratio, groups=width)
        self.norm = nn.LayerNorm(width)
        self.ratio = ratio
        nn.init.constant_(self.conv.weight, 1.0 / ratio**2)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor, grid: tuple[int, ...]) -> Tensor:
        """(B, N, D) to (B, N / ratio^2, D). `UsageError` when the grid does not divide: a strided convolution would drop its edge."""
        if any(side % self.ratio for side in grid):
            raise UsageError(
                f"a grid of {grid[0]} x {grid[1]} tokens does not divide by {self.ratio}",
                f"sides that are multiples of {self.ratio} tokens",
            )
        y = tokens(self.conv(plane(x, grid)))
        with torch.autocast(x.device.type, enabled=False):
            return layer_norm(y, self.norm.normalized_shape, self.norm.weight.to(y), self.norm.bias.to(y), self.norm.eps)


class Projections(nn.Module):
    """One role's q, k, v and output Linears and its q/k norms. `output` False: read by others, gives nothing (SD3's last text stream).

    `ratio` > 1: keys and values are reduced by that much each way before they are split into heads.
    """

    def __init__(self, shape: AttentionShape, output: bool = True, ratio: int = 1) -> None:
        super().__init__()
        self.shape = shape
        self.q = Linear(shape.width_in, shape.width, "q", bias=shape.bias)
        self.k, self.v = (Linear(shape.width_in, shape.kv_width, role, bias=shape.bias) for role in ("k", "v"))
        self.out = Linear(shape.width, shape.width_in, "out", bias=shape.out_bias) if output else None
        self.q_norm, self.k_norm = shape.normed(shape.width), shape.normed(shape.kv_width)
        self.reduce = Reducer(shape.width, ratio) if ratio > 1 else None

    def slices(self, prefix: str) -> dict[str, tuple[int, int]]:
        """What each unit owns, under the parameter names that begin with `prefix`: (dimension, entries). A unit is a head of keys and
        values with its queries; an "rms" norm serves all of them.
        """
        shared = ("out",) if self.shape.norm != "rms" else ("out", "q_norm", "k_norm")
        owned = {
            f"{prefix}.{name}": (0, len(parameter) // self.shape.groups)
            for name, parameter in self.named_parameters()
            if name.split(".")[0] not in shared
        }
        return owned if self.out is None else owned | {f"{prefix}.out.weight": (1, self.shape.width // self.shape.groups)}

    def project(self, x: Tensor, stream: Stream, call: Call | None) -> Heads:
        """x (B, N, D) as heads."""
        return self.split(self.q(x, call), self.k(x, call), self.v(x, call), stream)

    def written(self, x: Tensor, call: Call | None) -> Tensor:
        """What was heard, (B, N, heads d), as tokens (B, N, D)."""
        assert self.out is not None
        y: Tensor = self.out(x, call)
        return y

    def split(self, q: Tensor, k: Tensor, v: Tensor, stream: Stream) -> Heads:
        """Heads of what was projected from `stream`."""
        if self.reduce is not None:
            if stream.whole_grid is None or stream.keep is not None or stream.pos is not None:
                raise UsageError("keys and values are reduced on a whole grid of tokens", "a stream with a grid, without mask or positions")
            k, v = self.reduce(k, stream.whole_grid).to(v.dtype), self.reduce(v, stream.whole_grid).to(v.dtype)
        split = self.shape.split
        return Heads(split(q, self.q_norm), split(k, self.k_norm, True), split(v, repeat=True), stream.keep, stream.pos, stream.whole_grid)


Weights = TypeVar("Weights", bound=nn.Module)


def at_once(inputs: Mapping[str, Tensor], compute: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """`compute` of every stream's tokens (B, N, D), all as one product."""
    if len(inputs) == 1:
        return {n: compute(x) for n, x in inputs.items()}
    y = compute(torch.cat(list(inputs.values()), dim=1))
    return dict(zip(inputs, y.split([x.shape[1] for x in inputs.values()], dim=1), strict=True))


def by_weights(
    own: Mapping[str, Weights], inputs: Mapping[str, Tensor], compute: Callable[[Weights, Tensor], Sequence[Tensor]]
) -> dict[str, tuple[Tensor, ...]]:
    """`compute(own[n], x)` of every stream's tokens x (B, N, D). Streams under the same weights are one product, which reads those once."""
    sharing: dict[Weights, list[str]] = {}
    for name in inputs:
        sharing.setdefault(own[name], []).append(name)
    found: dict[str, tuple[Tensor, ...]] = {}
    for weights, names in sharing.items():
        joined = inputs[names[0]] if len(names) == 1 else torch.cat([inputs[n] for n in names], dim=1)
        lengths = [inputs[n].shape[1] for n in names]
        parts = (y.split(lengths, dim=1) for y in compute(weights, joined))
        found |= zip(names, zip(*parts, strict=True), strict=True)
    return {n: found[n] for n in inputs}
