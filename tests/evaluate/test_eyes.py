"""What finds, cuts and reads: exact where geometry is, pure functions of their seeds, and right about ideal maps."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.data.scenes import render
from sfumato.evaluate.cuts import MARGIN, Cuts, cut
from sfumato.evaluate.eyes import Eyes, Named, detections
from sfumato.evaluate.lessons import restyled, scenery
from sfumato.evaluate.locator import corners, decode, generalised_iou, iou, targets
from sfumato.evaluate.reader import LETTERS, SIZE, Boards, Reader, cut_boards, spell
from sfumato.evaluate.witness import truth
from sfumato.training.batches import Columns

FIXTURE = Path(__file__).parents[1] / "data" / "fixture"
SIDES = st.floats(0.1, 0.5)


def test_ideal_maps_give_the_boxes_back() -> None:
    boxes = torch.tensor([[[0.1, 0.1, 0.4, 0.5], [0.55, 0.2, 0.95, 0.6], [0.2, 0.8, 0.8, 0.95], [0.0, 0.0, 0.0, 0.0]]])
    kind = torch.tensor([[0, 0, 1, -1]])
    heat, owner, near = targets(boxes, kind, (32, 32))
    assert heat.shape == (1, 2, 32, 32) and int((heat == 1).sum()) == 3 and float(near.max()) == 1.0
    wanted = boxes[0][owner[0]].permute(2, 0, 1)[None]
    middles = (torch.arange(32) + 0.5) / 32
    x, y = middles[None].expand(32, 32), middles[:, None].expand(32, 32)
    distances = torch.stack([x - wanted[0, 0], y - wanted[0, 1], wanted[0, 2] - x, wanted[0, 3] - y])[None]
    assert torch.allclose(corners(distances), wanted, atol=1e-6)
    found = decode(torch.where(heat == 1, 4.0, -8.0), distances)[0]
    assert sorted(map(tuple, found.boxes.mul(100).round().int().tolist())) == [(10, 10, 40, 50), (20, 80, 80, 95), (55, 20, 95, 60)]
    assert found.sign.tolist() == [box[1] > 0.7 for box in found.boxes.tolist()]


def test_two_boxes_of_one_thing_are_one() -> None:
    heat, distances = torch.full((1, 2, 8, 8), -9.0), torch.full((1, 4, 8, 8), 0.3)
    heat[0, 0, 3, 2], heat[0, 0, 3, 4] = 3.0, 2.0
    assert len(decode(heat, distances, overlap=0.4)[0].boxes) == 1 and len(decode(heat, distances, overlap=0.9)[0].boxes) == 2


@given(x=SIDES, y=SIDES, w=SIDES, h=SIDES, dx=st.floats(-0.5, 0.5))
def test_overlap(x: float, y: float, w: float, h: float, dx: float) -> None:
    a, b = torch.tensor([[x, y, x + w, y + h]]), torch.tensor([[x + dx, y, x + dx + w, y + h]])
    value = float(iou(a, b))
    assert 0 <= value <= 1.0001 and abs(value - float(iou(b, a))) < 1e-6 and abs(float(iou(a, a)) - 1) < 1e-5
    assert abs(value - max(0.0, w - abs(dx)) / (w + min(w, abs(dx)))) < 1e-4
    general = float(generalised_iou(a[..., None, None], b[..., None, None]))
    assert -1.0001 <= general <= value + 1e-5


def test_a_cut_is_the_square_around_its_box() -> None:
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    images[1, :, 16:48, 24:40] = 255
    seen = cut(images, torch.tensor([1]), torch.tensor([[24 / 64, 16 / 64, 40 / 64, 48 / 64]]), 64)
    inside = seen[0, 0] > 0
    scale = 64 / (32 * (1 + 2 * MARGIN))  # pixels of the cut per pixel of the picture
    assert abs(int(inside.any(1).sum()) - 32 * scale) <= 2 and abs(int(inside.any(0).sum()) - 16 * scale) <= 2
    corner = cut(images, torch.tensor([0]), torch.tensor([[0.0, 0.0, 0.2, 0.2]]), 32)
    assert float(corner[0, 0, 0, 0]) == 1.0  # beyond the border is paper
    assert torch.allclose(
        cut(images, torch.tensor([1]), torch.tensor([[0.2, 0.2, 0.8, 0.8]]), 32),
        cut(images.float() / 127.5 - 1, torch.tensor([1]), torch.tensor([[0.2, 0.2, 0.8, 0.8]]), 32),
        atol=1e-5,
    )


def test_scenery_and_cuts_are_pure_and_true() -> None:
    first, second = (scenery(FIXTURE, 5, ("train",), seed=3, size=64) for _ in range(2))
    assert torch.equal(first.images, second.images) and first.scenes == second.scenes and len(first) == 5
    assert len(first.boxes) == sum(len(one.objects) for one in first.scenes) == len(first.concept) == len(first.visible)
    assert len(first.words) == sum(one.sign is not None for one in first.scenes) and float(first.visible.max()) <= 1
    assert set(first.split) == {"train"}
    rows = Columns({"place": first.place, "boxes": first.boxes, "concept": torch.arange(len(first.boxes))}, 4, 0)
    batch = Cuts(first.images, rows, 32).batch(7)
    assert batch["images"].shape == (4, 3, 32, 32) and torch.equal(batch["images"], Cuts(first.images, rows, 32).batch(7)["images"])


def test_other_hands_draw_the_same_shapes_in_other_colours() -> None:
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><path fill="#c02020" d="M1 1h6v6H1z"/></svg>'
    found = restyled([svg], ["red square"], 8, size=32)[0]
    drawn = (found != 255).any(1)
    assert found.shape == (8, 3, 32, 32) and bool(drawn[:, 6:26, 6:26].all()) and not bool(drawn[:, :2].any())
    assert len(torch.unique(found[:, :, 16, 16], dim=0)) > 4
    red, green, blue = found[:, :, 16, 16].float().T
    assert bool((red > green).all()) and bool((red > blue).all())  # the name tells its colour


def test_boards_are_pure_and_words_fit() -> None:
    a, b, other = Boards(16, 1).batch(3), Boards(16, 1).batch(3), Boards(16, 2).batch(3)
    assert all(torch.equal(a[name], b[name]) for name in a) and not torch.equal(a["boards"], other["boards"])
    assert a["boards"].shape == (16, 3, *SIZE) and bool((a["letters"] <= len(LETTERS)).all())
    # CTC needs a blank between equal letters.
    words = ["".join(LETTERS[k - 1] for k in row if k) for row in a["letters"].tolist()]
    assert [len(word) for word in words] == a["length"].tolist()
    assert all(len(w) + sum(x == y for x, y in pairwise(w)) <= SIZE[1] // 4 for w in words)


@given(st.text(LETTERS, min_size=1, max_size=9), st.integers(1, 3))
@settings(max_examples=30)
def test_spelling_drops_repeats_and_blanks(word: str, times: int) -> None:
    path = [k for letter in word for k in [LETTERS.index(letter) + 1] * times + [0]]
    answers = torch.nn.functional.one_hot(torch.tensor(path), len(LETTERS) + 1)[:, None].float()
    assert spell(answers) == [word]


def test_eyes_answer_each_picture_for_itself() -> None:
    torch.manual_seed(0)
    eyes = Eyes(reader=Reader((8, 8, 8))).eval()
    pictures = torch.rand(3, 3, 64, 64) * 2 - 1
    together, alone = eyes.find(pictures), [eyes.find(picture[None])[0] for picture in pictures]
    assert all(torch.allclose(a.boxes, b.boxes, atol=1e-5) for a, b in zip(together, alone, strict=True))
    assert eyes.find(pictures[:0]) == [] and eyes.read(pictures[:0], []) == []
    assert cut_boards(pictures, torch.tensor([2]), torch.tensor([[0.1, 0.1, 0.9, 0.4]])).shape == (1, 3, *SIZE)


def test_detections_are_told_surest_first_in_their_own_picture() -> None:
    two = torch.tensor([0, 1, 1])
    named = Named(two, torch.rand(3, 4), torch.rand(3), two, torch.rand(3), two, two)
    told = detections(named, torch.tensor([0.2, 0.3, 0.9]), 3, ("cat", "dog"), ("noto", "twemoji"))
    assert [[d.score for d in one] for one in told] == [[pytest.approx(0.2)], [pytest.approx(0.9), pytest.approx(0.3)], []]
    assert told[0][0].concept == "cat" and told[0][0].colour == "" and told[1][0].colour == "red"


def test_the_truth_of_a_scene_is_its_objects() -> None:
    from sfumato.data.scenes import Cast, scene

    cast = Cast.open(FIXTURE)
    made = scene(cast, 0, 4, 4)
    told = truth(made, render(made, cast, 64))
    assert [d.concept for d in told] == [thing.concept for thing in made.objects] and all(d.score == 1 for d in told)
