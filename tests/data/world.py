"""A tiny world in the packages' own formats: eight icon sets and an emojibase of nine emoji, so that a whole build takes a moment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sfumato.data.packages import STYLES

EMOJI: list[dict[str, Any]] = [
    {"label": "grinning face", "hexcode": "1F600", "group": 0, "tags": ["happy", "smile"]},
    {"label": "red heart", "hexcode": "2764", "group": 0, "tags": ["love"]},
    {"label": "two hearts", "hexcode": "1F495", "group": 0, "tags": []},
    {"label": "flag: Côte d’Ivoire", "hexcode": "1F1E8-1F1EE", "group": 1, "tags": ["CI"]},
    {"label": "flag: Antigua & Barbuda", "hexcode": "1F1E6-1F1EC", "group": 1, "tags": ["AG"]},
    {"label": "police car light", "hexcode": "1F6A8", "group": 1, "tags": ["alarm"]},
    {"label": "woman police officer", "hexcode": "1F46E-200D-2640-FE0F", "group": 1, "tags": ["law"], "gender": 0},
    {"label": "fox", "hexcode": "1F98A", "group": 1, "tags": ["animal"]},
    {
        "label": "waving hand",
        "hexcode": "1F44B",
        "group": 0,
        "tags": ["hello"],
        "skins": [{"label": "waving hand: dark skin tone", "hexcode": "1F44B-1F3FF", "tone": 5}],
    },
]
SQUARE = '<path fill="#{:06x}" d="M1 1h14v14H1z"/>'


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def emojibase(modules: Path) -> Path:
    """Write emojibase-data with English and German labels; returns its folder."""
    folder = modules / "emojibase-data"
    texts = [{**e, "emoji": "?", "subgroup": 0, "skins": [{**s, "emoji": "?"} for s in e.get("skins", [])]} for e in EMOJI]
    _write(folder / "package.json", {"name": "emojibase-data", "version": "17.0.0"})
    _write(folder / "meta" / "groups.json", {"groups": {"0": "smileys", "1": "things"}, "subgroups": {"0": "some"}})
    _write(folder / "meta" / "unicode-names.json", {"2764": "HEAVY BLACK HEART"})
    _write(folder / "en" / "data.json", texts)
    _write(folder / "de" / "data.json", [{"label": f"{e['label']} auf Deutsch", "hexcode": e["hexcode"]} for e in EMOJI])
    _write(folder / "en" / "shortcodes" / "github.json", {"1F600": ["grinning", "+1"]})
    return folder


def make_packages(root: Path, extra: dict[str, str] | None = None) -> Path:
    """Write all packages under `root`/node_modules. Every set draws the same names; `extra` adds icon name -> SVG body to each.

    Only noto has a chars.json, as in life some have none.
    """
    modules = root / "node_modules"
    emojibase(modules)
    names = [
        "grinning-face",
        "red-heart",
        "flag-for-cte-divoire",
        "flag-for-antigua-and-barbuda",
        "police-car-light",
        "police-car",
        "womanpoliceofficer",
        "fox",
        "waving-hand",
        "waving-hand-dark-skin-tone",
    ]
    for index, style in enumerate(STYLES):
        icons = {name: {"body": SQUARE.format((index * 40503 + i * 7919 + 0x304050) % 0xFFFFFF)} for i, name in enumerate(names)}
        icons |= {name: {"body": body} for name, body in (extra or {}).items()}
        folder = modules / style.package
        _write(folder / "package.json", {"version": style.version})
        _write(folder / "info.json", {"license": {"spdx": style.licence}})
        _write(folder / "icons.json", {"icons": icons, "aliases": {"grin": {"parent": "grinning-face"}}, "width": 16, "height": 16})
        if style.word == "noto":
            _write(folder / "chars.json", {"1f600": "grinning-face", "2764": "red-heart", "1f44b-1f3ff": "waving-hand-dark-skin-tone"})
    return modules
