"""PaintSkills: every combination equally often, nothing shared between splits, and pictures that show what their captions ask."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfumato.core.errors import DataError, UnknownNameError, UsageError
from sfumato.data.scenes.cast import Cast
from sfumato.data.scenes.distinct import distinct
from sfumato.data.scenes.painting import render
from sfumato.data.scenes.paintskills import COUNTS, DIRECTIONS, PAINTSKILLS, PARTS, Cell, Item, PaintSkills, Part, Skill, home
from sfumato.data.scenes.shapes import shapes
from sfumato.data.splits import SPLITS
from sfumato.evaluate.paintskills import answer
from sfumato.evaluate.witness import truth

FIXTURE = Path(__file__).parent / "fixture"
DRAWN = PaintSkills(Cast.open(FIXTURE))
FEW = PaintSkills(shapes(6), seed=1, classes=6)
ITEMS = st.builds(
    lambda skill, split, i, part: DRAWN.item(skill, split, i, part if skill == "spatial" else "all"),
    st.sampled_from(PAINTSKILLS), st.sampled_from(SPLITS), st.integers(0, 10_000), st.sampled_from(PARTS),
)  # fmt: skip
quick = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
ASKED = re.compile(r"a photo of (?:(?P<count>\d) )?(?P<a>[^;]+?)(?: and (?P<b>[^;]+); (?P=b) is (?P<relation>[a-z ]+?) (?P=a))?")


def read(caption: str) -> Cell:
    """What a caption asks for, by its words alone."""
    found = ASKED.fullmatch(caption)
    assert found, caption
    things = tuple(filter(None, (found["a"], found["b"])))
    return Cell(things, int(found["count"]) if found["count"] else None, found["relation"])  # type: ignore[arg-type]


@quick
@given(ITEMS)
def test_the_picture_shows_what_the_caption_asks(item: Item) -> None:
    assert read(item.cell.caption) == item.cell
    for size in (64, 128):
        found = truth(item.scene, render(item.scene, DRAWN.cast, size))
        assert answer(found, item.cell).right, (item.cell, found)
        wrong = {
            "object": Cell((next(t for t in DRAWN.things if t not in item.cell.things),)),
            "count": Cell(item.cell.things, 1 + (item.cell.count or 0) % 4),
            "spatial": Cell(item.cell.things, relation=DIRECTIONS[(DIRECTIONS.index(item.cell.relation or "above") + 2) % 4]),
        }
        assert not answer(found, wrong[item.skill]).right
    assert all(edge == min(1, max(0, edge)) for thing in item.scene.objects for edge in thing.box)
    boxes = [thing.box for thing in item.scene.objects]
    apart = [a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1] for k, a in enumerate(boxes) for b in boxes[:k]]
    assert all(apart), "things do not hide each other"


@quick
@given(ITEMS)
def test_a_description_belongs_to_one_split(item: Item) -> None:
    assert home(item.scene) == item.split and item.id.split("/")[:2] == [item.skill, item.split]
    assert {thing.concept for thing in item.scene.objects} <= set(DRAWN.things)


@pytest.mark.parametrize(("skill", "part", "cells"), [("object", "all", 6), ("count", "all", 24), ("spatial", "seen", 120)])
@given(sweeps=st.integers(1, 3), split=st.sampled_from(SPLITS))
@settings(max_examples=6, deadline=None)
def test_every_cell_has_exactly_as_many_items(skill: Skill, part: Part, cells: int, sweeps: int, split: str) -> None:
    counted = Counter(FEW.item(skill, split, i, part).cell for i in range(sweeps * cells))  # type: ignore[arg-type]
    assert set(counted.values()) == {sweeps} and len(counted) == cells and set(counted) == set(FEW.cells(skill, part))


def test_splits_share_neither_ids_nor_descriptions() -> None:
    made = [FEW.item(skill, split, i) for skill in PAINTSKILLS for split in SPLITS for i in range(300)]
    assert len({item.id for item in made}) == len(made) == len({repr(item.scene) for item in made})
    orders = [[FEW.item("count", split, i).cell for i in range(24)] for split in SPLITS]
    assert len(set(map(tuple, orders))) == 3, "each split has an order of its own"


def test_an_item_depends_on_its_name_alone() -> None:
    again = PaintSkills(shapes(6), seed=1, classes=6)
    for index in (9, 0, 4):
        assert again.item("spatial", "train", index, "seen") == FEW.item("spatial", "train", index, "seen")
    others = [PaintSkills(shapes(6), seed=2, classes=6).item("count", "train", 0), FEW.item("count", "train", 0)]
    assert others[0].scene != others[1].scene


def test_held_out_cells_are_a_fifth_and_even() -> None:
    held, seen, every = (DRAWN.cells("spatial", part) for part in ("held out", "seen", "all"))
    assert len(every) == 4 * 21**2 and set(held) | set(seen) == set(every) and not set(held) & set(seen)
    assert len(held) / len(every) == pytest.approx(0.2, abs=0.01)
    for place in (0, 1):
        assert set(Counter(cell.things[place] for cell in held).values()) == {len(held) // 21}
    assert set(Counter(cell.relation for cell in held).values()) == {len(held) // 4}
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    for cell in held:  # the same arrangement, told from the other side
        assert DRAWN.held_out(Cell(cell.things[::-1], relation=opposite[cell.relation or ""]))  # type: ignore[arg-type]


def test_size_tells_no_count() -> None:
    sides = {n: [] for n in COUNTS}  # type: dict[int, list[float]]
    for i in range(24 * 40):
        item = FEW.item("count", "train", i)
        sides[item.cell.count or 0] += [max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in (o.box for o in item.scene.objects)]
    means = [sum(values) / len(values) for values in sides.values()]
    assert max(means) - min(means) < 0.01, means


def test_classes_differ_and_are_known_in_every_style() -> None:
    cast = DRAWN.cast
    assert len(DRAWN.things) == 21 and list(DRAWN.things) == sorted(DRAWN.things)
    assert len({cast.by_concept[thing][cast.styles[0]].subgroup for thing in DRAWN.things}) == 21
    for thing in DRAWN.things:
        assert {f.split for f in cast.by_concept[thing].values()} == {"train"} and set(cast.by_concept[thing]) == set(cast.styles)
    assert set(distinct(cast, 3)) < set(DRAWN.things), "the first choices stay"


def test_bad_requests_teach() -> None:
    with pytest.raises(DataError, match=r"6 kinds of things .* round, sharp\n.*21 are needed"):
        PaintSkills(shapes(6))
    with pytest.raises(UnknownNameError, match="did you mean 'count'"):
        FEW.item("counts", "train", 0)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="known: test, train, validation"):
        FEW.item("count", "val", 0)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="part 'seen' of skill 'count'"):
        FEW.cells("count", "seen")
    with pytest.raises(UsageError, match="index is -1"):
        FEW.item("count", "train", -1)
