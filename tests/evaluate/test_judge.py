"""The judge's files are strict, its input is checked, and its training is a pure function of seed and step."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from sfumato.core.errors import ConfigError, DataError, NonFiniteError, UsageError, WeightsError
from sfumato.core.rng import Draws
from sfumato.core.task import Phase
from sfumato.evaluate.augment import augment, homographies
from sfumato.evaluate.judge import Judge
from sfumato.evaluate.judge_net import JudgeConfig, JudgeNet
from sfumato.evaluate.judge_recipe import COPY, JudgeRecipe, Sets, near_copies, train_judge
from sfumato.evaluate.judge_task import JudgeTask, JudgeTaskConfig, matches
from sfumato.evaluate.pictures import Pictures
from sfumato.training.loop import TrainConfig

from .conftest import CONCEPTS, STYLES, TINY, tiny_judge

FIXTURE = Path(__file__).parents[1] / "data" / "fixture"
SHIPPED = Path(str(files("sfumato") / "assets" / "judge"))


def test_a_saved_judge_judges_the_same(tmp_path: Path) -> None:
    judge = tiny_judge({"held_out": {"count": 3}})
    judge.save(tmp_path)
    again = Judge.load(tmp_path)
    assert (again.concepts, again.styles, again.card, again.config) == (CONCEPTS, STYLES, judge.card, TINY)
    pictures = torch.rand(5, 3, 32, 32) * 2 - 1
    assert torch.allclose(judge(pictures).concept, again(pictures).concept, atol=5e-3)  # fp16 on disk
    assert torch.equal(again(pictures).embedding, Judge.load(tmp_path)(pictures).embedding)
    # A picture alone is judged as in company.
    assert torch.allclose(again(pictures[:1]).embedding, again(pictures, batch=2).embedding[:1], atol=1e-5)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    tiny_judge().save(tmp_path)
    content = json.loads((tmp_path / "judge.json").read_text())
    (tmp_path / "judge.json").write_text(json.dumps({**content, "concepts": ["one"]}))
    with pytest.raises(WeightsError, match="does not fit its judge"):
        Judge.load(tmp_path)
    (tmp_path / "judge.json").write_text(json.dumps(content))
    weights = bytearray((tmp_path / "judge.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "judge.safetensors").write_bytes(weights)
    with pytest.raises(WeightsError, match="expected sha256"):
        Judge.load(tmp_path)
    (tmp_path / "judge.safetensors").unlink()
    with pytest.raises(WeightsError, match="missing file"):
        Judge.load(tmp_path)
    (tmp_path / "judge.json").write_text("{")
    with pytest.raises(WeightsError, match="damaged file"):
        Judge.load(tmp_path)
    with pytest.raises(WeightsError, match="sfumato train judge"):
        Judge.load(tmp_path / "nowhere")


def test_wrong_pictures_are_refused() -> None:
    judge = tiny_judge()
    with pytest.raises(UsageError, match=r"\(B, 3, 32, 32\)"):
        judge(torch.zeros(1, 3, 64, 64))
    pictures = torch.zeros(3, 3, 32, 32)
    pictures[1, 0, 0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"1 of 3 .* rows \[1\]"):
        judge(pictures)
    assert len(judge(pictures[:0]).concept) == 0
    with pytest.raises(ConfigError, match="96"):
        JudgeConfig(working=100)
    with pytest.raises(ConfigError, match="at least its working size"):
        JudgeConfig(size=32)


def test_augmentation_is_deterministic_and_keeps_the_paper_white() -> None:
    images, full = torch.full((6, 3, 32, 32), 255, dtype=torch.uint8), torch.ones(6)
    images[:, :, 10:20, 8:24] = torch.tensor([200, 30, 40], dtype=torch.uint8)[:, None, None]
    first, second = augment(images, Draws(3, 5), 32, full), augment(images, Draws(3, 5), 32, full)
    assert torch.equal(first, second) and not torch.equal(first, augment(images, Draws(3, 6), 32, full))
    assert first.shape == (6, 3, 32, 32) and first.min() >= -1 and first.max() <= 1
    assert torch.allclose(augment(images, Draws(3, 5), 32, 0 * full), images.float() / 127.5 - 1, atol=1e-4)
    assert augment(images, Draws(3, 5), 16, full).shape == (6, 3, 16, 16)
    blank = torch.full((64, 3, 32, 32), 255, dtype=torch.uint8)
    assert (augment(blank, Draws(0, 0), 32, torch.ones(64)) == 1).flatten(1).all(1).sum() > 16  # those without texture or cover


def test_no_picture_is_ever_mirrored() -> None:
    corners = torch.tensor([[float(b) for b in f"{n:08b}"] for n in range(256)]) * 2 - 1
    assert (torch.linalg.det(homographies(corners)[:, :2, :2]) > 0).all()


def test_captions_fit_by_concept_and_by_style_where_they_name_one() -> None:
    concept, style = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0])
    styled = torch.tensor([True, False, True])
    assert matches(concept, style, styled).tolist() == [[True, True, False], [False, True, False], [False, False, True]]


def batch() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        "drawings.images": torch.randint(0, 256, (8, 3, 32, 32), generator=g, dtype=torch.uint8),
        "drawings.others": torch.randint(0, 256, (8, 2, 3, 32, 32), generator=g, dtype=torch.uint8),
        "drawings.concept": torch.arange(8) % 4,
        "drawings.style": torch.arange(8) % 2,
        "drawings.text": torch.randn(8, 5, 384, generator=g).half(),
        "things.images": torch.randint(0, 256, (4, 3, 32, 32), generator=g, dtype=torch.uint8),
        "things.concept": torch.arange(4),
        "things.style": torch.arange(4) % 2,
        "things.colour": torch.arange(4),
    }


def test_the_loss_is_a_pure_function_of_its_draws() -> None:
    torch.manual_seed(0)
    task = JudgeTask(JudgeNet(TINY, 4, 2), JudgeTaskConfig(small_steps=2, small_side=32), 32, torch.randn(4, 384), torch.arange(4) > 2)
    losses = [task.loss(Phase("judge", ("judge",)), batch(), {}, Draws(0, step)).total.detach() for step in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2] and all(loss.isfinite() for loss in losses)


def test_what_a_task_learns_of_each_picture() -> None:
    """Styles are learned from drawings as they are and from things, colours from things alone."""
    torch.manual_seed(0)
    net = JudgeNet(TINY, 4, 2)
    task = JudgeTask(net, JudgeTaskConfig(dropout=0.0), 32, torch.randn(4, 384), torch.arange(4) > 2)

    def metrics(**changed: torch.Tensor) -> dict[str, float]:
        found = task.loss(Phase("judge", ("judge",)), batch() | changed, {}, Draws(0, 9)).metrics
        return {name: float(value.detach()) for name, value in found.items()}

    plain, flipped = metrics(), 1 - torch.arange(8) % 2
    redrawn = torch.where(torch.arange(8) % 2 == 1, flipped, 1 - flipped)
    assert metrics(**{"drawings.style": redrawn})["style"] == plain["style"]  # every other one comes by another hand
    assert metrics(**{"drawings.style": flipped})["style"] != plain["style"]
    recoloured = metrics(**{"things.colour": torch.full((4,), 9)})
    assert recoloured["colour"] != plain["colour"] and recoloured["concept"] == plain["concept"]


def test_the_recipe_trains_measures_and_saves(tmp_path: Path) -> None:
    few = TrainConfig(steps=2, checkpoint_seconds=999)
    sets = Sets(hands=1, scenes=6, held_out=4)
    recipe = JudgeRecipe(
        net=TINY,
        task=JudgeTaskConfig(small_steps=1, small_side=32),
        sets=sets,
        batch=8,
        things=4,
        train=few,
        style=few,
        locate=few,
        read=few,
    )
    judge = train_judge(FIXTURE, tmp_path / "judge", recipe, tmp_path / "run", quiet=True)
    assert judge.card["trained_on"]["scenes"] == 6 and judge.card["held_out"]["count"] > 0 and judge.card["scenes"]["scenes"] == 4
    loaded = Judge.load(tmp_path / "judge")
    assert loaded.card == json.loads(json.dumps(judge.card))
    picture = torch.rand(2, 3, 32, 32) * 2 - 1
    assert loaded.detect(picture) == Judge.load(tmp_path / "judge").detect(picture)
    again = train_judge(FIXTURE, tmp_path / "again", replace(recipe), tmp_path / "run2", quiet=True)
    assert all(torch.equal(a, b) for a, b in zip(judge.net.state_dict().values(), again.net.state_dict().values(), strict=True))


def test_other_sets_teach_no_style_on_which_the_judge_is_measured_and_no_held_out_drawing(tmp_path: Path) -> None:
    few = TrainConfig(steps=1)
    recipe = JudgeRecipe(net=TINY, sets=Sets(1, 2, (1,), 2), train=few, style=few, locate=few, read=few)
    with pytest.raises(DataError, match="on which the judge is measured"):
        train_judge(FIXTURE, tmp_path / "judge", recipe, tmp_path / "run", more=FIXTURE, quiet=True)

    def pictures(*rows: tuple[int, str, str]) -> Pictures:
        shades, concepts, splits = zip(*rows, strict=True)
        images = torch.stack([torch.full((3, 4, 4), shade, dtype=torch.uint8) for shade in shades])
        some = ("x",) * len(rows)
        return Pictures(images, concepts, some, some, splits, some, (some,) * len(rows))

    held = pictures((100, "cat", "test"), (100, "dog", "train"))
    others = pictures(
        (int(100 + COPY - 1), "cat", "train"), (int(100 + COPY + 1), "cat", "train"), (100, "dog", "train"), (100, "cow", "train")
    )
    assert near_copies(others, held) == {0}


def test_a_judge_without_eyes_refuses_scenes() -> None:
    with pytest.raises(WeightsError, match="sfumato train judge"):
        tiny_judge().detect(torch.zeros(1, 3, 32, 32))


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="no judge is shipped in this checkout")
def test_the_shipped_judge_loads_and_states_its_accuracy() -> None:
    judge = Judge.load()
    assert (SHIPPED / "judge.safetensors").stat().st_size <= 24 * 2**20
    assert len(judge.styles) == 6 and judge.card["held_out"]["concept_top1"]["value"] > 0.6
    assert judge(torch.ones(1, 3, 128, 128)).embedding.norm().item() == pytest.approx(1.0, abs=1e-3)
