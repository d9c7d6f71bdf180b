"""Scenes: what a description says, what is painted and what is told are one and the same."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfumato.core import config
from sfumato.core.errors import DataError, SfumatoError, UsageError
from sfumato.data.palette import dominant_colours
from sfumato.data.scenes.captions import captions_of, facts_of, long, negatives, region_captions, related, short
from sfumato.data.scenes.cast import Cast
from sfumato.data.scenes.colours import TINTS
from sfumato.data.scenes.content import LEVELS
from sfumato.data.scenes.description import OPPOSITE, Relation, Scene, canonical, relation, split_of_scenes
from sfumato.data.scenes.lettering import WORDS, letter
from sfumato.data.scenes.nouns import article, countable, counted, plural
from sfumato.data.scenes.painting import render, tight_box
from sfumato.data.scenes.plan import scene
from sfumato.data.splits import SPLITS, split_of

from .reading import Noun, Reader

FIXTURE = Path(__file__).parent / "fixture"
CAST = Cast.open(FIXTURE)
READER = Reader(CAST)
SCENES = st.builds(lambda i, d: scene(CAST, 11, i, d), st.integers(0, 5000), st.sampled_from(sorted(LEVELS)))
quick = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def nouns_of(it: Scene) -> list[Noun]:
    return [Noun(g.count, g.colour, g.concept, g.style) for g in facts_of(it).groups]


@quick
@given(SCENES)
def test_captions_say_what_the_description_says(it: Scene) -> None:
    facts, true = facts_of(it), nouns_of(it)
    assert READER.nouns(short(facts)) == true
    assert sorted(READER.nouns(long(facts)), key=str) == sorted(true, key=str)
    assert READER.background(long(facts)) == (it.background.kind, it.background.colours)
    names = {g.group: g.concept for g in facts.groups}
    for told in it.relations:
        assert READER.relations(related(facts, told)) == [(names[told.subject], told.kind, names[told.object])]
        assert sorted(READER.nouns(related(facts, told)), key=str) == sorted(true, key=str)
    known = {(names[r.subject], r.kind, names[r.object]) for r in it.relations}
    known |= {(b, OPPOSITE[kind], a) for a, kind, b in known}  # type: ignore[index]
    assert set(READER.relations(long(facts))) <= known
    assert len(READER.relations(long(facts))) == len(facts.groups) - 1
    for text in captions_of(it):
        assert READER.word(text) == (it.sign.word if it.sign else "")
        assert sorted(READER.nouns(text), key=str) == sorted(true, key=str)
    assert len(captions_of(it)) == len(set(captions_of(it)))


@quick
@given(SCENES, st.integers(0, 99))
def test_a_negative_is_wrong_in_the_one_fact_it_names(it: Scene, seed: int) -> None:
    true = nouns_of(it)
    names = {g.group: g.concept for g in facts_of(it).groups}
    relations = {(names[r.subject], r.kind, names[r.object]) for r in it.relations}
    relations |= {(b, OPPOSITE[kind], a) for a, kind, b in relations}  # type: ignore[index]
    wrong = negatives(CAST, it, random.Random(seed))
    assert {"count", "concept", "background"} <= {negative.fact for negative in wrong}
    assert {n.fact for n in wrong} >= ({"word"} if it.sign else set()) | ({"relation"} if it.relations else set())
    for negative in wrong:
        assert negative.said != negative.true and negative.caption not in captions_of(it)
        said = READER.nouns(negative.caption)
        if negative.fact in ("count", "colour", "style", "concept"):  # told in the description's order
            pairs = zip(said, true, strict=True)
            changed = {f for a, b in pairs for f in ("count", "colour", "concept", "style") if getattr(a, f) != getattr(b, f)}
            assert changed == {negative.fact}
        else:
            assert sorted(said, key=str) == sorted(true, key=str)
        assert (READER.word(negative.caption) != (it.sign.word if it.sign else "")) is (negative.fact == "word")
        assert (not set(READER.relations(negative.caption)) <= relations) is (negative.fact == "relation")
        told = READER.background(negative.caption)
        assert (told not in (None, (it.background.kind, it.background.colours))) is (negative.fact == "background")


@quick
@given(SCENES, st.sampled_from([64, 128, 160]))
def test_boxes_masks_depth_and_order_agree(it: Scene, size: int) -> None:
    drawn = render(it, CAST, size)
    assert drawn.picture.shape == (size, size, 3) and len(drawn.full) == len(it.items)
    visible = drawn.visible
    assert (visible.sum(0) <= 1).all(), "visible masks are disjoint"
    for k, item in enumerate(it.items):
        assert drawn.boxes[k] == tight_box(drawn.full[k])
        found, asked = (np.rint(np.array(box) * size) for box in (drawn.boxes[k], item.box))
        inset = np.concatenate([found[:2] - asked[:2], asked[2:] - found[2:]])
        assert (inset >= 0).all(), "a silhouette stays in its box"
        assert (inset <= 3).all(), "and fills it, but for thin tips that fade"
        assert not (visible[k] & ~drawn.full[k]).any()
        assert visible[k].sum() >= 0.4 * drawn.full[k].sum(), "nothing is lost behind something else"
        assert (drawn.depth[visible[k]] == round(255 * item.depth)).all()
        nearer = [j for j in range(len(it.items)) if it.paint_order.index(j) > it.paint_order.index(k)]
        covered = np.zeros_like(visible[k])
        for j in nearer:
            covered |= drawn.full[j]
            assert it.items[j].depth >= item.depth, "painted later = nearer"
        np.testing.assert_array_equal(visible[k], drawn.full[k] & ~covered)
    assert (drawn.depth[drawn.labels == 0] == 0).all()


@quick
@given(SCENES)
def test_what_is_visible_is_what_is_painted(it: Scene) -> None:
    """Painting the scene without its nearest item changes that item's pixels, and none beyond its box."""
    whole = render(it, CAST).picture.astype(int)
    k = it.paint_order[-1]
    without = replace(it, sign=None) if k == len(it.objects) else replace(it, objects=it.objects[:k] + it.objects[k + 1 :])
    changed = (np.abs(whole - render(without, CAST).picture) > 0).any(-1)
    mask = render(it, CAST).visible[k]
    x0, y0, x1, y1 = (round(edge * 128) for edge in it.items[k].box)
    changed_outside = changed.copy()
    changed_outside[y0:y1, x0:x1] = False
    assert not changed_outside.any(), "nothing is painted outside of its box"
    assert changed[mask].any(), "what is white on white changes little, but nothing changes not at all"


