"""The exact checks of the SD3 sheet; parity with diffusers stands in test_checkpoints.py."""

import pytest
import torch
from tests.builders import conditions, image, mmdit
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

from sfumato.backbones.mmdit import MMDiT, MMDiTConfig
from sfumato.core.conditions import Conditions, Tokens
from sfumato.core.errors import ConfigError, UsageError
from sfumato.core.state import State, Stream
from sfumato.nn.joint import StreamsAttention, StreamsMLP
from sfumato.nn.modulation import modulate


@pytest.mark.parametrize(
    ("depth", "qk_norm", "count"),
    [
        (15, True, 496_070_464),
        (18, True, 856_164_160),
        (24, True, 2_028_334_144),
        (30, True, 3_962_400_064),
        (38, True, 8_056_627_520),
        (24, False, 2_028_328_000),
    ],
)
def test_parameter_counts_of_the_paper(depth: int, qk_norm: bool, count: int):
    shape = MMDiTConfig(depth, 64 * depth, depth, channels=16, text_width=4096, pooled_width=2048, qk_norm=qk_norm)
    with torch.device("meta"):
        net = MMDiT(shape)
    assert sum(p.numel() for p in net.parameters()) == count


def fresh(seed: int = 0) -> MMDiT:
    torch.manual_seed(seed)
    return MMDiT(MMDiTConfig(depth=3, width=32, heads=2, channels=4, text_width=12, pooled_width=6, base_grid=4)).eval()


def test_a_new_network_answers_zero_and_every_block_is_the_identity():
    net, cond = fresh(), conditions([3, 5])
    streams = image()
    assert not net(streams, cond).pred["image"].any()
    state = net.start(streams, cond)
    for i in range(len(net.blocks)):
        after = net.run(state, i, i + 1)
        assert torch.equal(after["image"], state["image"]) and torch.equal(after["text"], state["text"])
    assert state["image"].any() and state["text"].any()


def _shared_dit(block: torch.nn.Module, x: Tensor, c: Tensor, heads: int, parts: int) -> Tensor:
    """One DiT block with one weight set on the joined sequence x: the baseline that MM-DiT contains.

    Token-wise work is done in `parts` equal pieces: matrix products round their last bit by how many rows they have.
    """
    attention, mlp = block.attention, block.mlp
    own = attention.core.projections["image"]

    def projected(h: Tensor) -> Tensor:
        q, k, v = (linear(h, p.weight, p.bias).unflatten(-1, (heads, -1)).transpose(1, 2) for p in (own.q, own.k, own.v))
        return torch.stack([own.q_norm(q), own.k_norm(k), v])

    shift, scale, gate = attention.modulation["image"](c)
    q, k, v = torch.cat([projected(modulate(attention.norm(h), shift, scale)) for h in x.chunk(parts, 1)], dim=3)
    mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    x = torch.cat([h + gate * own.out(m) for h, m in zip(x.chunk(parts, 1), mixed.chunk(parts, 1), strict=True)], dim=1)
    shift, scale, gate = mlp.modulation["image"](c)
    return torch.cat([h + gate * mlp.core["image"](modulate(mlp.norm(h), shift, scale)) for h in x.chunk(parts, 1)], dim=1)


@torch.no_grad()
@pytest.mark.parametrize(("parts", "tolerance"), [(2, 0.0), (1, 1e-5)])
def test_tied_weights_equal_a_shared_weight_dit_on_the_joined_sequence(parts: int, tolerance: float):
    """Bit for bit where the matrix products have equal shapes, to rounding otherwise."""
    net = mmdit(depth=3)
    for block in list(net.blocks)[:-1]:
        for branch in (block.attention.modulation, block.attention.core.projections, block.mlp.modulation, block.mlp.core):
            branch["text"].load_state_dict(branch["image"].state_dict())
    state = net.start(image(1), conditions([16], seed=3))
    # No padding: with a mask, attention takes another kernel.
    state = state.attach("text", Stream(state["text"]))
    x = torch.cat([state["image"], state["text"]], dim=1)
    for index, block in enumerate(list(net.blocks)[:-1]):
        x, state = _shared_dit(block, x, state.cond["c"], 2, parts), net.run(state, index, index + 1)
        torch.testing.assert_close(torch.cat([state["image"], state["text"]], dim=1), x, rtol=tolerance, atol=tolerance)


