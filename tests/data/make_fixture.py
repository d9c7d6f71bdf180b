"""Make tests/data/fixture and tests/data/people: small EmojiWorlds of Apache and MIT drawings, built as the real one is (see README.md)."""

from __future__ import annotations

import sys
from pathlib import Path

from sfumato.data import build_emoji

FIXTURE = Path(__file__).parent / "fixture"
PEOPLE = Path(__file__).parent / "people"
STYLES = ("noto", "fluent 3d", "fluent flat")
CONCEPTS = (
    """
grinning face|red heart|dog face|cat face|panda|fox|lion|pig face|frog|monkey face|chicken|penguin|honeybee|octopus|spouting whale|turtle
rose|sunflower|cactus|four leaf clover|mushroom|red apple|banana|strawberry|lemon|carrot|pizza|hamburger|bread|doughnut|hot beverage
fire|droplet|star|sun|crescent moon|rainbow|snowman|rocket|automobile|bicycle|sailboat|house|key|hammer|balloon|soccer ball|guitar
""".replace("\n", "|")
    .strip("|")
    .split("|")
)

DRESSED = ["man standing", "woman standing", "t-shirt", "woman’s clothes", "coat", "lab coat", "kimono", "dress", "top hat", "crown"]

if __name__ == "__main__":
    packages = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    for folder, concepts in ((FIXTURE, CONCEPTS), (PEOPLE, DRESSED)):
        print(build_emoji(folder, styles=STYLES, concepts=concepts, packages=packages, overwrite=True))
