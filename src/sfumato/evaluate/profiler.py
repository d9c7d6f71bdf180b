"""Where the work of a run goes: time, FLOPs and bytes of every operator, by the module that launched it.

torch tells all: a dispatch mode sees each operator with its tensors, torch's own formulas (torch.utils.flop_counter) count its products,
global module hooks say whose it is. Operators are classed by module first and by their own kind second, never by a kernel's name. Any
callable on a CPU or a GPU can be profiled. After Golden et al., arXiv 2312.14385.

FLOPs are those of products (matrix products, convolutions, attention: two for a multiply-add); bytes are what an operator must move at
least once (inputs, weights, outputs), so views move nothing. Time is the operator's own: on a CPU its wall time, on a GPU that between
two events around it. Eager mode only: compiled code merges operators.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

T = TypeVar("T")
Kind = Literal["linear", "attention", "convolution", "norm", "elementwise", "other"]
KINDS: tuple[Kind, ...] = ("linear", "attention", "convolution", "norm", "elementwise", "other")
OUTSIDE = "sampler"

aten = torch.ops.aten
_PRODUCTS = {aten.mm, aten.addmm, aten._scaled_mm}
_BATCHED = {aten.bmm, aten.baddbmm}
_SOFTMAX = {aten._softmax, aten._safe_softmax}
_CONVOLUTIONS = {aten.convolution, aten._convolution, aten.cudnn_convolution}
_NORMS = {aten.native_layer_norm, aten.native_group_norm, aten.native_batch_norm}


@dataclass(frozen=True)
class Work:
    """What something took; sums add up."""

    seconds: float = 0.0
    flops: int = 0
    bytes: int = 0
    calls: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.seconds + other.seconds, self.flops + other.flops, self.bytes + other.bytes, self.calls + other.calls)

    @property
    def intensity(self) -> float:
        """FLOPs a byte."""
        return self.flops / self.bytes if self.bytes else 0.0


@dataclass(frozen=True)
class Row:
    """The work of one kind that one module launched itself. module: "network.blocks.0.attention.core.projections.image.q", say."""

    module: str
    kind: Kind
    work: Work

    @property
    def stage(self) -> str:
        """The name under which the module was given: network, text, codec; "sampler" for what no module launched."""
        return self.module.partition(".")[0]

    @property
    def site(self) -> str:
        """The module three names deep, which for a block's branch is its site."""
        return ".".join(self.module.split(".")[1:4])


@dataclass(frozen=True)
class Length:
    """One attention call. stage, site: as in Row.   queries, keys: how many tokens."""

    stage: str
    site: str
    queries: int
    keys: int


@dataclass(frozen=True)
class Profile:
    """rows: all work by module and kind.   lengths: attention calls in their order.   wall: seconds of the run, watched."""

    rows: tuple[Row, ...]
    lengths: tuple[Length, ...]
    wall: float

    def total(self, keep: Callable[[Row], bool] = lambda row: True) -> Work:
        """The sum over the rows that `keep`."""
        return sum((row.work for row in self.rows if keep(row)), Work())

    def by(self, key: Callable[[Row], T]) -> dict[T, Work]:
        """Sums of equal `key`, in the order of first appearance."""
        sums: dict[T, Work] = {}
        for row in self.rows:
            sums[key(row)] = sums.get(key(row), Work()) + row.work
        return sums

    def shares(self, stage: str | None = None) -> dict[Kind, float]:
        """Each kind's share of the time, of one stage or of all; they add up to 1."""
        seconds = {kind: self.total(lambda r, k=kind: r.kind == k and stage in (None, r.stage)).seconds for kind in KINDS}  # type: ignore[misc]
        whole = sum(seconds.values()) or 1.0
        return {kind: value / whole for kind, value in seconds.items()}


