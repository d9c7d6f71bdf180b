"""From an icon's name or code points to the Unicode emoji it draws.

Icon sets name their drawings in their own ways (`flag-germany`, `flag-for-flag-germany`, `2hearts`, `womanpoliceofficer`). Here every
name is reduced to a `key` (letters and digits alone), and one table of keys, filled from the Unicode labels outwards to the
looser sources (other sets' code points, shortcodes, character names), answers for all of them. Touches only emojibase-data's JSON.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sfumato.core.errors import DataError

from .corrections import CORRECTIONS

TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
SHORTCODES = ("cldr", "cldr-native", "emojibase", "joypixels", "github", "iamcal", "emojibase-legacy")
# Blocks of pictographs that are no emoji (fxemoji draws many): their Unicode character name is the concept.
PICTOGRAPHS = ((0x0023, 0x0039), (0x2000, 0x2BFF), (0x3000, 0x303F), (0x3200, 0x33FF), (0x1F000, 0x1FAFF))
_LONG_TONE = re.compile(r"-(medium-light|medium-dark|light|medium|dark)-skin-tone")
_SHORT_TONE = re.compile(r"-(?:(medium-light|medium-dark|light|medium|dark)|tone([1-5]))$")


@dataclass(frozen=True)
class Entry:
    """One emoji: `label` is the concept (base form, without skin tone); `skin_tone` is "" or one or two of TONES joined by "+"."""

    label: str
    hexcode: str = ""
    emoji: str = ""
    group: str = ""
    subgroup: str = ""
    tags: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    gender: str = ""
    skin_tone: str = ""


def key(name: str) -> str:
    """Letters and digits of `name` in lower case without accents: "flag: Côte d’Ivoire" -> "flagcotedivoire"."""
    name = name.replace("&", " and ").replace("#", " hash ").replace("*", " asterisk ").replace("º", "o")
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]", "", plain)


def bare_hexcode(hexcode: str) -> str:
    """A hexcode in the one form that all sources agree on: upper case, without the presentation selector FE0F."""
    return "-".join(part.zfill(4) for part in hexcode.upper().split("-") if part not in ("FE0F", "FE0E"))


def split_tone(name: str, known: Mapping[str, Any]) -> tuple[str, str]:
    """(base name, tone) of an icon name such as `waving-hand-medium-dark-skin-tone`; tone is "" when it has none.

    The short form (`artist-dark`) is a tone only if the base is itself an icon of the set (`known`): `flashing-light` is none.
    """
    long = _LONG_TONE.findall(name)
    if long:
        return _LONG_TONE.sub("", name), "+".join(long)
    short = _SHORT_TONE.search(name)
    base = name[: short.start()] if short else name
    if short and (short[2] or base in known):
        return base, short[1] or TONES[int(short[2]) - 1]
    return name, ""


def read_json(path: Path) -> Any:
    """The content of a JSON file; `DataError` names a missing or damaged one."""
    anew = f"delete {path.parent} and run again to have it made anew"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}", anew) from error
    except ValueError as error:
        raise DataError(f"damaged file {path}: {error}", anew) from error


class Names:
    """The join table. `by_hexcode` and `by_name` answer for one drawing; what was entered first (the surest source) is kept."""

    def __init__(self, emojibase: Path, chars: Iterable[Mapping[str, str]] = (), aliases: Iterable[tuple[str, str]] = ()) -> None:
        """`emojibase`: the folder of the package emojibase-data; `chars`: code point -> icon name tables of icon sets;
        `aliases`: pairs of icon names for one drawing. Raises `DataError` when a file is missing or damaged.
        """
        self._hexcodes: dict[str, Entry] = {}
        self._keys: dict[str, Entry] = {}
        self._words: frozenset[str] | None = None
        self._emojibase(emojibase)
        for table in chars:
            for hexcode, name in table.items():
                self._offer(key(name), self.by_hexcode(hexcode))
        self._shortcodes(emojibase)
        for one, other in aliases:
            self._offer(key(one), self._keys.get(key(other)))
            self._offer(key(other), self._keys.get(key(one)))
        for code, name in _pictographs():  # last resort: characters that are no emoji, by their Unicode names
            entry = self._hexcodes.get(f"{code:04X}") or Entry(name.lower(), f"{code:04X}", chr(code), "pictographs", "pictographs")
            self._offer(key(name), entry)

    def _emojibase(self, folder: Path) -> None:
        meta = read_json(folder / "meta" / "groups.json")
        languages = sorted(path.parent.name for path in folder.glob("*/data.json"))
        labels: dict[str, list[tuple[str, str]]] = {}
        for language in languages:
            if language != "en":
                for emoji in read_json(folder / language / "data.json"):
                    labels.setdefault(emoji["hexcode"], []).append((language, emoji["label"]))
        emojis = read_json(folder / "en" / "data.json")
        for emoji in emojis:
            base = _entry(emoji, meta, tuple(labels.get(emoji["hexcode"], ())))
            self._hexcodes[bare_hexcode(base.hexcode)] = base
            self._keys.setdefault(key(base.label), base)
            for skin in emoji.get("skins", ()):
                toned = replace(base, hexcode=skin["hexcode"], emoji=skin["emoji"], skin_tone=_tone(skin["tone"]))
                self._hexcodes[bare_hexcode(toned.hexcode)] = toned
        for entry in list(self._keys.values()):  # icon sets drop the accented letters of a name instead of their accents
            self._keys.setdefault(key(entry.label.encode("ascii", "ignore").decode()), entry)

    def _shortcodes(self, folder: Path) -> None:
        for name in SHORTCODES:
            path = folder / "en" / "shortcodes" / f"{name}.json"
            for hexcode, codes in (read_json(path) if path.exists() else {}).items():
                for code in [codes] if isinstance(codes, str) else codes:
                    self._offer(key(code), self.by_hexcode(hexcode))
        path = folder / "meta" / "unicode-names.json"
        for hexcode, unicode_name in (read_json(path) if path.exists() else {}).items():
            self._offer(key(unicode_name), self.by_hexcode(hexcode))

    def _offer(self, name: str, entry: Entry | None) -> None:
        if entry is not None and len(name) > 2:  # shortcodes such as "+1" (thumbs up) would claim the digits
            self._keys.setdefault(name, entry)

    def by_hexcode(self, hexcode: str) -> Entry | None:
        """The emoji of a hexcode, with or without FE0F, in either case."""
        return self._hexcodes.get(bare_hexcode(hexcode))

    def by_name(self, name: str) -> Entry | None:
        """The emoji that an icon name means, or None. Tones are the caller's business (`split_tone`)."""
        # Flags go by their country first: an old set's alias may call the flag of one country by another's name.
        country = name.removeprefix("flag-for-")
        flags = () if country == name else (f"flag-{country}", country)
        unnumbered = re.sub(r"(?<=[a-z])-?\d$", "", name)  # `book2`: a second drawing of the same thing
        region = f"flag-{name.removesuffix('-flag')}" if name.endswith("-flag") else name
        for candidate in (*flags, name, CORRECTIONS.get(name, name), region, unnumbered):
            entry = self._keys.get(key(candidate))
            if entry is not None:
                return entry
        return None

    def words(self, name: str) -> str | None:
        """A name that is no emoji's as plain words: hyphens become spaces, run-together words are parted where known words meet.

        "rubber-duck" -> "rubber duck", "foxcrying" -> "fox crying"; None when a piece is no row of known words.
        """
        pieces = [_segment(piece, self._vocabulary()) for piece in name.split("-")]
        return None if None in pieces else " ".join(piece or "" for piece in pieces)

    def _vocabulary(self) -> frozenset[str]:
        if self._words is None:
            texts = (" ".join((entry.label, *entry.tags)) for entry in self._keys.values())
            found = {word for text in texts for word in re.findall(r"[a-z]+", text.lower())}
            self._words = frozenset(word for word in found if len(word) > 2) | {"of", "on", "in", "to", "up", "at", "no", "ok", "by", "and"}
        return self._words


