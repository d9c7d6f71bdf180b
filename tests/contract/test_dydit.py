"""DyDiT: small routers switch heads and groups of hidden channels by t, and tokens of the MLP by their own state.

Exercises organs (modules with weights attached to branches, saved and optimised with the model), units as parameter slices and as costs,
adapters that mask a Linear's input, a branch hook that gathers tokens for the core and scatters its answer, and noise drawn beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass

import pytest
import torch
from tests.builders import conditions, image, mmdit
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from sfumato.backbones.mmdit import MMDiT, MMDiTConfig
from sfumato.core.call import Adapter, Call, Core, Footprint, Session, Site
from sfumato.core.program import Network
from sfumato.core.state import State
from sfumato.core.weights import assign_strictly

HEADS, WIDTH, TEXT = 2, 32, conditions([5, 3])
Masks = Mapping[str, Tensor]


class TokenRouter(nn.Sequential):
    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, width // 16), nn.ReLU(), nn.Linear(width // 16, 1))
        nn.init.constant_(self[2].bias, 35.0)


def attach(net: Network) -> Network:
    """The surgery's structure: a width router per branch, a token router per MLP. Fresh routers leave everything on."""
    for block in net.blocks:
        for branch in block.branches():
            branch.router = nn.Linear(WIDTH, HEADS - 1)
            nn.init.constant_(branch.router.bias, 15.0)
        block.get_submodule("mlp").tokens = TokenRouter(WIDTH)
    return net


def on(logits: Tensor, noise: Tensor | None = None) -> Tensor:
    """1 where sigmoid > 1/2, with the gradient of sigmoid((logits + noise) / 5) while training."""
    hard = ((logits if noise is None else logits + noise) > 0).to(logits.dtype)
    if noise is None:
        return hard
    soft = torch.sigmoid((logits + noise) / 5)
    return hard + (soft - soft.detach())


def widths(net: Network, time: Tensor, noise: Mapping[str, Tensor] | None = None) -> Masks:
    """(B, H) by site from E_t (B, D) alone: tabulated before the forward. Unit 0 is always on."""
    found = {}
    for info in net.sites():
        name = str(info.site)
        logits = net.get_submodule(name).router(time)
        found[name] = torch.cat([torch.ones_like(logits[:, :1]), on(logits, noise[name] if noise else None)], dim=1)
    return found


