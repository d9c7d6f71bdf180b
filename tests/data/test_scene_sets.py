"""What is made from scenes: edits change what they say, stories and videos keep their characters, documents hold their figures."""

from __future__ import annotations

import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfumato.core import config
from sfumato.core.errors import DataError
from sfumato.data.scenes.captions import facts_of
from sfumato.data.scenes.cast import Cast
from sfumato.data.scenes.description import Object, place
from sfumato.data.scenes.documents import Document, document, to_pdf
from sfumato.data.scenes.edits import EDITS, Edit, edit
from sfumato.data.scenes.fitting import BODIES, TryOn, tryon, within
from sfumato.data.scenes.nouns import NUMBERS
from sfumato.data.scenes.painting import render
from sfumato.data.scenes.probes import SKILLS, Probe, probe
from sfumato.data.scenes.stories import Story, SubjectSet, story, subjects
from sfumato.data.scenes.videos import Video, video

from .reading import Reader

CAST = Cast.open(Path(__file__).parent / "fixture")
PEOPLE = Cast.open(Path(__file__).parent / "people")
READER = Reader(CAST)
INDICES, LEVEL = st.integers(0, 3000), st.integers(1, 5)
quick = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
MAKERS: list[tuple[Any, type, Cast]] = [
    (edit, Edit, CAST), (subjects, SubjectSet, CAST), (story, Story, CAST), (video, Video, CAST), (tryon, TryOn, PEOPLE),
    (document, Document, CAST), (probe, Probe, CAST),
]  # fmt: skip


@pytest.mark.parametrize(("make", "kind", "cast"), MAKERS)
def test_each_is_a_pure_function_and_goes_through_json(make: Any, kind: type, cast: Cast) -> None:
    for index in range(7):
        made = make(cast, 4, index, 4)
        assert make(cast, 4, index, 4) == made != make(cast, 5, index, 4)
        assert config.from_dict(kind, config.to_dict(made)) == made


def kept(things: tuple[Object, ...], group: int | None) -> list[Object]:
    return [thing for thing in things if thing.group != group]


@settings(quick, max_examples=70)
@given(INDICES, LEVEL)
def test_edits_change_only_what_they_say(index: int, level: int) -> None:
    made = edit(CAST, 7, index, level)
    before, after, group = made.before, made.after, made.group
    assert made.kind == EDITS[index % len(EDITS)] and before != after
    assert before.background == after.background and before.difficulty == after.difficulty
    assert kept(before.objects, group) == kept(after.objects, group), "nothing else is touched"
    assert (before.sign == after.sign) is (made.kind != "word")
    others = {r for r in before.relations if group not in (r.subject, r.object)}
    assert others == {r for r in after.relations if group not in (r.subject, r.object)}
    check(made)


def check(made: Edit) -> None:
    """The instruction names the change, and the change is of the kind it names."""
    if made.group is None:
        assert made.before.sign and made.after.sign and replace(made.before.sign, word=made.after.sign.word) == made.after.sign
        assert made.instruction == f'Change the word on the sign from "{made.before.sign.word}" to "{made.after.sign.word}".'
        return
    old, new = made.before.members(made.group), made.after.members(made.group)
    if made.kind == "add":
        assert not old and READER.nouns(made.instruction)[0].concept == new[0].concept
        assert f"the {facts_of(made.after).group(made.group).place}." in made.instruction
        return
    assert facts_of(made.before).group(made.group).the in made.instruction
    if made.kind == "remove":
        assert not new
    elif made.kind == "move":
        size = [(o.box[2] - o.box[0], o.box[3] - o.box[1]) for o in old], [(o.box[2] - o.box[0], o.box[3] - o.box[1]) for o in new]
        np.testing.assert_allclose(*size, atol=2e-4)
        assert [replace(o, box=n.box, depth=n.depth) for o, n in zip(old, new, strict=True)] == list(new)
        assert made.instruction.endswith(f"to the {facts_of(made.after).group(made.group).place}.")
    elif made.kind == "recolour":
        assert [replace(o, colour=new[0].colour) for o in old] == list(new) and made.instruction.endswith(f" {new[0].colour}.")
    else:
        assert all(
            n.box[0] >= o.box[0] - 1e-3 and n.box[2] <= o.box[2] + 1e-3 and n.box[1] >= o.box[1] - 1e-3
            for o, n in zip(old, new, strict=True)
        )
        same = {"restyle": ("concept", "colour", "depth"), "replace": ("depth",)}[made.kind]
        assert all(getattr(o, f) == getattr(n, f) for o, n in zip(old, new, strict=True) for f in same)
        assert f"{new[0].style} style" in made.instruction