def _entry(emoji: Mapping[str, Any], meta: Mapping[str, Any], labels: tuple[tuple[str, str], ...]) -> Entry:
    group = meta["groups"].get(str(emoji.get("group")), "")
    subgroup = meta["subgroups"].get(str(emoji.get("subgroup")), "")
    gender = {0: "female", 1: "male"}.get(emoji.get("gender", -1), "")
    return Entry(emoji["label"], emoji["hexcode"], emoji["emoji"], group, subgroup, tuple(emoji.get("tags", ())), labels, gender)


def _tone(tone: int | list[int]) -> str:
    return "+".join(TONES[t - 1] for t in ([tone] if isinstance(tone, int) else tone))


def _pictographs() -> Iterator[tuple[int, str]]:
    for first, last in PICTOGRAPHS:
        for code in range(first, last + 1):
            name = unicodedata.name(chr(code), "")
            if name:
                yield code, name


def _segment(text: str, words: frozenset[str]) -> str | None:
    """`text` cut into the fewest known words (at most four), or None."""
    best: list[list[str] | None] = [[]] + [None] * len(text)
    for end in range(1, len(text) + 1):
        for start in range(end):
            head, word = best[start], text[start:end]
            if head is not None and word in words and (best[end] is None or len(head) + 1 < len(best[end] or [])):
                best[end] = [*head, word]
    pieces = best[-1]
    return " ".join(pieces) if pieces and len(pieces) <= 4 else None
