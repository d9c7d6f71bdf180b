"""Mixtures of experts against their explicit sum, gradients and idle experts included; the balance loss at its ends."""

import pytest
import torch

from sfumato.core.call import Call
from sfumato.core.errors import ConfigError, UsageError
from sfumato.nn.linear import name_linears
from sfumato.nn.moe import Experts, MixtureOfExperts
from sfumato.surgery.lora import Delta, LoraAdapter

EVERYONE = torch.ones(2, 7, dtype=torch.bool)


def mixture(count: int = 4, active: int = 2, seed: int = 0) -> MixtureOfExperts:
    torch.manual_seed(seed)
    return MixtureOfExperts(6, 10, 4, count, active)


def explicit(mixed: MixtureOfExperts, x: torch.Tensor) -> torch.Tensor:
    """Every expert on every token."""
    p = mixed.router(x).softmax(-1)
    kept = torch.zeros_like(p).scatter(-1, p.topk(mixed.active).indices, 1.0) * p
    return mixed.shared(x) + sum(kept[..., e : e + 1] * expert(x) for e, expert in enumerate(mixed.experts))


@pytest.mark.parametrize(("count", "active"), [(4, 2), (3, 1), (5, 5), (1, 1)])
def test_it_is_the_shared_expert_and_the_weighted_sum_of_the_chosen(count: int, active: int):
    mixed, x = mixture(count, active), torch.randn(2, 7, 6)
    answers, gradients = [], []
    for form in (mixed, lambda y: explicit(mixed, y)):
        mixed.zero_grad()
        leaf = x.clone().requires_grad_(True)
        answers.append(form(leaf))
        answers[-1].square().sum().backward()
        gradients.append([leaf.grad, *(p.grad.clone() for p in mixed.parameters())])
    assert (answers[0] - answers[1]).abs().max() < 1e-6
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    _, weights, _ = mixed.route(x)
    assert (weights.sum(-1) < 1).all() or active == count


def test_an_expert_without_tokens_gives_zero_gradients_rather_than_none():
    mixed, x = mixture(), torch.randn(2, 7, 6).abs()
    mixed.router.weight.data = torch.tensor([3.0, 2.0, 0.0, -1.0])[:, None].expand(4, 6).clone()
    assert mixed.route(x)[2].unique().tolist() == [0, 1]
    y = mixed(x)
    torch.testing.assert_close(y, explicit(mixed, x))
    y.sum().backward()
    assert all(p.grad is not None and p.grad.any() == (e < 2) for e, expert in enumerate(mixed.experts) for p in expert.parameters())
    assert mixed(x[:, :0]).shape == (2, 0, 6)


def test_a_bank_answers_its_rows_in_order():
    bank, x = mixture().experts, torch.randn(6, 6)
    y = bank(x, torch.tensor([1, 0, 3, 2]))
    torch.testing.assert_close(y, torch.cat([bank[0](x[:1]), bank[2](x[1:4]), bank[3](x[4:])]))
    assert isinstance(bank, Experts) and bank.cost == 3 * 6 * 10


def test_the_balance_is_one_when_even_and_grows_to_count_over_active():
    mixed, x = mixture(), torch.randn(2, 7, 6).abs()
    torch.nn.init.zeros_(mixed.router.weight)
    assert mixed.balance(x, EVERYONE).item() == pytest.approx(1.0, abs=1e-6)
    mixed.router.weight.data = torch.tensor([1e3, 1e3, -1e3, -1e3])[:, None].expand(4, 6).clone()
    assert mixed.balance(x, EVERYONE).item() == pytest.approx(2.0, abs=1e-6)


def test_padding_has_no_say_in_the_balance():
    mixed, x, keep = mixture(), torch.randn(2, 7, 6), EVERYONE.clone()
    keep[0, 4:] = False
    alone = torch.cat([x[0, :4], x[1]])[None]
    torch.testing.assert_close(mixed.balance(x, keep), mixed.balance(alone, torch.ones(1, 11, dtype=torch.bool)))
    assert mixed.balance(x, ~EVERYONE).item() == 0.0


def test_units_are_experts_with_all_they_own():
    mixed = mixture()
    units = mixed.units("core")
    names = {f"core.{n}" for n, _ in mixed.named_parameters()}
    assert (units.kind, units.count, units.slices) == ("experts", 4, {"core.router.weight": (0, 1)})
    owned = [name for expert in units.whole for name in expert]
    assert len(owned) == len(set(owned)) == 12 and set(owned) < names
    assert units.whole[2] == tuple(f"core.experts.2.{part}.weight" for part in ("gate", "up", "down"))


def test_adapters_act_on_experts_and_each_row_may_have_a_weight_of_its_own():
    mixed, x = mixture(), torch.randn(2, 7, 6)
    name_linears(mixed)
    delta = Delta(torch.randn(2, 6), torch.randn(10, 2), 1.0)
    names = [f"experts.{e}.up" for e in range(4)]
    y = mixed(x, Call(adapters=dict.fromkeys(names, LoraAdapter(((delta, 0.5),)))))
    changed = mixture()
    for expert in changed.experts:
        expert.up.weight.data += 0.5 * delta.up @ delta.down
    torch.testing.assert_close(y, changed(x))
    apart = Call(adapters=dict.fromkeys(names, LoraAdapter(((delta, torch.tensor([0.0, 0.5])),))))
    torch.testing.assert_close(mixed(x, apart), torch.cat([mixture()(x[:1]), changed(x[1:])]))
    with pytest.raises(UsageError, match="2 weights for 3 rows"):
        mixed(torch.randn(3, 7, 6), apart)


@pytest.mark.parametrize(("count", "active"), [(4, 5), (4, 0)])
def test_impossible_numbers_of_experts_are_refused(count: int, active: int):
    with pytest.raises(ConfigError, match=f"{active} of 4 experts"):
        mixture(count, active)