@settings(quick, max_examples=21)
@given(INDICES)
def test_pixels_change_only_where_the_edit_is(index: int) -> None:
    made = edit(CAST, 7, index, 4)
    before, after = render(made.before, CAST), render(made.after, CAST)
    changed = (before.picture != after.picture).any(-1)
    assert changed.any()
    allowed = np.zeros_like(changed)
    for one, drawn in ((made.before, before), (made.after, after)):
        for item, (x0, y0, x1, y1) in zip(one.items, drawn.boxes, strict=True):
            if getattr(item, "group", None) == made.group:
                allowed[max(0, int(y0 * 128) - 8) : int(y1 * 128) + 8, max(0, int(x0 * 128) - 8) : int(x1 * 128) + 8] = True
    assert not (changed & ~allowed).any()


@quick
@given(INDICES, LEVEL)
def test_a_subject_is_alone_of_its_kind_in_every_scene(index: int, level: int) -> None:
    made = subjects(CAST, 1, index, level)
    assert len(made.scenes) == 4 and len({repr(one) for one in made.scenes}) == 4
    for one in made.scenes:
        (found,) = [thing for thing in one.objects if thing.concept == made.concept]
        assert found.drawing == made.drawing and not found.colour and len(one.groups) > 1


@quick
@given(INDICES, LEVEL)
def test_stories_show_what_they_tell(index: int, level: int) -> None:
    made = story(CAST, 1, index, level)
    assert 4 <= len(made.frames) <= 6
    hero = CAST.figures[made.characters[0]].concept
    for frame in made.frames:
        shown = {thing.concept for thing in frame.scene.objects}
        assert hero in shown and {o.drawing for o in frame.scene.objects if o.concept == hero} == {made.characters[0]}
        named = set(READER.concepts[said] for said in READER.concepts if re.search(rf"\b{re.escape(said)}\b", frame.sentence))
        assert shown <= named, frame.sentence
        assert READER.word(frame.sentence) == (frame.scene.sign.word if frame.scene.sign else "")
        told = READER.background(frame.sentence)
        assert told in (None, (frame.scene.background.kind, frame.scene.background.colours))
        for noun in READER.nouns(frame.sentence):
            assert sum(o.concept == noun.concept for o in frame.scene.objects) == noun.count


@quick
@given(INDICES, LEVEL)
def test_videos_move_as_the_caption_says(index: int, level: int) -> None:
    made = video(CAST, 1, index, level)
    assert 8 <= len(made.frames) <= 16 and any(motion.kind != "stays" for motion in made.motions)
    assert len({frame.background for frame in made.frames}) == 1
    last = made.frames[-1]
    for motion in made.motions:
        assert motion.kind in made.caption
        seen = [frame.members(motion.group) for frame in made.frames]
        (end,) = seen[-1]
        x = [members[0].box[0] for members in seen if members]
        width = [members[0].box[2] - members[0].box[0] for members in seen if members]
        assert (len(x) < len(seen)) is (motion.kind == "appears")
        if motion.kind.startswith("moves"):
            assert x == sorted(x, reverse=motion.kind.endswith("left")) and max(x) > min(x)
        else:
            assert (max(width) > min(width) + 0.01) is (motion.kind == "grows") and width[-1] == max(width)
        assert (len({m[0].turn for m in seen if m}) > 1) is (motion.kind == "spins")
        assert end.concept in made.caption
    assert len(last.objects) == len(made.motions)


def test_a_turned_object_is_drawn_turned_inside_the_picture() -> None:
    made = next(v for v in (video(CAST, 0, i, 1) for i in range(99)) if v.motions[0].kind == "spins")
    first, other = (render(made.frames[k], CAST) for k in (0, 2))
    assert (first.full[0] != other.full[0]).any()
    areas = [render(frame, CAST).full[0].mean() for frame in made.frames]
    assert max(areas) < 1.08 * min(areas), "nothing is cut off"