@quick
@given(SCENES)
def test_relations_hold_in_the_pixels(it: Scene) -> None:
    drawn = render(it, CAST)
    centre = {
        g: np.mean([[x for x in np.argwhere(drawn.full[k]).mean(0)] for k, o in enumerate(it.objects) if o.group == g], 0)
        for g in it.groups
    }
    for told in it.relations:
        (ay, ax), (by, bx) = centre[told.subject], centre[told.object]
        held = {"left of": ax < bx, "right of": ax > bx, "above": ay < by, "below": ay > by}
        assert held.get(told.kind, True)
        assert relation(it.members(told.object), it.members(told.subject)) == OPPOSITE[told.kind]
        if told.kind in ("in front of", "behind"):
            front, back = (told.subject, told.object) if told.kind == "in front of" else (told.object, told.subject)
            (f,), (b,) = ([k for k, o in enumerate(it.objects) if o.group == g] for g in (front, back))
            assert (drawn.full[f] & drawn.full[b] & drawn.visible[f]).any()


@quick
@given(SCENES)
def test_json_and_back(it: Scene) -> None:
    assert config.from_dict(Scene, json.loads(json.dumps(config.to_dict(it)))) == it
    assert len(region_captions(it)) == len(it.items)


@pytest.mark.parametrize("level", LEVELS)
def test_levels_keep_their_limits(level: int) -> None:
    made = [scene(CAST, 5, i, level) for i in range(60)]
    limits = LEVELS[level]
    for it in made:
        assert limits.groups[0] <= len(it.groups) <= limits.groups[1] and len(it.objects) <= max(limits.objects, len(it.groups))
        assert it.background.kind in limits.backgrounds
        assert len({o.concept for o in it.objects}) == len(it.groups), "a concept names its group"
    assert any(it.sign for it in made) is (limits.sign > 0)
    overlaps = {r.kind for it in made for r in it.relations} & {"in front of", "behind"}
    assert bool(overlaps) is (limits.overlap > 0)


def digest(indices: list[int]) -> dict[int, str]:
    made = {i: scene(CAST, 3, i, 5) for i in indices}
    return {i: sha256(repr(it).encode() + render(it, CAST, 96).picture.tobytes()).hexdigest() for i, it in made.items()}


