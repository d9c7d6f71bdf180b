"""Icon sets -> drawings: every icon joined to its emoji, as a self-contained SVG, before anything is rendered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .names import Entry, Names, bare_hexcode, split_tone
from .packages import LESSONS, IconSet, Style


@dataclass(frozen=True)
class Drawing:
    """One icon of one set. `joined` tells whether its concept is a Unicode label or only the icon's own name."""

    style: Style
    version: str
    name: str
    entry: Entry
    svg: str
    joined: bool

    @property
    def id(self) -> str:
        return f"{self.style.slug}/{self.name}"


@dataclass
class Drawings:
    """The drawings of all sets in order, and what was left out: quarantined (id, reason) pairs and exact duplicates."""

    drawings: list[Drawing] = field(default_factory=list)
    quarantine: list[tuple[str, str]] = field(default_factory=list)
    duplicates: dict[str, int] = field(default_factory=dict)


def collect(
    sets: Sequence[IconSet], emojibase: Path, styles: Sequence[Style], *, skin_tones: bool, concepts: Iterable[str] | None = None
) -> Drawings:
    """Join the icons of `styles`, with the names that all `sets` and the package folder `emojibase` teach.

    Without `skin_tones` toned icons are left out; `concepts` keeps only those labels (and has nothing to quarantine).
    """
    # A set for judges alone teaches no names: the others' must not hang on whether it is drawn.
    teachers = [icon_set for icon_set in sets if icon_set.style not in LESSONS]
    aliases = ((alias, to["parent"]) for icon_set in teachers for alias, to in icon_set.icons.get("aliases", {}).items())
    names = Names(emojibase, [icon_set.chars for icon_set in teachers], aliases)
    wanted = None if concepts is None else frozenset(concepts)
    result = Drawings()
    for icon_set in sets:
        if icon_set.style not in styles:
            continue
        _collect_set(icon_set, names, skin_tones, wanted, result)
    return result


def _collect_set(icon_set: IconSet, names: Names, skin_tones: bool, wanted: frozenset[str] | None, result: Drawings) -> None:
    icons, style = icon_set.icons["icons"], icon_set.style
    hexcodes = {name: hexcode for hexcode, name in icon_set.chars.items()}
    found: list[Drawing] = []
    for name in sorted(icons):
        whole = names.by_name(name)  # `police-car-light` is a lamp, although `police-car` is an icon too
        base, tone = (name, "") if whole and not whole.skin_tone else split_tone(name, icons)
        hexcode = hexcodes.get(name, "")
        toned = bool(tone) or any(0x1F3FB <= int(part, 16) <= 0x1F3FF for part in hexcode.split("-")[1:])
        if toned and not skin_tones:
            continue
        entry, reason = _entry(names, base, tone, hexcode, bool(icons[name].get("hidden")))
        if entry is None and wanted is None:
            result.quarantine.append((f"{style.slug}/{name}", reason))
        elif entry is not None and (wanted is None or entry.label in wanted):
            found.append(Drawing(style, icon_set.version, name, entry, svg_of(icons[name], icon_set.icons), not reason))
    kept = _without_duplicates(found)
    result.duplicates[style.word] = len(found) - len(kept)
    result.drawings += kept


def _entry(names: Names, base: str, tone: str, hexcode: str, hidden: bool) -> tuple[Entry | None, str]:
    """(entry, "") when joined, (entry, why not) when only the icon's own name is known, (None, why) when it must be left out."""
    entry = (names.by_hexcode(hexcode) if hexcode else None) or names.by_name(base)
    if entry is not None:
        changed = {"skin_tone": tone} if tone and not entry.skin_tone else {}
        return Entry(**{**entry.__dict__, **changed}), ""
    if hidden:
        return None, "withdrawn by its set, and its name is no emoji's"
    # With a code point the set knows what it draws, and its hyphens part the words; without one only known words can be trusted.
    words = base.replace("-", " ") if hexcode else names.words(base)
    if words is None:
        return None, f"the name {base!r} is no emoji's nor a row of known words"
    emoji = "".join(chr(int(part, 16)) for part in hexcode.split("-")) if hexcode else ""
    return Entry(words, bare_hexcode(hexcode) if hexcode else "", emoji, "extra", "extra", skin_tone=tone), "named by the set alone"


def _without_duplicates(found: list[Drawing]) -> list[Drawing]:
    """One drawing per distinct SVG: the same picture under two concepts (the flags of Norway and Bouvet Island) could fall into train and
    test. Joined names come first, then the shorter label, which is the better known thing.
    """
    first: dict[str, Drawing] = {}
    for drawing in sorted(found, key=lambda d: (not d.joined, len(d.entry.label), d.name)):
        first.setdefault(hashlib.sha256(drawing.svg.encode()).hexdigest(), drawing)
    return sorted(first.values(), key=lambda d: d.name)


def svg_of(icon: dict[str, Any], defaults: dict[str, Any]) -> str:
    """A square, self-contained SVG of an icon: its box (icon's own, else the set's, else 16) centred in a square view."""
    left, top, width, height = (
        float(icon.get(side, defaults.get(side, otherwise))) for side, otherwise in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    side = max(width, height)
    box = " ".join(f"{value:g}" for value in (left - (side - width) / 2, top - (side - height) / 2, side, side))
    return f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box}">{icon["body"]}</svg>'