def masking(mask: Tensor) -> Adapter:
    """Zeroes the inputs of a Linear that belong to units switched off (GELU(0) = 0, so hidden channels may be masked after it)."""
    return lambda linear, x, base, call: base(x * mask.repeat_interleave(x.shape[-1] // mask.shape[1], 1)[:, None])


def adapters(net: Network, masks: Masks) -> dict[str, Adapter]:
    """The Linears that read a site's units are those it owns along dimension 1."""
    owned = ((info, units) for info in net.sites() for units in info.units)
    return {
        name.removesuffix(".weight"): masking(masks[str(info.site)])
        for info, units in owned
        for name, (dim, _) in units.slices.items()
        if dim == 1
    }


@dataclass
class TokenSession(Session):
    """Image tokens that their router drops keep only their residual. `gather`: run the core on the kept tokens of the whole batch."""

    net: Network
    gather: bool = False
    footprint = Footprint(frozenset({"branch"}), writes=frozenset({"mlp"}))

    def branch(self, site: Site, state: State, inputs: Mapping[str, Tensor], compute: Core, call: Call) -> Mapping[str, Tensor]:
        if site.branch != "mlp":
            return compute(inputs)
        mask = on(self.net.get_submodule(str(site)).tokens(state["image"]), call.noise.get(str(site)))
        if not self.gather:
            out = compute(inputs)
            return {**out, "image": mask * out["image"]}
        kept = mask[..., 0] > 0
        out = compute({**inputs, "image": inputs["image"][kept][None]})
        return {**out, "image": torch.zeros_like(inputs["image"]).index_put((kept,), out["image"][0])}


def sliced(net: Network, masks: Masks) -> Network:
    """A smaller network that owns only the units switched on; one t, so one mask for all rows."""
    small = deepcopy(net)
    for info in net.sites():
        for units in info.units:
            unit = masks[str(info.site)][0].bool().repeat_interleave(units.count // HEADS)
            for name, (dim, each) in units.slices.items():
                parameter = small.get_parameter(name)
                parameter.data = parameter.data.index_select(dim, unit.repeat_interleave(each).nonzero()[:, 0])
    return small


def time_of(net: Network, t: float | None = None) -> Tensor:
    return net.start(image(t=t), TEXT).cond["time"]


def answer(net: Network, call: Call | None = None, t: float | None = None) -> Tensor:
    return net(image(t=t), TEXT, call).pred["image"]


def test_fresh_routers_change_nothing_and_belong_to_the_model() -> None:
    base = mmdit()
    net = attach(mmdit())
    dynamic = Call((TokenSession(net),), adapters(net, widths(net, time_of(net))))
    assert torch.equal(answer(net, dynamic), answer(base)) and torch.equal(answer(net), answer(base))
    assert {n for info in net.sites() for n in info.parameters} == {n for n, _ in net.named_parameters() if n.startswith("blocks.")}
    loaded = attach(MMDiT(net.config))
    assign_strictly(loaded, net.state_dict(), "here")
    assert torch.equal(answer(loaded, Call((TokenSession(loaded),))), answer(base))


def test_width_masks_see_time_alone_and_keep_unit_zero() -> None:
    net = attach(mmdit())
    for info in net.sites():
        net.get_submodule(str(info.site)).router.bias.data.fill_(-100.0)
    a = net.start(image(seed=0, t=0.4), TEXT).cond["time"]
    b = net.start(image(seed=1, t=0.4), conditions([2, 2], seed=7)).cond["time"]
    assert torch.equal(a, b) and not torch.equal(a, time_of(net, 0.8))
    assert all(mask.tolist() == [[1.0, 0.0]] * 2 for mask in widths(net, a).values())


@torch.no_grad()
@pytest.mark.parametrize("site", ["attention", "mlp", "both"])
def test_masking_units_equals_slicing_their_parameters(site: str) -> None:
    net = attach(mmdit())
    masks = {str(i.site): torch.tensor([[1.0, float(site not in (i.site.branch, "both"))]] * 2) for i in net.sites()}
    small = sliced(net, masks)
    assert torch.allclose(answer(net, Call(adapters=adapters(net, masks))), answer(small), atol=1e-5)
    assert not torch.allclose(answer(small), answer(net), atol=1e-3)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in net.parameters())


@torch.no_grad()
def test_gathering_kept_tokens_equals_masking_dropped_ones() -> None:
    net = attach(mmdit())
    for block in net.blocks:
        nn.init.normal_(block.get_submodule("mlp").tokens[2].weight, std=20.0)
        nn.init.zeros_(block.get_submodule("mlp").tokens[2].bias)
    masked = answer(net, Call((TokenSession(net),)))
    assert torch.allclose(masked, answer(net, Call((TokenSession(net, gather=True),))), atol=1e-5)
    assert not torch.allclose(masked, answer(net), atol=1e-3)
    tokens = net.blocks[0].get_submodule("mlp").tokens
    nn.init.zeros_(tokens[2].weight)
    tokens[2].bias.data.fill_(-1.0)
    state = net.start(image(), TEXT)
    skipped = net.blocks[0](state, Call((TokenSession(net, gather=True),)))
    deltas = net.blocks[0].get_submodule("attention")(state, Site(0, "attention"), None)[0]
    assert torch.equal(skipped["image"], state["image"] + deltas["image"])


def test_site_costs_give_the_papers_ratios() -> None:
    with torch.device("meta"):
        net = MMDiT(MMDiTConfig(depth=2, width=1152, heads=16))
    attention, mlp = (info.cost({"image": 256, "text": 0}) for info in net.sites()[:2])
    assert (attention / 1e9, mlp / 1e9) == (pytest.approx(1.50995, abs=1e-5), pytest.approx(2.71791, abs=1e-5))
    ratio = lambda heads, groups, tokens: (heads * attention + groups * tokens * mlp) / (attention + mlp)  # noqa: E731
    assert ratio(0.5, 1, 1) == pytest.approx(0.82143, abs=1e-5) and ratio(0.5, 1, 0.5) == pytest.approx(0.5)
    assert 2 * (ratio(0.5, 0.5, 0.5) - 0.5) ** 2 == pytest.approx(0.051658, abs=1e-6)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_routers_learn_with_the_model(checkpointing: bool) -> None:
    """Budget and diffusion losses in one step; recomputation draws no new noise, so checkpointed gradients are the same."""
    net = attach(mmdit())
    random = torch.Generator().manual_seed(0)
    logistic = lambda *shape: torch.logit(torch.rand(shape, generator=random).clamp(1e-6, 1 - 1e-6))  # noqa: E731
    sites = [str(i.site) for i in net.sites()]
    width_noise = {s: 15.0 * logistic(2, HEADS - 1) for s in sites}
    token_noise = {s: 35.0 * logistic(2, 16, 1) for s in sites if s.endswith("mlp")}

    def loss(model: Network) -> Tensor:
        masks = widths(model, time_of(model), width_noise)
        used = sum(m.mean(1) * i.cost({"image": 16, "text": 5}) for m, i in zip(masks.values(), model.sites(), strict=True))
        total = sum(i.cost({"image": 16, "text": 5}) for i in model.sites())
        pred = answer(model, Call((TokenSession(model),), adapters(model, masks), noise=token_noise))
        return mse_loss(pred, image()["image"].x) + 2.0 * ((used / total).mean() - 0.5) ** 2

    other = deepcopy(net)
    other.checkpointing = checkpointing
    for model in (net, other):
        loss(model).backward()
    grads = {n: p.grad for n, p in other.named_parameters()}
    assert all(torch.equal(p.grad, grads[n]) for n, p in net.named_parameters())
    routed = [n for n in grads if ".router." in n or ".tokens." in n]
    assert len(routed) == 3 * (2 * 2 + 4) and all(grads[n].any() for n in routed if "tokens.0" not in n)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    torch.optim.AdamW(net.parameters(), lr=0.1).step()
    assert all(not torch.equal(before[n], p) for n, p in net.named_parameters() if n.endswith("router.bias"))


def test_straight_through_is_binary_with_a_soft_gradient() -> None:
    logits = torch.tensor([-3.0, 0.5, 9.0], requires_grad=True)
    noise = torch.tensor([1.0, -2.0, 0.0])
    mask = on(logits, noise)
    mask.sum().backward()
    soft = torch.sigmoid((logits.detach() + noise) / 5)
    assert mask.tolist() == [0.0, 0.0, 1.0] and torch.allclose(logits.grad, soft * (1 - soft) / 5)
