"""A profile as people read it: tables, a chart (shares, roofline, lengths) and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.config import to_dict
from ..core.svg import COLOURS, document, label, shifted, si
from .profiler import KINDS, Kind, Profile, Row, Work
from .roofline import Machine

if TYPE_CHECKING:
    from rich.table import Table

TINTS: Mapping[Kind, str] = dict(zip(KINDS, COLOURS, strict=True))
LEFT, WIDTH, TOP, INNER = 70, 560, 40, 220


@dataclass(frozen=True)
class ProfileReport:
    """title: what was profiled.   seconds: the same run unwatched.   settings: how it was run."""

    title: str
    profile: Profile
    machine: Machine
    seconds: float
    settings: Mapping[str, Any]

    @property
    def busy(self) -> float:
        """Seconds within operators; what an unwatched run takes beyond them is spent between operators (Python, launches)."""
        return self.profile.total().seconds

    def record(self) -> dict[str, Any]:
        """All of it as JSON values."""
        p = self.profile
        return {
            "title": self.title,
            "settings": dict(self.settings),
            "seconds": self.seconds,
            "seconds_watched": p.wall,
            "seconds_in_operators": self.busy,
            "machine": {**to_dict(self.machine), "ridge": self.machine.ridge},
            "kinds": {kind: _numbers(p.total(lambda r, k=kind: r.kind == k)) for kind in KINDS},  # type: ignore[misc]
            "shares": p.shares(),
            "stages": {stage: {**_numbers(work), "shares": p.shares(stage)} for stage, work in p.by(_stage).items()},
            "sites": {f"{stage}.{site}": _numbers(work) for (stage, site), work in p.by(lambda r: (r.stage, r.site)).items()},
            "lengths": [to_dict(length) for length in p.lengths],
        }

    def tables(self, sites: int = 12) -> tuple[Table, Table]:
        """By kind of operator within each stage, and the `sites` that took longest."""
        from rich.table import Table

        whole, p = self.busy or 1.0, self.profile
        kinds = Table("stage", "operators", "time", "share", "FLOPs", "bytes", "FLOPs/B", "FLOPs/s", title=self.title)
        for stage in p.by(_stage):
            for kind in KINDS:
                work = p.total(lambda r, s=stage, k=kind: (r.stage, r.kind) == (s, k))  # type: ignore[misc]
                if work.calls:
                    kinds.add_row(stage, kind, *_cells(work, whole))
        kinds.add_section()
        kinds.add_row("all", "", *_cells(p.total(), whole))
        longest = sorted(p.by(lambda r: (r.stage, r.site)).items(), key=lambda item: -item[1].seconds)[:sites]
        top = Table("site", "time", "share", "FLOPs", "bytes", "FLOPs/B", "FLOPs/s", title=f"the {len(longest)} sites that took longest")
        for (stage, site), work in longest:
            top.add_row(f"{stage}.{site}".rstrip("."), *_cells(work, whole))
        return kinds, top

    def svg(self) -> str:
        """Three panels, one below the other."""
        panels = (self._shares(), self._roofline(), self._lengths())
        heights = (TOP + 34 * len(self.profile.by(_stage)) + 24, TOP + INNER + 56, TOP + INNER // 2 + 50)
        placed, y = [], 34.0
        for panel, height in zip(panels, heights, strict=True):
            placed.append(shifted(0, y, panel))
            y += height
        head = label(12, 22, self.title, "start", 'font-size="14" font-weight="bold"')
        return document(LEFT + WIDTH + 20, y, [head, *placed])

    def _shares(self) -> str:
        """A bar for each stage, as long as its share of all time, parted by kind."""
        p, whole = self.profile, self.busy or 1.0
        parts = [label(12, 14, "time in operators", "start", 'font-weight="bold"')]
        parts += [label(LEFT + 92 * i, 30, f"■ {k}", "start", f'fill="{TINTS[k]}"') for i, k in enumerate(KINDS)]
        for row, (stage, work) in enumerate(p.by(_stage).items()):
            x, y = float(LEFT), TOP + 34 * row
            parts.append(label(LEFT - 8, y + 16, stage, "end"))
            for kind in KINDS:
                seconds = p.total(lambda r, s=stage, k=kind: (r.stage, r.kind) == (s, k)).seconds  # type: ignore[misc]
                wide = (WIDTH - 90) * seconds / whole
                parts.append(f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="24" fill="{TINTS[kind]}"/>')
                if wide > 34:
                    parts.append(label(x + wide / 2, y + 16, f"{seconds / whole:.0%}", more='fill="white"'))
                x += wide
            parts.append(label(x + 6, y + 16, f"{1000 * work.seconds:,.0f} ms", "start"))
        return "".join(parts)

    def _roofline(self) -> str:
        """Each site's products: what they reach against what their intensity allows, both axes in decades."""
        found = {key: work for key, work in self.profile.by(lambda r: (r.stage, r.site, r.kind)).items() if work.flops and work.seconds}
        speeds = [work.flops / work.seconds for work in found.values()] + [self.machine.flops]
        intensities = [work.intensity for work in found.values()] + [self.machine.ridge]
        x0, x1 = math.floor(math.log10(min(intensities))), math.ceil(math.log10(max(intensities) * 2))
        y0, y1 = math.floor(math.log10(min(speeds))), math.ceil(math.log10(max(speeds)))

        def across(value: float) -> float:
            return LEFT + WIDTH * (math.log10(value) - x0) / (x1 - x0)

        def up(value: float) -> float:
            return TOP + INNER * (y1 - math.log10(value)) / (y1 - y0)

        m = self.machine
        said = f"{m.name}: {si(m.flops, 'FLOP/s')}, {si(m.bandwidth, 'B/s')}, ridge {m.ridge:.3g} FLOP/B"
        parts = [label(12, 14, "roofline", "start", 'font-weight="bold"'), label(LEFT, 14, said, "start", 'fill="#666"')]
        for k in range(x0, x1 + 1):
            parts.append(f'<path d="M{across(10.0**k):.1f} {TOP}V{TOP + INNER}" stroke="#ddd"/>')
            parts.append(label(across(10.0**k), TOP + INNER + 15, f"{10.0**k:g}"))
        for k in range(y0, y1 + 1):
            parts.append(f'<path d="M{LEFT} {up(10.0**k):.1f}H{LEFT + WIDTH}" stroke="#ddd"/>')
            parts.append(label(LEFT - 6, up(10.0**k) + 4, si(10.0**k), "end"))
        low = max(10.0**x0, 10.0**y0 / self.machine.bandwidth)
        corners = [(low, self.machine.attainable(low)), (self.machine.ridge, self.machine.flops), (10.0**x1, self.machine.flops)]
        line = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in corners)
        parts.append(f'<polyline points="{line}" fill="none" stroke="#444" stroke-width="1.5"/>')
        whole = self.busy or 1.0
        for (_, _, kind), work in found.items():
            size = max(2.0, 26 * math.sqrt(work.seconds / whole))
            at = f'cx="{across(work.intensity):.1f}" cy="{up(work.flops / work.seconds):.1f}"'
            parts.append(f'<circle {at} r="{size:.1f}" fill="{TINTS[kind]}" fill-opacity="0.55"/>')
        parts.append(label(LEFT + WIDTH / 2, TOP + INNER + 32, "FLOPs a byte; a dot is a site's products of one kind, its area their time"))
        return "".join(parts)

    def _lengths(self) -> str:
        """Keys of every attention call, in the order of the calls."""
        lengths, inner = self.profile.lengths, INNER // 2
        parts = [label(12, 14, "sequence length", "start", 'font-weight="bold"')]
        if not lengths:
            return "".join([*parts, label(LEFT, TOP + 10, "no attention was computed", "start")])
        most = max(length.keys for length in lengths)
        for k in range(3):
            y = TOP + inner * (1 - k / 2)
            parts += [f'<path d="M{LEFT} {y:.1f}H{LEFT + WIDTH}" stroke="#ddd"/>', label(LEFT - 6, y + 4, f"{most * k / 2:g}", "end")]
        step = WIDTH / len(lengths)
        path = "".join(
            f"{'M' if i == 0 else 'L'}{LEFT + i * step:.1f} {TOP + inner * (1 - length.keys / most):.1f}h{step:.2f}"
            for i, length in enumerate(lengths)
        )
        parts.append(f'<path d="{path}" fill="none" stroke="{TINTS["attention"]}" stroke-width="1.6"/>')
        parts.append(label(LEFT + WIDTH / 2, TOP + inner + 18, f"{len(lengths)} attention calls in their order; height: keys"))
        return "".join(parts)


def _stage(row: Row) -> str:
    return row.stage


def _numbers(work: Work) -> dict[str, float]:
    return {**to_dict(work), "intensity": work.intensity}


def _cells(work: Work, whole: float) -> tuple[str, ...]:
    speed = si(work.flops / work.seconds) if work.flops and work.seconds else ""
    counts = (si(work.flops) if work.flops else "", si(work.bytes, "B"), f"{work.intensity:.3g}" if work.flops else "")
    return (f"{1000 * work.seconds:.1f} ms", f"{work.seconds / whole:.1%}", *counts, speed)
