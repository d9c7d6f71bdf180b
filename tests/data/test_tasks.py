"""Tasks: a prompt describes its scene, keeps to the drawings it may use, and is the same for ever."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from sfumato.core.config import to_dict
from sfumato.core.errors import DataError
from sfumato.data.scenes import TASKS, Cast, captions_of, facts_of, pose, probe
from sfumato.data.scenes.cast import Figure

CAST = Cast.open(Path(__file__).parent / "fixture")
INDICES = range(12)


@pytest.mark.parametrize("task", TASKS)
def test_a_prompt_describes_its_scene_and_asks_for_its_task(task: str) -> None:
    for index in INDICES:
        posed = pose(CAST, task, 3, index)  # type: ignore[arg-type]
        assert posed == pose(CAST, task, 3, index) and posed.task == task  # type: ignore[arg-type]
        assert posed.prompt in captions_of(posed.scene)
        facts = facts_of(posed.scene)
        assert len(facts.groups) == (2 if task in ("two", "position", "binding") else 1)
        assert all(bool(g.colour) == (task in ("colour", "binding")) for g in facts.groups)
        assert all((2 <= g.count <= 4) if task == "count" else g.count == 1 for g in facts.groups)
        assert bool(facts.word) == (task == "text") and facts.word in posed.prompt
        assert (facts.relations[0].kind in posed.prompt) if task == "position" else True
    prompts = {pose(CAST, task, seed, index).prompt for index in INDICES for seed in (3, 4)}  # type: ignore[arg-type]
    assert len(prompts) > 18
    if task == "binding":
        facts = facts_of(pose(CAST, "binding", 3, 0).scene)
        assert facts.groups[0].colour != facts.groups[1].colour


def test_things_come_from_where_they_may() -> None:
    def held_out(figure: Figure) -> bool:
        return figure.split == "test"

    for index in INDICES:
        things = pose(CAST, "two", 0, index, first_of=held_out).scene.objects
        assert [CAST.figures[thing.drawing].split for thing in things] == ["test", "train"]
        assert all(CAST.figures[t.drawing].split == "train" for t in pose(CAST, "two", 0, index).scene.objects)


def test_a_scene_is_drawn_anew_until_it_fits() -> None:
    first = pose(CAST, "position", 0, 0)
    other = pose(CAST, "position", 0, 0, fits=lambda posed: posed.scene != first.scene)
    assert other != first
    with pytest.raises(DataError, match="no scene for the task position fits"):
        pose(CAST, "position", 0, 0, fits=lambda posed: False)


def test_probes_are_what_they_were() -> None:
    """Tasks share the probes' helpers; what (seed, index) gave before must not have moved."""
    told = repr([to_dict(probe(CAST, seed, index)) for seed in (0, 7) for index in range(15)])
    assert sha256(told.encode()).hexdigest()[:16] == "f8fbdd508e80ac49"