@quick
@given(INDICES, LEVEL)
def test_try_on_pairs_agree(index: int, level: int) -> None:
    made = tryon(PEOPLE, 1, index, level)
    (person,), (garment,) = made.person.objects, made.garment.objects
    assert made.worn.objects[0] == person and replace(made.worn.objects[1], box=garment.box) == garment
    assert made.worn.sign and made.garment.sign and made.worn.sign.word == made.garment.sign.word == made.word == READER.word(made.caption)
    assert made.body == within(person.box, BODIES[person.style])
    cloth = made.worn.objects[1].box
    assert cloth[0] < made.body[0] and cloth[2] > made.body[2] and cloth[3] > made.body[3]
    assert garment.colour in made.caption
    drawn = render(made.worn, PEOPLE)
    x0, y0, x1, y1 = (round(edge * 128) for edge in made.body)
    covered = (drawn.labels[y0 : min(y1, 128), x0:x1] >= 2).mean()
    assert covered > 0.6, "the garment covers the body's box"
    assert drawn.visible[2].sum() > 20, "the word is there"


def test_a_world_without_people_says_so() -> None:
    with pytest.raises(DataError, match="no standing person"):
        tryon(CAST, 0, 0)
    with pytest.raises(DataError, match="too few things"):
        story(PEOPLE, 0, 0)


@settings(quick, max_examples=15)
@given(INDICES, LEVEL)
def test_documents_hold_their_figures_and_captions(index: int, level: int) -> None:
    made = document(CAST, 1, index, level)
    content = to_pdf(made, CAST, 64)
    assert content == to_pdf(made, CAST, 64) and content.startswith(b"%PDF-1.4") and content.endswith(b"%%EOF\n")
    assert 1 <= len(made.text) <= 3 and {figure.page for figure in made.figures} == set(range(len(made.text)))
    streams = [zlib.decompress(body) for body in re.findall(rb"stream\n(.*?)\nendstream", content, re.S)]
    for figure in made.figures:
        assert render(figure.scene, CAST, 64).picture.tobytes() in streams
        assert all(0 <= edge <= 1 for edge in figure.box)
    pages = [stream.decode("cp1252") for stream in streams if stream.startswith((b"BT", b"q "))]
    assert len(pages) == len(made.text)
    for figure in made.figures:
        written = " ".join(re.findall(r"Td \((.*?)\) Tj", pages[figure.page])).replace("\\(", "(").replace("\\)", ")")
        assert figure.caption in written
    heights = [float(y) for page in pages for y in re.findall(r"Tf [\d.]+ (-?[\d.]+) Td", page)]
    assert min(heights) > 8 and max(heights) < 590, "no line leaves the page"
    offset = int(re.findall(rb"startxref\n(\d+)", content)[0])
    assert content[offset : offset + 4] == b"xref"


def test_a_pdf_reader_finds_text_and_pictures() -> None:
    pdfium = pytest.importorskip("pypdfium2")
    made = document(CAST, 1, 3, 3)
    with pdfium.PdfDocument(to_pdf(made, CAST, 64)) as opened:
        assert len(opened) == len(made.text)
        for number in range(len(opened)):
            figures = [figure for figure in made.figures if figure.page == number]
            text = " ".join(opened[number].get_textpage().get_text_range().split())
            assert all(figure.caption in text for figure in figures)
            images = [thing for thing in opened[number].get_objects() if thing.type == pdfium.raw.FPDF_PAGEOBJ_IMAGE]
            assert len(images) == len(figures)


@quick
@given(INDICES, LEVEL)
def test_probes_are_answered_by_their_scene(index: int, level: int) -> None:
    made = probe(CAST, 1, index, level)
    facts = facts_of(made.scene)
    first = facts.groups[0]
    assert made.skill == SKILLS[index % len(SKILLS)]
    if made.skill == "object":
        assert made.answer == first.concept and READER.nouns(made.prompt)[0].concept == made.answer
    elif made.skill == "count":
        assert made.answer == NUMBERS[first.count] and made.answer in made.prompt and first.count == len(made.scene.objects)
    elif made.skill == "spatial":
        a, b = facts.groups
        assert READER.relations(made.prompt) == [(a.concept, made.answer, b.concept)]
    elif made.skill == "colour":
        asked = next(g for g in facts.groups if made.question == f"What colour is the {g.concept}?")
        assert made.answer == asked.colour and len({g.colour for g in facts.groups}) == 2
    else:
        assert made.answer == READER.word(made.prompt) == (made.scene.sign.word if made.scene.sign else None)


def test_places_have_names() -> None:
    assert [place((x, y, x + 0.1, y + 0.1)) for y in (0, 0.45, 0.9) for x in (0, 0.45, 0.9)] == [
        "top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right",
    ]  # fmt: skip
