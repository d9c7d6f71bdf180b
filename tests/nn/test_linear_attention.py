"""The exact checks of linear attention with a depth-wise convolution (LiT), by itself and in the families that may have it."""

from dataclasses import replace

import pytest
import torch
from tests.builders import conditions, image
from torch import Tensor, nn

from sfumato.backbones import dit, pixart
from sfumato.backbones.checkpoints import of_family
from sfumato.core.attention import Heads, linear_attend
from sfumato.core.call import Call, Footprint, Session, Site
from sfumato.core.conditions import Conditions
from sfumato.core.errors import ConfigError, ConflictError
from sfumato.core.program import Network
from sfumato.core.state import State, Stream
from sfumato.nn.linear_attention import FLOOR, LocalLinearAttention, self_attention
from sfumato.nn.projections import AttentionShape

GRID, WIDTH = (3, 5), 12
KINDS = ("linear", "linear+v", "linear+x")


def module(reads: str, heads: int = 2, dtype: torch.dtype = torch.float64) -> LocalLinearAttention:
    torch.manual_seed(0)
    return LocalLinearAttention(AttentionShape(WIDTH, heads, qk_norm=False), ("image",), reads).to(dtype)


def said(core: LocalLinearAttention, x: Tensor, grid: tuple[int, int] | None = GRID) -> Tensor:
    return core({"image": x}, State({"image": Stream(x, grid=grid)}), Site(0, "attention"), None)["image"]


