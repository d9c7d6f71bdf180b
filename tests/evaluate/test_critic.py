"""The critic: its files are strict, a row is itself, garbage in the padding changes nothing, wrong input is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato.core.errors import ConfigError, NonFiniteError, UsageError, WeightsError
from sfumato.evaluate.critic import Critic
from sfumato.evaluate.critic_net import CriticConfig, CriticNet
from sfumato.evaluate.scorers import load_scorer

SHIPPED = Path(str(files("sfumato") / "assets" / "critic"))
TINY = CriticConfig(size=32, stem=(8, 8), width=16, heads=2, hidden=16, sight=1, layers=2)


def tiny_critic() -> Critic:
    """An untrained critic of 32 px pictures, its norms away from their start so that everything shows."""
    torch.manual_seed(0)
    net = CriticNet(TINY)
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return Critic(net, TINY, {"held_out": {}})


PROMPTS = ["a cat", "a much longer prompt about two red foxes to the left of a key, noto style", "a cat, noto style"]


def pictures(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_a_saved_critic_scores_the_same(tmp_path: Path) -> None:
    critic = tiny_critic()
    critic.save(tmp_path / "mine")
    again = load_scorer(str(tmp_path / "mine"))
    assert isinstance(again, Critic) and (again.config, again.card) == (TINY, critic.card)
    assert again.name.startswith("mine (") and len(again.name) == len("mine ()") + 12
    assert torch.allclose(critic(pictures(), PROMPTS), again(pictures(), PROMPTS), atol=5e-3)  # fp16 on disk
    assert torch.equal(again(pictures(), PROMPTS), Critic.load(tmp_path / "mine")(pictures(), PROMPTS))


def test_a_row_is_itself_and_both_sides_count() -> None:
    critic = tiny_critic()
    together = critic(pictures(), PROMPTS)
    assert together.shape == (3,) and together.dtype == torch.float32
    alone = torch.cat([critic(pictures()[i : i + 1], PROMPTS[i : i + 1]) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-5) and torch.allclose(together, critic(pictures(), PROMPTS, batch=2), atol=1e-5)
    other_words = critic(pictures(), ["a cat"] * 3)
    assert other_words[0] == pytest.approx(float(together[0]), abs=1e-5) and (other_words[1:] != together[1:]).all()
    assert (critic(pictures().flip(0), PROMPTS)[:1] - together[:1]).abs() > 1e-4


def test_what_stands_in_the_padding_changes_nothing() -> None:
    net = tiny_critic().net
    states, keep = torch.randn(2, 5, 384), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    place, seen = torch.tensor([1, 0]), net.see(pictures(2))
    plain = net.ask(seen, place, states, keep)
    garbage = torch.cat([torch.where(keep[..., None], states, 99.0), torch.full((2, 3, 384), -99.0)], 1)
    padded = net.ask(seen, place, garbage, torch.cat([keep, torch.zeros(2, 3, dtype=torch.bool)], 1))
    assert torch.allclose(plain, padded, atol=1e-5)


def test_its_size() -> None:
    assert sum(p.numel() for p in CriticNet(CriticConfig()).parameters()) < 6_000_000


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    tiny_critic().save(tmp_path)
    content = json.loads((tmp_path / "critic.json").read_text())
    for change, said in ({"config": {**content["config"], "layers": 1}}, "does not fit"), ({"config": {"widht": 3}}, "damaged file"):
        (tmp_path / "critic.json").write_text(json.dumps({**content, **change}))
        with pytest.raises(WeightsError, match=said):
            Critic.load(tmp_path)
    (tmp_path / "critic.json").write_text(json.dumps(content))
    weights = bytearray((tmp_path / "critic.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "critic.safetensors").write_bytes(weights)
    with pytest.raises(WeightsError, match="expected sha256"):
        Critic.load(tmp_path)
    (tmp_path / "critic.safetensors").rename(tmp_path / "critic.bin")  # a pickle would have this name; only safetensors are read
    with pytest.raises(WeightsError, match="missing file"):
        Critic.load(tmp_path)
    with pytest.raises(WeightsError, match="sfumato train critic"):
        Critic.load(tmp_path / "nowhere")


def test_wrong_input_is_refused() -> None:
    critic = tiny_critic()
    with pytest.raises(UsageError, match=r"(?s)the critic .*\(B, 3, 32, 32\)"):
        critic(torch.zeros(1, 3, 64, 64), ["a"])
    with pytest.raises(UsageError, match="1 pictures and 2 prompts"):
        critic(pictures(1), ["a", "b"])
    with pytest.raises(NonFiniteError, match=r"1 of 2 .* rows \[1\]"):
        critic(torch.stack([torch.zeros(3, 32, 32), torch.full((3, 32, 32), torch.nan)]), ["a", "b"])
    assert len(critic(pictures(0), [])) == 0


@pytest.mark.parametrize("change", [{"size": 100}, {"heads": 5}, {"width": 18, "heads": 2}, {"layers": 0}, {"sight": -1}])
def test_impossible_shapes_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="the critic"):
        replace(CriticConfig(), **change)


@pytest.mark.parametrize(
    "change",
    [
        {"stem": (16, 8)},
        {"stem": (8, 16)},
        {"width": 32},
        {"heads": 4},
        {"hidden": 8},
        {"sight": 2},
        {"layers": 3},
        {"size": 48},
        {"text": 8},
    ],
)
def test_every_field_of_the_shape_bites(change: dict[str, Any]) -> None:
    assert set(change) <= set(CriticConfig.__dataclass_fields__)
    nets = [CriticNet(config) for config in (TINY, replace(TINY, **change))]
    plain, turned = ({name: tuple(t.shape) for name, t in net.state_dict().items()} for net in nets)
    heads = [net.blocks[0].own.heads for net in nets]
    assert plain != turned or heads[0] != heads[1]


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="no critic is shipped in this checkout")
def test_the_shipped_critic_loads_and_states_its_accuracy() -> None:
    critic = Critic.load()
    assert (SHIPPED / "critic.safetensors").stat().st_size <= 12 * 2**20 and critic.name.startswith("critic (")
    assert critic.card["recipe"]["train"]["seed"] == 1
    for kind in ("drawings", "scenes"):
        found = critic.card["held_out"][kind]
        assert found["preferred"]["low"] > 0.5, kind
    white = torch.ones(1, 3, 128, 128)
    assert critic(white, ["a cat"]).isfinite().all()
