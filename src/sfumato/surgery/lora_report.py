"""What a LoRA file holds, held against a network: every key is matched or named with the reason why it is not. Touches nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SHOWN = 24  # kinds of modules


@dataclass(frozen=True)
class Match:
    """A module of the file and the Linears of ours that it changes: several where the file's model holds them fused."""

    module: str
    linears: tuple[str, ...]
    rank: int
    alpha: float


@dataclass(frozen=True)
class Report:
    """file: its path.   family: of the network.   naming: in words.   matched: what acts.   missing: Linears that the file leaves alone.
    extra: keys that act on nothing here, with the reason.   texts: what acts in text encoders. Printed, it says so in words.
    """

    file: str
    family: str
    naming: str
    matched: tuple[Match, ...]
    missing: tuple[str, ...]
    extra: Mapping[str, str]
    texts: tuple[Match, ...] = ()

    @property
    def linears(self) -> tuple[str, ...]:
        """Ours that the file changes."""
        return tuple(name for match in self.matched for name in match.linears)

    @property
    def summary(self) -> str:
        """One line."""
        changed, all_ = len(self.linears), len(self.linears) + len(self.missing)
        rank, alpha = (_span(getattr(m, field) for m in (*self.matched, *self.texts)) for field in ("rank", "alpha"))
        beside = f" and {len(self.texts)} of its text encoders" if self.texts else ""
        changes = f"changes {changed} of {all_} Linears of this {self.family}{beside}"
        return f"{self.file}: {self.naming} naming, {changes}, rank {rank}, alpha {alpha}"

    def reasons(self) -> list[str]:
        """Why keys act on nothing: a line for each reason, with how many and the first."""
        counts = Counter(self.extra.values())
        first = {why: key for key, why in reversed(list(self.extra.items()))}
        return [f"{count} {'keys' if count > 1 else 'key'}: {why} (such as {first[why]})" for why, count in counts.items()]

    def record(self) -> dict[str, Any]:
        """Everything as JSON values."""
        matched, texts = (
            [{"module": m.module, "linears": list(m.linears), "rank": m.rank, "alpha": m.alpha} for m in matches]
            for matches in (self.matched, self.texts)
        )
        told = {"file": self.file, "family": self.family, "naming": self.naming}
        return {**told, "matched": matched, "texts": texts, "missing": list(self.missing), "extra": dict(self.extra)}

    def __str__(self) -> str:
        blocks = [self.summary]
        for title, lines in (
            ("changed", _kinds(self.linears)),
            ("changed in text encoders", _kinds(name for match in self.texts for name in match.linears)),
            ("left alone", _kinds(self.missing)),
            ("acting on nothing", self.reasons()),
        ):
            if lines:
                more = [f"... and {len(lines) - SHOWN} more kinds"] if len(lines) > SHOWN else []
                blocks.append("\n".join([f"{title}:", *(f"  {line}" for line in [*lines[:SHOWN], *more])]))
        return "\n".join(blocks)


def _kinds(names: Iterable[str]) -> list[str]:
    """Names that differ in their block's number alone, as one line with their count."""
    counts = Counter(re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names)
    return [kind if count == 1 else f"{kind} ({count})" for kind, count in counts.items()]


def _span(values: Iterable[float]) -> str:
    """One number, or the range of several."""
    found = sorted(set(values))
    return "none" if not found else f"{found[0]:g}" if len(found) == 1 else f"{found[0]:g} to {found[-1]:g}"
