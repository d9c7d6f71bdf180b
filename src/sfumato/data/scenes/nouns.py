"""English for things that can be counted: articles, plurals, number words, and which emoji names can be counted at all."""

from __future__ import annotations

import re

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

# Names that are no single thing: stuffs, several things at once, arrows and machines' states.
_UNCOUNTED = """
airplane arrival|airplane departure|bacon|badminton|baguette bread|beans|bow and arrow|bowling|bread|briefs|broccoli|bubble tea
bubbles|building construction|butter|canned food|chart increasing with yen|clinking beer mugs|clinking glasses
cloud with lightning and rain|construction|cooked rice|cooking|coral|couch and lamp|cricket game|curry rice|cut of meat|dna
drop of blood|field hockey|film frames|fire|flag in hole|flatbread|flower playing cards|fly|fog|fondue|fork and knife
fork and knife with plate|garlic|green salad|hammer and pick|hammer and wrench|herb|high voltage|ice|ice hockey|joker|lacrosse
leaf fluttering in wind|leafy green|light rail|link|locked|locked with key|locked with pen|love hotel|martial arts uniform|mate|metro
milky way|money with wings|moon viewing ceremony|motorway|nest with eggs|nut and bolt|oden|page facing up|pancakes|performing arts
ping pong|popcorn|pouring liquid|roll of paper|sake|salt|shallow pan of food|shaved ice|sheaf of rice|soap|soft ice cream|spaghetti
station|stuffed flatbread|sushi|tennis|thread|unlocked|water wave|wedding|wind face|wood|x-ray|yarn
"""
_UNCOUNTABLE = frozenset(re.split(r"[|\n]", _UNCOUNTED))
_PLURALS = {"mouse": "mice", "goose": "geese", "foot": "feet", "tooth": "teeth", "fish": "fish", "sheep": "sheep", "bison": "bison",
            "deer": "deer", "moose": "moose", "squid": "squid", "shrimp": "shrimp", "ox": "oxen", "knife": "knives", "leaf": "leaves",
            "wolf": "wolves", "scarf": "scarves", "loaf": "loaves", "man": "men", "woman": "women", "person": "people",
            "buffalo": "buffaloes", "tomato": "tomatoes", "potato": "potatoes", "mango": "mangoes", "mosquito": "mosquitoes",
            "volcano": "volcanoes", "tornado": "tornadoes"}  # fmt: skip
_SINGULAR_S = ("ss", "us", "lens", "abacus", "bus", "tennis")
_JOINTS = re.compile(r" (?:with|without|of|in|on|behind|facing|tilted|holding|standing) ")
_AN = re.compile(r"(?:[ai]|e(?!u|we)|o(?!ne)|u(?!ni|s|ku|t)|hour)", re.IGNORECASE)


def countable(label: str) -> bool:
    """Whether a Unicode label names one thing that there may be two of: "red apple", not "grapes", "bread" or "two hearts"."""
    if label in _UNCOUNTABLE or not re.fullmatch(r"[A-Za-zñ’ -]+", label):
        return False
    head = _JOINTS.split(label)[0].split()[-1]
    several = head.endswith("s") and not head.endswith(_SINGULAR_S)
    return not several and label.split()[0].lower() not in (*NUMBERS, "crossed", "linked", "clinking", "incoming", "oncoming", "low", "two")


def plural(label: str) -> str:
    """ "glass of milk" -> "glasses of milk": the head takes the ending, which is the last word before "with", "of" and the like."""
    joint = _JOINTS.search(label)
    head, tail = (label[: joint.start()], label[joint.start() :]) if joint else (label, "")
    words = head.split(" ")
    last = words[-1]
    if last in _PLURALS:
        ending = _PLURALS[last]
    elif re.search(r"(?:s|x|z|ch|sh)$", last):
        ending = f"{last}es"
    else:
        ending = f"{last[:-1]}ies" if re.search(r"[^aeiou]y$", last) else f"{last}s"
    return " ".join((*words[:-1], ending)) + tail


def article(phrase: str) -> str:
    """The phrase with "a" or "an" before it."""
    return f"{'an' if _AN.match(phrase) else 'a'} {phrase}"


def counted(count: int, colour: str, label: str) -> str:
    """ "a red fox", "three red foxes": `count` from 1 to 9, `colour` may be ""."""
    if count == 1:
        return article(f"{colour} {label}".strip())
    return " ".join(filter(None, (NUMBERS[count], colour, plural(label))))


def definite(count: int, colour: str, label: str) -> str:
    """ "the red fox", "the red foxes"."""
    return " ".join(filter(None, ("the", colour, label if count == 1 else plural(label))))


def listed(phrases: list[str] | tuple[str, ...]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
