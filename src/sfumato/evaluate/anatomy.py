"""The anatomy of a pipeline: its blocks and branches, what each weighs and what one evaluation of it costs.

Costs are counted, not estimated: the network runs once, for one row, under the profiler.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..core.config import to_dict
from ..core.errors import UsageError
from ..core.svg import COLOURS, document, label, si
from ..pipelines import TextToImage
from .profiler import Profile, profile

if TYPE_CHECKING:
    from rich.table import Table

ITEMSIZES = {"float32": 4, "bfloat16": 2, "int8": 1, "int4": 0.5}


@dataclass(frozen=True)
class Part:
    """A component. dtypes: bytes of its weights as they are loaded, by dtype.   bytes_as: what all of them would take in each dtype."""

    name: str
    kind: str
    parameters: int
    dtypes: dict[str, int]
    bytes_as: dict[str, float]


@dataclass(frozen=True)
class SiteRow:
    """A branch of a block. units: "5 heads", say.   flops: of one row in one evaluation, modulation included."""

    block: int
    branch: str
    streams: tuple[str, ...]
    units: str
    parameters: int
    flops: int


@dataclass(frozen=True)
class Anatomy:
    """size: (height, width) in pixels.   tokens: by stream.   flops: of one row in one evaluation, everything included.

    lanes: evaluations a guided step makes.
    """

    model: str
    family: str
    size: tuple[int, int]
    tokens: dict[str, int]
    parts: tuple[Part, ...]
    sites: tuple[SiteRow, ...]
    flops: int
    lanes: int
    steps: int

    @property
    def outside(self) -> int:
        """FLOPs of an evaluation outside the blocks' branches: embeddings and head."""
        return self.flops - sum(site.flops for site in self.sites)

    def record(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {**to_dict(self), "flops_outside_the_blocks": self.outside, "flops_per_guided_step": self.flops * self.lanes}

    def tables(self) -> tuple[Table, Table]:
        """The components and the branches, for people."""
        weights = _table(self.model, "component", "kind", "parameters", "in memory", *(f"as {name}" for name in ITEMSIZES))
        for part in self.parts:
            held = ", ".join(f"{si(size, 'B')} {name}" for name, size in part.dtypes.items())
            weights.add_row(part.name, part.kind, si(part.parameters), held, *(si(part.bytes_as[name], "B") for name in ITEMSIZES))
        tokens = " + ".join(f"{count} {name}" for name, count in self.tokens.items())
        title = f"{self.family} at {self.size[1]}x{self.size[0]}, {tokens} tokens, one row"
        branches = _table(title, "site", "streams", "units", "parameters", "FLOPs", "share")
        branches.columns[0].no_wrap = True  # a site's name stays whole
        for site in self.sites:
            share = f"{site.flops / self.flops:.1%}"
            name = f"blocks.{site.block}.{site.branch}"
            branches.add_row(name, ", ".join(site.streams), site.units, si(site.parameters), si(site.flops), share)
        branches.add_row("embeddings and head", "", "", "", si(self.outside), f"{self.outside / self.flops:.1%}")
        branches.add_section()
        branches.add_row("an evaluation", "", "", "", si(self.flops), "100.0%")
        branches.add_row("a guided step", "", f"{self.lanes} evaluations", "", si(self.flops * self.lanes), "")
        branches.add_row("a picture", "", f"{self.steps} steps", "", si(self.flops * self.lanes * self.steps), "")
        return weights, branches

    def svg(self) -> str:
        """A row for each block, a box for each branch as wide as its FLOPs."""
        blocks = sorted({site.block for site in self.sites})
        colours = dict(zip(dict.fromkeys(site.branch for site in self.sites), COLOURS * 8, strict=False))
        widest = max(sum(s.flops for s in self.sites if s.block == b) for b in blocks)
        width, left, top, tall = 760, 70, 78, 26
        network = next(part for part in self.parts if part.name == "network")
        tokens = " + ".join(f"{count} {name}" for name, count in self.tokens.items())
        facts = f"{si(network.parameters)} parameters · {si(self.flops)}FLOPs an evaluation · {tokens} tokens"
        parts = [label(12, 22, f"{self.model}: {self.family}", "start", 'font-size="15" font-weight="bold"'), label(12, 40, facts, "start")]
        parts += [label(left + 130 * i, 64, f"■ {name}", "start", f'fill="{c}"') for i, (name, c) in enumerate(colours.items())]
        for row, block in enumerate(blocks):
            x, y = float(left), top + row * tall
            parts.append(label(left - 8, y + 15, f"block {block}", "end"))
            for site in (s for s in self.sites if s.block == block):
                wide = (width - left - 16) * site.flops / widest
                box = f'<rect x="{x:.1f}" y="{y}" width="{max(wide - 2, 1):.1f}" height="{tall - 4}" rx="3" fill="{colours[site.branch]}"/>'
                said = f"{si(site.flops)}FLOPs · {si(site.parameters)} parameters"
                parts += [box, label(x + 6, y + 15, said, "start", 'fill="white"')] if wide > 7 * len(said) else [box]
                x += wide
        y = top + len(blocks) * tall + 16
        parts.append(label(left, y, "width of a box: FLOPs of one row in one evaluation", "start", 'fill="#666"'))
        return document(width, y + 14, parts)


def anatomy(pipe: TextToImage, size: tuple[int, int] | None = None, text_tokens: int | None = None) -> Anatomy:
    """Count everything for a picture of `size` (height, width), None = the model's own, and a prompt of `text_tokens` tokens, None = 16, or
    none where prompts are classes.

    Raises `UsageError` for an impossible size, for a prompt that the text encoder could not read, and for a count that changes nothing.
    """
    most, asked = pipe.encoder.max_tokens, text_tokens is not None
    if text_tokens is None:
        text_tokens = min(16, most)
    elif not 3 <= text_tokens <= most:
        raise UsageError(f"{text_tokens} text tokens", f"from 3 to {most}, what this text encoder reads" if most else "prompts are classes")
    size, net = pipe.possible_size(size or pipe.defaults.size), pipe.denoiser.net
    if asked and _read(pipe, size, text_tokens) == _read(pipe, size, text_tokens + (1 if text_tokens < most else -1)):
        raise UsageError(f"{text_tokens} text tokens", "this model reads every prompt at one length, however short; leave --tokens out")
    tokens, seen = evaluation(pipe, size, text_tokens)
    flops = {site: work.flops for site, work in seen.by(lambda row: row.site).items()}
    counted = {name: p.numel() for name, p in net.named_parameters()}
    sites = tuple(
        SiteRow(
            info.site.block,
            info.site.branch,
            info.streams,
            ", ".join(f"{unit.count} {unit.kind}" for unit in info.units),
            sum(counted[name] for name in info.parameters),
            flops.get(str(info.site), 0),
        )
        for info in net.sites()
    )
    return Anatomy(
        model=pipe.identity.get("name", type(net).__name__),
        family=type(net).__name__,
        size=size,
        tokens=tokens,
        parts=tuple(_part(name, module) for name, module in pipe.modules().items()),
        sites=sites,
        flops=seen.total().flops,
        lanes=1 if (pipe.defaults.cfg if pipe.told_guidance else pipe.defaults.guidance) == 1.0 else 2,
        steps=pipe.defaults.steps,
    )


def evaluation(pipe: TextToImage, size: tuple[int, int], text_tokens: int) -> tuple[dict[str, int], Profile]:
    """(tokens by stream, the profile) of one evaluation of the network for one row of noise."""
    net, (streams, cond) = pipe.denoiser.net, pipe.example(size, text_tokens)
    with torch.no_grad():
        _, seen = profile(lambda: net(streams, cond), {"network": net})
        tokens = {name: stream.x.shape[1] for name, stream in net.start(streams, cond).streams.items()}
    return tokens, seen


def _read(pipe: TextToImage, size: tuple[int, int], text_tokens: int) -> tuple[list[torch.Size], list[torch.Size]]:
    """The shapes of what the network reads of such a prompt, as streams and as conditions."""
    streams, cond = pipe.example(size, text_tokens)
    return [stream.x.shape for stream in streams.values()], [tokens.states.shape for tokens in cond.tokens.values()]


def _table(title: str, *headings: str) -> Table:
    """A table that cuts nothing on a narrow terminal: it breaks what does not fit."""
    from rich.table import Table

    table = Table(title=title)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _part(name: str, module: nn.Module) -> Part:
    dtypes: dict[str, int] = {}
    for p in module.parameters():
        key = str(p.dtype).removeprefix("torch.")
        dtypes[key] = dtypes.get(key, 0) + p.numel() * p.element_size()
    count = sum(p.numel() for p in module.parameters())
    return Part(name, type(module).__name__, count, dtypes, {kind: math.ceil(size * count) for kind, size in ITEMSIZES.items()})