def test_the_same_triple_gives_the_same_scene_in_any_order_and_process() -> None:
    first = digest([0, 1, 2, 3])
    assert digest([3, 1, 0, 2]) == first and len(set(first.values())) == 4
    program = (
        "import sys; from hashlib import sha256; from sfumato.data.scenes import Cast, scene, render\n"
        "cast = Cast.open(sys.argv[1]); it = scene(cast, 3, 2, 5)\n"
        "print(sha256(repr(it).encode() + render(it, cast, 96).picture.tobytes()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", program, str(FIXTURE)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == first[2]


@quick
@given(SCENES)
def test_no_held_out_drawing_or_prompt_is_in_training(it: Scene) -> None:
    parts = [split_of(canonical(it), ""), *(split_of(o.concept, o.style) for o in it.objects)]
    assert split_of_scenes([it]) == max(parts, key=SPLITS.index)
    if split_of_scenes([it]) == "train":
        assert set(parts) == {"train"}


def test_the_prompt_decides_where_every_drawing_is_known() -> None:
    made = [scene(CAST, 2, i, 3) for i in range(400)]
    known = [it for it in made if all(split_of(o.concept, o.style) == "train" for o in it.objects)]
    assert all(split_of_scenes([it]) == split_of(canonical(it), "") for it in known)
    assert len(known) > 300 and {split_of_scenes([it]) for it in made} == set(SPLITS)


def test_one_prompt_is_in_one_split() -> None:
    it = scene(CAST, 0, 4, 5)
    mirrored = Scene(
        it.objects[::-1], it.background, it.sign, tuple(Relation(r.object, OPPOSITE[r.kind], r.subject) for r in it.relations), 5
    )
    assert canonical(mirrored) == canonical(it)


@pytest.mark.parametrize("colour", TINTS)
def test_a_tint_makes_its_word_true(colour: str) -> None:
    for concept in CAST.things[::3]:
        for figure in CAST.by_concept[concept].values():
            assert dominant_colours(CAST.sprite(figure.drawing, colour, 128))[0] == colour, (concept, figure.style)


def test_colours_that_would_rename_a_thing_are_not_used() -> None:
    assert CAST.tints("red apple") == () and set(CAST.tints("fox")) == set(TINTS)


def test_every_word_fits_its_board_and_prints_without_one() -> None:
    for word in WORDS:
        board, bare = np.asarray(letter(word, 90, 24, "black", "white")), np.asarray(letter(word, 90, 24, "red", ""))
        ink = (board[..., :3] < 128).all(-1)
        assert ink[4:-4, 4:-4].any() and not ink[2, 4:-4].any() and not ink[-3, 4:-4].any(), word
        assert (board[..., 3] == 255).all() and 0 < (bare[..., 3] > 128).mean() < 0.9


def test_english() -> None:
    assert [plural(x) for x in ("fox", "cherry", "glass of milk", "mouse", "bowl with spoon", "toy", "maple leaf", "brush")] == [
        "foxes", "cherries", "glasses of milk", "mice", "bowls with spoon", "toys", "maple leaves", "brushes",
    ]  # fmt: skip
    assert [article(x) for x in ("apple", "unicorn", "umbrella", "hourglass", "ewe", "one-piece swimsuit", "house")] == [
        "an apple", "a unicorn", "an umbrella", "an hourglass", "a ewe", "a one-piece swimsuit", "a house",
    ]  # fmt: skip
    assert counted(1, "orange", "fox") == "an orange fox" and counted(3, "", "fox") == "three foxes"
    assert all(map(countable, ("fox", "red apple", "cactus", "ear of corn", "four leaf clover"[5:])))
    assert not any(map(countable, ("grapes", "bread", "two hearts", "1st place medal", "flag: Chad", "scissors")))


def test_bad_requests_teach(tmp_path: Path) -> None:
    it = scene(CAST, 0, 0, 1)
    for size in (0, 5000):
        with pytest.raises(UsageError, match="pixels"):
            render(it, CAST, size)
    with pytest.raises(SfumatoError, match="known: 1, 2, 3, 4, 5"):
        scene(CAST, 0, 0, 9)
    (tmp_path / "a.txt").write_text("a dog")
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="no EmojiWorld"):
        Cast.open(tmp_path)