def test_zeroed_text_makes_the_output_independent_of_the_prompt():
    net, streams = mmdit(), image(1)

    def answer(states: Tensor, pooled: Tensor) -> Tensor:
        keep = torch.ones(1, states.shape[1], dtype=torch.bool)
        return net(streams, Conditions({"text": Tokens(states, keep)}, {"pooled": pooled})).pred["image"]

    states, pooled = torch.randn(2, 1, 5, 12), torch.randn(2, 1, 6)
    assert torch.equal(answer(0 * states[0], 0 * pooled[0]), answer(0 * states[1], 0 * pooled[1]))
    plain = answer(states[0], pooled[0])
    assert not torch.allclose(plain, answer(states[1], pooled[0])), "token states must matter"
    assert not torch.allclose(plain, answer(states[0], pooled[1])), "the pooled vector must matter"


def test_scaling_a_query_matrix_changes_nothing_with_qk_norm():
    for qk_norm in (True, False):
        net, cond, streams = mmdit(qk_norm=qk_norm), conditions([4, 4]), image()
        before = net(streams, cond).pred["image"]
        for block in net.blocks:
            projection = block.attention.core.projections["image"].q
            projection.weight.data *= 100
            projection.bias.data *= 100
        same = torch.allclose(before, net(streams, cond).pred["image"], rtol=1e-3, atol=1e-4)
        assert same == qk_norm


def test_the_table_of_sites_accounts_for_every_block_parameter():
    net = mmdit()
    named = [n for site in net.sites() for n in site.parameters]
    assert sorted(named) == sorted(n for n, _ in net.named_parameters() if n.startswith("blocks."))
    for site in net.sites():
        for units in site.units:
            for name, (dim, each) in units.slices.items():
                assert net.get_parameter(name).shape[dim] == units.count * each


def test_costs_count_multiply_adds_of_the_linears_and_the_attention():
    net = mmdit(depth=2)
    tokens, width = {"image": 16, "text": 5}, 32
    costs = {str(site.site): site.cost(tokens) for site in net.sites()}
    assert costs["blocks.0.attention"] == 4 * 21 * width**2 + 2 * 21**2 * width
    assert costs["blocks.1.mlp"] == 2 * 16 * width * 4 * width


def test_the_last_text_stream_only_lends_keys_and_values():
    last = mmdit().blocks[2]
    assert isinstance(last.attention, StreamsAttention) and isinstance(last.mlp, StreamsMLP)
    assert last.attention.core.projections["text"].out is None and last.mlp.streams == ("image",)
    assert last.attention.modulation["text"].count == 2


@pytest.mark.parametrize(("rows", "columns", "nearest"), [(7, 8, "8 x 8"), (1, 4, "2 x 4"), (8, 9, "8 x 8")])
def test_a_latent_that_does_not_divide_names_the_nearest(rows: int, columns: int, nearest: str):
    with pytest.raises(UsageError, match=nearest):
        mmdit()(image(1, 4, rows, columns), conditions([2]))


def test_other_aspects_run_and_a_missing_time_is_told():
    streams = image(2, 4, 4, 12)
    assert mmdit()(streams, conditions([2, 3])).pred["image"].shape == (2, 4, 4, 12)
    with pytest.raises(UsageError, match="noise level"):
        mmdit()({"image": type(streams["image"])(streams["image"].x)}, conditions([2, 3]))


@pytest.mark.parametrize(
    "wrong", [{"depth": 0}, {"width": 30}, {"heads": 5}, {"patch": 0}, {"dual": (8,)}, {"table_grid": 9, "positions": "span"}]
)
def test_impossible_shapes_are_refused(wrong: dict[str, int]):
    with pytest.raises(ConfigError):
        MMDiTConfig(**{"width": 32, "heads": 2, **wrong})


def test_the_second_attention_reads_what_the_first_reads_and_sees_no_text():
    """SD3.5: both branches see the block's input, so closing one leaves the other's delta as it was."""
    net, plain = mmdit(dual=(0,)), mmdit()
    plain.load_state_dict({n: p for n, p in net.state_dict().items() if ".picture." not in n})
    state = net.start(image(1), conditions([5]))
    site = next(iter(net.sites())).site
    block = net.blocks[0]
    both = [block.get_submodule(name)(state, site, None)[0]["image"] for name in ("attention", "picture")]
    joint = plain.blocks[0].attention(state, site, None)[0]["image"]
    assert torch.equal(both[0], joint)
    other = net.start(image(1), conditions([5], seed=9))
    other = State(other.streams, state.cond)
    assert torch.equal(block.picture(other, site, None)[0]["image"], both[1])