def profile(run: Callable[[], T], modules: Mapping[str, nn.Module]) -> tuple[T, Profile]:
    """What `run()` returns, and where its work went. `modules`: by stage name. What is computed is the same as unwatched, bit for bit."""
    watch = _Watch()
    started = time.perf_counter()
    with _places(modules, watch.stack), watch:
        result = run()
    if watch.pending:
        torch.cuda.synchronize()
    wall = time.perf_counter() - started
    for key, start, end in watch.pending:
        watch.work[key] += Work(seconds=start.elapsed_time(end) / 1000)
    return result, Profile(tuple(Row(*key, work) for key, work in watch.work.items()), tuple(watch.lengths), wall)


@dataclass
class _Place:
    name: str
    module: nn.Module | None = None
    attending: bool = False


@contextmanager
def _places(modules: Mapping[str, nn.Module], stack: list[_Place]) -> Iterator[None]:
    """While open, `stack` ends with the innermost running one of `modules` and their submodules."""
    names = {id(module): f"{stage}.{name}".rstrip(".") for stage, root in modules.items() for name, module in root.named_modules()}

    def enter(module: nn.Module, inputs: Any) -> None:
        if id(module) in names:
            stack.append(_Place(names[id(module)], module, stack[-1].attending or "Attention" in type(module).__name__))

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        if id(module) in names:
            stack.pop()

    handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class _Watch(TorchDispatchMode):
    stack: list[_Place] = field(default_factory=lambda: [_Place(OUTSIDE)])
    work: dict[tuple[str, Kind], Work] = field(default_factory=lambda: defaultdict(Work))
    lengths: list[Length] = field(default_factory=list)
    pending: list[tuple[tuple[str, Kind], Any, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs, packet, place = kwargs or {}, func._overloadpacket, self.stack[-1]
        key = (place.name, _kind(func, packet, place))
        on_gpu = any(isinstance(leaf, Tensor) and leaf.is_cuda for leaf in tree_leaves(args))
        if on_gpu:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
        began = time.perf_counter()
        out = func(*args, **kwargs)
        seconds = 0.0 if on_gpu else time.perf_counter() - began
        if on_gpu:
            end.record()
            self.pending.append((key, start, end))
        self.work[key] += Work(seconds, _flops(packet, args, kwargs, out), 0 if _is_view(func) else _moved(args, kwargs, out), 1)
        if key[1] == "attention" and (lengths := _lengths(packet, args)):
            row = Row(*key, Work())
            self.lengths.append(Length(row.stage, row.site, *lengths))
        return out


def _kind(func: Any, packet: Any, place: _Place) -> Kind:
    if "scaled_dot_product" in str(packet) or (place.attending and packet in _BATCHED | _SOFTMAX):
        return "attention"
    if isinstance(place.module, nn.Linear) or packet in _PRODUCTS | _BATCHED:
        return "linear"
    if packet in _CONVOLUTIONS:
        return "convolution"
    if packet in _NORMS or (place.module is not None and type(place.module).__name__.endswith("Norm")):
        return "norm"
    return "elementwise" if torch.Tag.pointwise in func.tags else "other"


def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    alias = returns[0].alias_info if returns else None
    return func is aten._unsafe_view.default or (alias is not None and not alias.is_write)


def _moved(*trees: Any) -> int:
    """Bytes of all tensors in `trees`; one that is expanded counts as what it stands on."""
    tensors = [leaf for leaf in tree_leaves(trees) if isinstance(leaf, Tensor)]
    return sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in tensors)


def _flops(packet: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    if packet in flop_registry:
        return int(flop_registry[packet](*args, **kwargs, out_val=out))
    if packet is aten._scaled_dot_product_flash_attention_for_cpu:
        return int(sdpa_flop_count(*(x.shape for x in args[:3])))
    if packet is aten._transformer_encoder_layer_fwd:
        # torch's fused encoder layer: q, k, v and output projections, attention, and two linears of its own.
        (batch, length, width), hidden = args[0].shape, args[14].shape[0]
        return int(2 * batch * length * width * (4 * width + 2 * hidden) + 4 * batch * length**2 * width)
    return 0


def _lengths(packet: Any, args: tuple[Any, ...]) -> tuple[int, int] | None:
    if "scaled_dot_product" in str(packet):
        return args[0].shape[-2], args[1].shape[-2]
    return (args[0].shape[-2], args[0].shape[-1]) if packet in _SOFTMAX else None
