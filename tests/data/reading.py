"""Reads the facts back out of a scene's captions: the inverse of `scenes/captions.py`, written from the English alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sfumato.data.scenes.cast import Cast
from sfumato.data.scenes.colours import GROUNDS, SOFT, TINTS
from sfumato.data.scenes.nouns import NUMBERS, plural

KINDS = {"to the left of": "left of", "to the right of": "right of"}


def either(words: object) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))  # type: ignore[call-overload]


@dataclass(frozen=True)
class Noun:
    count: int
    colour: str
    concept: str
    style: str


class Reader:
    """Knows the names of one world's things, and English."""

    def __init__(self, cast: Cast) -> None:
        self.concepts = {said: thing for thing in cast.things for said in (thing, plural(thing))}
        colour, concept = f"(?:({either(TINTS)}) )?", f"({either(self.concepts)})"
        self.noun = f"(an?|{either(NUMBERS)}) {colour}{concept}(?: in ({either(cast.styles)}) style)?"
        self.named = f"[Tt]he {colour}{concept}"
        self.kind = "(to the left of|to the right of|above|below|in front of|behind)"
        self.style = re.compile(f", ({either(cast.styles)}) style$|^A picture in ({either(cast.styles)}) style")

    def nouns(self, text: str) -> list[Noun]:
        """Every counted thing in the text, in order, with the style that holds for it."""
        found = self.style.search(text)
        overall = (found[1] or found[2]) if found else ""
        return [
            Noun(NUMBERS.index(n) if n in NUMBERS else 1, colour, self.concepts[concept], style or overall)
            for n, colour, concept, style in re.findall(rf"\b{self.noun}\b", text.replace("a sign", "the sign"))
        ]

    def relations(self, text: str) -> list[tuple[str, str, str]]:
        """(concept, relation, concept) of every stated relation."""
        spoken = re.findall(rf"\b{self.noun} {self.kind} {self.noun}", text)
        stated = [(m[2], m[4], m[7]) for m in spoken]
        stated += [(m[1], m[2], m[4]) for m in re.findall(rf"{self.named} (?:is|are) {self.kind} {self.named}\.", text)]
        return [(self.concepts[a], KINDS.get(kind, kind), self.concepts[b]) for a, kind, b in stated]

    @staticmethod
    def word(text: str) -> str:
        found = re.search(r'says "(\w+)"', text)
        return found[1] if found else ""

    @staticmethod
    def background(text: str) -> tuple[str, tuple[str, ...]] | None:
        soft, ground = either(SOFT), either(GROUNDS)
        forms = {
            "plain": rf"on an? ({soft}) background",
            "fade": rf"fades from ({soft}) to ({soft})",
            "ground": rf"on (?P<b>{ground}) ground under an? (?P<a>{soft}) sky",
            "stripes": rf"on ({soft}) and ({soft}) stripes",
        }
        for kind, form in forms.items():
            found = re.search(form, text)
            if found:
                return kind, (found["a"], found["b"]) if kind == "ground" else found.groups()
        return None