def tokens(batch: int = 2) -> Tensor:
    return torch.randn(batch, 15, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@torch.no_grad()
def closed(core: LocalLinearAttention) -> LocalLinearAttention:
    nn.init.zeros_(core.conv.weight)
    nn.init.zeros_(core.conv.bias)
    return core


@pytest.mark.parametrize("heads", [1, 2, 4, WIDTH])
def test_linear_in_the_tokens_or_in_their_square_it_is_the_same(heads: int):
    q, k, v = (torch.randn(2, heads, 15, WIDTH // heads, dtype=torch.float64) for _ in range(3))
    weights = (q.relu() + FLOOR) @ (k.relu() + FLOOR).transpose(-1, -2)
    weights = weights / weights.sum(-1, keepdim=True)
    found = linear_attend({"image": Heads(q, k, v)}, None, FLOOR)["image"]
    torch.testing.assert_close(found, weights @ v, rtol=0, atol=1e-12)
    if heads == WIDTH:
        torch.testing.assert_close(found.std(2), torch.zeros_like(found.std(2)), rtol=0, atol=1e-12, msg="of width 1 all queries agree")


def test_weights_sum_to_one_even_for_a_query_that_is_nowhere_positive():
    q, k = torch.randn(1, 2, 15, 6, dtype=torch.float64), torch.randn(1, 2, 15, 6, dtype=torch.float64)
    q[0, :, 3] = -1.0
    constant = torch.randn(1, 2, 1, 6, dtype=torch.float64).expand(1, 2, 15, 6)
    found = linear_attend({"image": Heads(q, k, constant)}, None, FLOOR)["image"]
    torch.testing.assert_close(found, constant, rtol=0, atol=1e-12)
    assert not linear_attend({"image": Heads(q, k, constant)}, None)["image"][0, :, 3].any(), "without the floor it hears nothing"


@pytest.mark.parametrize("reads", ["v", "x"])
@torch.no_grad()
def test_a_closed_convolution_is_plain_linear_attention(reads: str):
    plain, core, x = module(""), module(reads), tokens()
    assert not torch.allclose(said(core, x), said(plain, x))
    torch.testing.assert_close(said(closed(core), x), said(plain, x), rtol=0, atol=1e-14)


@torch.no_grad()
def test_a_kernel_that_sees_itself_alone_adds_the_values():
    core, plain, x = closed(module("v")), module(""), tokens()
    core.conv.weight[:, :, 2, 2] = 1.0
    own = core.projections["image"]
    gain = torch.nn.functional.linear(own.v(x), own.out.weight)
    torch.testing.assert_close(said(core, x) - said(plain, x), gain, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("reads", "moves"), [("", False), ("v", True), ("x", True)])
@torch.no_grad()
def test_only_a_convolution_knows_places(reads: str, moves: bool):
    core, x, order = module(reads), tokens(), torch.randperm(15, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(said(core, x[:, order]), said(core, x)[:, order], rtol=0, atol=1e-12) is not moves
    assert torch.allclose(said(core, x, None), said(module(""), x, None)), "a stream without a grid is not convolved"
    if reads:
        nudged = x.clone()
        nudged[:, 0] += 1.0
        near = (core._local(nudged, heads_of(core, nudged)) - core._local(x, heads_of(core, x))).abs().sum((0, 1, 3)).view(GRID) > 1e-12
        expected = torch.zeros(GRID, dtype=torch.bool)
        expected[:3, :3] = True
        assert torch.equal(near, expected), "5 x 5 on a grid that is no square"
        with pytest.raises(ConflictError, match="15 tokens do not fill a grid of 4 x 4"):
            said(core, x, (4, 4))


def heads_of(core: LocalLinearAttention, x: Tensor) -> Heads:
    return core.projections["image"].project(x, Stream(x, grid=GRID), None)


@pytest.mark.parametrize(
    ("reads", "width", "heads", "count"), [("v", 384, 2, 4992), ("x", 384, 2, 9984), ("v", 1152, 4, 26 * 288), ("", 8, 2, 0)]
)
def test_parameters_and_cost_of_the_convolution(reads: str, width: int, heads: int, count: int):
    core = LocalLinearAttention(AttentionShape(width, heads, qk_norm=False), ("image",), reads)
    assert sum(p.numel() for n, p in core.named_parameters() if n.startswith("conv.")) == count
    mixing = core.cost({"image": 100}, ("image",)) - 100 * 4 * width**2
    assert mixing == 100 * (2 * width * (width // heads + 1) + (25 * width if reads else 0))


def test_the_paper_s_costs():
    """256 tokens, 1152 wide: 42.5 M multiply-adds with 16 heads, 169.9 M with 4, 151.0 M by softmax; few heads pay from 1024 tokens on."""
    many, few = (LocalLinearAttention(AttentionShape(1152, h, qk_norm=False), ("image",), "").cost for h in (16, 4))
    projecting = 256 * 4 * 1152**2
    assert [round((c({"image": 256}, ("image",)) - projecting) / 1e6, 1) for c in (many, few)] == [43.1, 170.5], "with the normaliser's 0.6"
    assert round(AttentionShape(1152, 16).cost(256, 256) / 1e6, 1) == 151.0


def dit_of(kind: str, **shape: object) -> Network:
    return dit.tiny(attention=kind, **shape)


def pixart_of(kind: str, **shape: object) -> Network:
    return pixart.tiny(attention=kind, **{"compress": (), **shape})


def asked(net: Network, height: int = 8, width: int = 12, call: Call | None = None) -> Tensor:
    cond = Conditions(scalars={"class": torch.tensor([1, 3])}) if "class" in net.slots else Conditions(conditions([3, 5]).tokens)
    return net(image(height=height, width=width), cond, call).pred["image"]


@pytest.mark.parametrize("build", [dit_of, pixart_of])
@pytest.mark.parametrize("kind", KINDS)
def test_a_family_with_it_draws_learns_and_differs_in_attention_alone(build, kind: str):
    net, softmax = build(kind), build("softmax")
    ours, theirs = net.state_dict(), softmax.state_dict()
    added = {n for n in ours if ".attention.core.conv." in n}
    assert ours.keys() - theirs.keys() == added and not theirs.keys() - ours.keys() and bool(added) is (kind != "linear")
    kept = {n: v for n, v in theirs.items() if ".attention.core." not in n}
    assert {n: v.shape for n, v in kept.items()} == {n: ours[n].shape for n in kept}
    net.load_state_dict(ours | kept)
    assert all(torch.equal(net.state_dict()[n], v) for n, v in kept.items()), "what is inherited is inherited bit for bit"
    assert net.capabilities == (softmax.capabilities - {"softmax"}) | {"linear"}
    asked(net).square().mean().backward()
    conv = [p.grad for n, p in net.named_parameters() if n in added]
    assert all(g is not None and g.any() for g in conv)
    for height, width in ((8, 12), (4, 10), (2, 2)):
        assert asked(net, height, width).shape == (2, 4, height, width)
    named = {i.site.branch: i for i in net.sites() if i.site.block == 0}
    tall, long = (named["attention"].cost({"image": n, "text": 5}) for n in (64, 128))
    assert long == 2 * tall and named["attention"].units[0].count == 2


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_see_it_and_scores_are_refused(kind: str):
    class Halved(Session):
        footprint = Footprint(frozenset({"attention"}))

        def attention(self, site, heads, attend, call):
            return {n: x / 2 for n, x in attend(heads, None).items()}

    class Scores(Session):
        footprint = Footprint(frozenset({"attention"}), requires=frozenset({"softmax"}))

    net = dit_of(kind)
    assert not torch.allclose(asked(net, call=Call((Halved(),))), asked(net))
    with pytest.raises(ConflictError, match="Scores needs softmax"):
        asked(net, call=Call((Scores(),)))


def test_what_it_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=r"compress with attention 'linear'"):
        replace(pixart.tiny().config, attention="linear")
    with pytest.raises(ConfigError, match="reduced by 2 for linear attention"):
        self_attention("linear", AttentionShape(8, 2), ("image",), ratio=2)
    with pytest.raises(ConfigError, match="the input is 8 wide, the heads 4"):
        LocalLinearAttention(AttentionShape(4, 2, outer=8), ("image",), "x")
    for family, net in (("DiT", dit_of("linear+v", closed=True, span=4.0)), ("PixArt", pixart_of("linear"))):
        with pytest.raises(ConfigError, match="has softmax attention, not 'linear"):
            of_family(family).published(net.config)
