"""PaintSkills' score of pictures: sizes, bounds, and the angle of skin colour."""

from __future__ import annotations

import pytest
import torch

from sfumato.data.scenes.paintskills import PAINTSKILLS, Cell, PaintSkills
from sfumato.data.scenes.shapes import shapes
from sfumato.evaluate.metrics import Detection
from sfumato.evaluate.metrics.bias import ita
from sfumato.evaluate.paintskills import answer, enlarged, grade, look, paint, shuffled

SKILLS = PaintSkills(shapes(6), classes=6)


def test_small_pictures_are_enlarged_and_large_ones_left_alone() -> None:
    items = [SKILLS.item("object", "validation", i) for i in range(3)]
    small, large = paint(items, SKILLS.cast, 64), paint(items, SKILLS.cast, 128)
    assert small.shape == (3, 3, 64, 64) and small.dtype == torch.uint8
    assert torch.equal(enlarged(large), large.float() / 127.5 - 1)
    assert enlarged(small).shape == (3, 3, 128, 128) and -1 <= float(enlarged(small).min()) <= float(enlarged(small).max()) <= 1
    assert float((enlarged(small) - enlarged(large)).abs().mean()) < 0.05


class Dull:
    """Sees the same in every picture, and keeps the shapes of what it was shown."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def detect(self, images: torch.Tensor) -> list[list[Detection]]:
        self.shapes.append(tuple(images.shape))
        return [[Detection("a-shape", (0, 0, 1, 1), 0.9)] for _ in images]

    def read(self, images: torch.Tensor) -> list[str]:
        return [""] * len(images)


def test_a_witness_sees_few_pictures_at_a_time_at_its_own_size() -> None:
    witness = Dull()
    assert len(look(witness, torch.zeros(70, 3, 64, 64, dtype=torch.uint8))) == 70
    assert witness.shapes == [(64, 3, 128, 128), (6, 3, 128, 128)]


def test_each_skill_has_its_rule() -> None:
    two = [Detection("a", (0.1, 0.4, 0.2, 0.5), 0.9), Detection("b", (0.6, 0.4, 0.7, 0.5), 0.8)]
    assert answer(two, Cell(("a",))).right and not answer(two, Cell(("b",))).right
    assert answer(two, Cell(("a",), 1)).right and not answer(two, Cell(("a",), 2)).right
    assert answer(two, Cell(("a", "b"), relation="right of")).right and not answer(two, Cell(("a", "b"), relation="above")).right
    assert grade([two, []], [Cell(("a",)), Cell(("a",))]).tolist() == [True, False]


@pytest.mark.parametrize("skill", PAINTSKILLS)
def test_shuffled_prompts_are_the_same_prompts(skill: str) -> None:
    cells = list(SKILLS.cells(skill))  # type: ignore[arg-type]
    other = shuffled(cells)
    assert sorted(map(repr, other)) == sorted(map(repr, cells)) and other == shuffled(cells) != shuffled(cells, 1)


def test_angle_of_skin_colour() -> None:
    assert ita(55.142, 26.74) == pytest.approx(10.9, abs=0.05) and ita(30.678, 13.335) == pytest.approx(-55.4, abs=0.05)
    assert ita(50, 10) == 0 and ita(80, 15) > ita(60, 15)
