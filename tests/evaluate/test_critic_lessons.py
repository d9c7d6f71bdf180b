"""What the critic learns from is true or wrong as it says; loss and training are functions of the seed; its card counts right."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato.core.errors import DataError
from sfumato.core.rng import Draws
from sfumato.data.packages import TRAINABLE
from sfumato.data.scenes import Cast, captions_of, scene
from sfumato.data.sources import open_source
from sfumato.evaluate.critic import Critic
from sfumato.evaluate.critic_card import preferences, scene_questions
from sfumato.evaluate.critic_lessons import STYLED, WRONG, Pair, Rivals, drawing_pairs, other_scene, scene_pairs
from sfumato.evaluate.critic_net import CriticNet
from sfumato.evaluate.critic_recipe import CriticRecipe, learn, scenes_of, train_critic
from sfumato.evaluate.critic_task import Aligner, CriticTask, CriticTaskConfig
from sfumato.evaluate.lessons import scenery
from sfumato.evaluate.pictures import Pictures
from sfumato.evaluate.sentences import Phrases
from sfumato.training.loop import TrainConfig
from sfumato.training.optimizers import OptimizerConfig

from .test_critic import PROMPTS, TINY, pictures

FIXTURE = Path(__file__).parents[1] / "data" / "fixture"


def fixture_pictures() -> Pictures:
    return Pictures.of(open_source(FIXTURE, split=None, licences=None, size=32))


def test_wrong_captions_of_drawings_keep_the_form_and_the_other_name() -> None:
    drawn = fixture_pictures()
    rivals = Rivals(drawn, range(len(drawn)))
    facts = set()
    for row in range(len(drawn)):
        for form in range(len(STYLED)):
            pairs = drawing_pairs(rivals, row, form, random.Random(row))
            assert len(pairs) in (0, WRONG)
            for pair in pairs:
                facts.add(pair.fact)
                assert pair.true == drawn.captions[row][form] and pair.wrong not in drawn.captions[row]
                others = [r for r in range(len(drawn)) if drawn.captions[r][form] == pair.wrong]
                kept, changed = (drawn.style, drawn.concept) if pair.fact == "concept" else (drawn.concept, drawn.style)
                assert any(kept[r] == kept[row] and changed[r] != changed[row] for r in others)
                assert pair.fact == "concept" or STYLED[form]
    assert facts == {"concept", "style"}


def test_wrong_captions_of_scenes_are_wrong_in_one_fact() -> None:
    cast = Cast.open(FIXTURE)
    made = [scene(cast, 0, i, 1 + i % 5) for i in range(20)]
    pairs = [scene_pairs(cast, one, random.Random(0)) for one in made]
    assert {pair.fact for some in pairs for pair in some} >= {"count", "colour", "concept", "background", "relation", "word"}
    for one, some in zip(made, pairs, strict=True):
        for pair in some:
            assert pair.true in captions_of(one) and pair.wrong not in captions_of(one)
            a, b = pair.true.split(), pair.wrong.split()
            assert a[:2] == b[:2] or a[-1] == b[-1], pair  # only something in between differs
            assert pair.true.startswith("A picture") == pair.wrong.startswith("A picture")
    rng = random.Random(0)
    for m, some in enumerate(pairs):
        other = other_scene(pairs, m, some[0].fact, rng)
        assert other.true == some[0].true and other.wrong not in captions_of(made[m])
        assert any(other.wrong in captions_of(one) for one in made)
    assert other_scene(pairs[:1], 0, "count", rng).wrong == pairs[0][0].wrong  # a world of one scene


def test_phrases_give_back_every_state() -> None:
    texts = ["a cat", "two red foxes and a key", "a cat", "one"]
    phrases = Phrases(texts)
    assert len(phrases.number) == 3
    states, keep = phrases.states(torch.tensor([phrases.number[text] for text in texts]))
    whole = Phrases([texts[1]], torch.float32)
    alone, all_kept = whole.states(torch.tensor([0]))
    assert all_kept.all() and torch.allclose(states[1][keep[1]].float(), alone[0], atol=2e-3)
    assert torch.equal(states[0], states[2]) and not states[~keep].any() and keep.sum(1).tolist() == [4, 8, 4, 3]
    assert phrases.states(torch.zeros(0, dtype=torch.long))[0].shape == (0, 0, 384)


def batch() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 7, (6, 1 + WRONG), generator=g)
    keep = torch.arange(6) < lengths[..., None]
    return {
        "images": torch.randint(0, 256, (6, 3, 32, 32), generator=g, dtype=torch.uint8),
        "scene": torch.arange(6) >= 3,
        "states": torch.randn(6, 1 + WRONG, 6, 384, generator=g).half() * keep[..., None],
        "keep": keep,
    }


def losses(step: int = 9, given: dict[str, Tensor] | None = None, **config: Any) -> dict[str, float]:
    torch.manual_seed(0)
    net, aligner = CriticNet(TINY), Aligner(TINY)
    task = CriticTask(net, aligner, CriticTaskConfig(**{"alone": 0} | config))
    found = task.loss(task.phases(0)[0], given or batch(), {}, Draws(0, step))
    return {"total": float(found.total.detach())} | {name: float(value.detach()) for name, value in found.metrics.items()}


def test_the_loss_is_a_pure_function_of_its_draws_and_every_weight_bites() -> None:
    plain = losses()
    assert plain == losses() != losses(step=10)
    assert losses(prefer=2.0)["total"] == pytest.approx(plain["total"] + plain["prefer"], abs=1e-5)
    assert losses(align=1.0)["total"] == pytest.approx(plain["total"] + 0.5 * plain["align"], abs=1e-5)
    assert losses(mild=1.0)["total"] != plain["total"] != losses(slight=1.0)["total"]
    assert losses(alone=10) == {"total": pytest.approx(plain["align"]), "align": pytest.approx(plain["align"])}
    # Captions parted by length score as they do together.
    assert losses(lengths=1) == pytest.approx(plain, abs=1e-5)


def test_scores_go_back_to_their_captions() -> None:
    plain, turned = batch(), batch()
    order = torch.tensor([0, 2, 1])  # the wrong captions change places; nothing else may change
    turned |= {"states": plain["states"][:, order], "keep": plain["keep"][:, order]}
    assert losses(given=turned) == pytest.approx(losses(given=plain), abs=1e-5)
    turned |= {"states": plain["states"].flip(1), "keep": plain["keep"].flip(1)}
    assert losses(given=turned)["prefer"] != pytest.approx(losses(given=plain)["prefer"], abs=1e-6)


class ByLength(Critic):
    """Believes short captions: more than 5 letters are false."""

    def __init__(self) -> None:
        self.config = TINY

    def ask(self, images: Tensor, captions: Any, place: Tensor, batch: int = 64) -> Tensor:
        return torch.tensor([5.5 - len(caption) for caption in captions])


def test_the_card_counts_by_fact() -> None:
    images = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    pairs = [[Pair("count", "a", "bb"), Pair("style", "aaaaaaa", "bbbbbb")], [Pair("count", "aaa", "bbb")], []]
    found = preferences(ByLength(), images, pairs)
    assert (found["preferred"]["value"], found["preferred"]["count"], found["pictures"]) == (pytest.approx(1 / 3), 3, 3)
    assert {fact: (rate["value"], rate["count"]) for fact, rate in found["by_fact"].items()} == {"count": (0.5, 2), "style": (0.0, 1)}
    assert found["true"]["value"] == pytest.approx(2 / 3) and found["wrong"]["value"] == pytest.approx(1 / 3)
    assert found["preferred"]["low"] < 1 / 3 < found["preferred"]["high"]
    assert preferences(ByLength(), images, [[], [], []])["preferred"]["count"] == 0


def tiny_recipe(**changed: Any) -> CriticRecipe:
    few = TrainConfig(steps=3, optimizer=OptimizerConfig(name="muon", warmup=1, decay="none"), seed=1, checkpoint_seconds=999)
    task = CriticTaskConfig(alone=1)
    return replace(CriticRecipe(net=TINY, task=task, batch=4, scenes=4, composed=6, held_out=4, train=few), **changed)


def test_the_recipe_trains_measures_saves_and_goes_on(tmp_path: Path) -> None:
    recipe = tiny_recipe()
    critic = train_critic(FIXTURE, tmp_path / "critic", recipe, tmp_path / "run", quiet=True)
    card = critic.card
    assert card["trained_on"]["scenes"] == 6 and card["held_out"]["scenes"]["pictures"] == 4
    assert "scene" in card["held_out"]["scenes"]["by_fact"] and card["held_out"]["drawings"]["preferred"]["count"] > 0
    loaded = Critic.load(tmp_path / "critic")
    assert loaded.card == json.loads(json.dumps(card))
    # What was measured is what was saved.
    assert torch.equal(loaded(pictures(), PROMPTS), critic(pictures(), PROMPTS))
    # Stopped after one step and gone on: the same weights, bit for bit.
    short = replace(recipe, train=replace(recipe.train, steps=1))
    stopped = train_critic(FIXTURE, tmp_path / "again", short, tmp_path / "run-again", quiet=True)
    resumed = train_critic(FIXTURE, tmp_path / "again", recipe, tmp_path / "run-again", quiet=True)
    whole, half, gone_on = (one.net.state_dict() for one in (critic, stopped, resumed))
    assert all(torch.equal(whole[name], gone_on[name]) for name in whole)
    assert not torch.equal(whole["verdict.1.weight"], half["verdict.1.weight"])


def test_what_the_lessons_show() -> None:
    drawn, cast, recipe = fixture_pictures(), Cast.open(FIXTURE), tiny_recipe()
    scenes = scenery(FIXTURE, 6, ("train",), seed=2, difficulties=recipe.difficulties, size=32)
    lessons, rows = learn(drawn, scenes, scene_questions(cast, scenes, 1), recipe)
    assert all(drawn.split[row] == "train" and drawn.licence[row] in TRAINABLE for row in rows)
    first = lessons.batch(0)
    assert first["scene"].tolist() == [False] * 4 + [True] * 4 and first["keep"].shape[:2] == (8, 1 + WRONG)
    again, later = lessons.batch(0), lessons.batch(1)
    assert all(torch.equal(first[name], again[name]) for name in first) and not torch.equal(first["images"], later["images"])
    shown = {picture.numpy().tobytes() for picture in first["images"]}
    assert shown <= {p.numpy().tobytes() for p in (*drawn.images[torch.tensor(rows)], *scenes.images)}
    wider, _ = learn(drawn, scenes, scene_questions(cast, scenes, 1), replace(recipe, batch=2, scenes=3))
    assert wider.batch(0)["scene"].tolist() == [False] * 2 + [True] * 3
    with pytest.raises(DataError, match="no drawings to train a critic on"):
        learn(replace(drawn, split=("test",) * len(drawn)), scenes, scene_questions(cast, scenes, 1), recipe)


def test_scenes_are_of_the_asked_difficulties() -> None:
    made = scenes_of(FIXTURE, tiny_recipe(difficulties=(1,)), "train", 4)
    assert len(made) == 4 and all(len(one.groups) == 1 for one in made.scenes)
    assert any(len(one.groups) > 1 for one in scenes_of(FIXTURE, tiny_recipe(difficulties=(5,)), "train", 4).scenes)
