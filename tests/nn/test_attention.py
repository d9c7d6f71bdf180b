"""Joint attention against torch's own multi-head attention, and what q/k norms promise."""

import pytest
import torch
from torch import Tensor, nn

from sfumato.core.attention import Group, Heads, Stored, attend
from sfumato.core.call import Site
from sfumato.core.errors import ConfigError
from sfumato.core.state import State, Stream
from sfumato.nn.attention import JointAttention
from sfumato.nn.projections import AttentionShape

SITE = Site(0, "attention")


def build(roles: tuple[str, ...] = ("image",), qk_norm: bool = False, silent: frozenset[str] = frozenset()) -> JointAttention:
    torch.manual_seed(0)
    return JointAttention(AttentionShape(16, 4, qk_norm), roles, silent)


def run(core: JointAttention, inputs: dict[str, Tensor], keep: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    streams = {n: Stream(x, keep=(keep or {}).get(n)) for n, x in inputs.items()}
    return core(inputs, State(streams), SITE, None)


def torch_twin(core: JointAttention) -> nn.MultiheadAttention:
    own = core.projections["image"]
    twin = nn.MultiheadAttention(16, 4, batch_first=True)
    twin.in_proj_weight.data = torch.cat([own.q.weight, own.k.weight, own.v.weight]).data
    twin.in_proj_bias.data = torch.cat([own.q.bias, own.k.bias, own.v.bias]).data
    twin.out_proj.weight.data, twin.out_proj.bias.data = own.out.weight.data, own.out.bias.data
    return twin


def test_one_stream_equals_torch_multihead_attention():
    core, x = build(), torch.randn(2, 5, 16)
    keep = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    twin = torch_twin(core)
    torch.testing.assert_close(run(core, {"image": x})["image"], twin(x, x, x)[0])
    torch.testing.assert_close(run(core, {"image": x}, {"image": keep})["image"], twin(x, x, x, key_padding_mask=~keep)[0])


def test_two_streams_are_one_softmax_over_both_with_own_weights():
    """The hand formula: softmax([q_i] [k_i; k_t]^T / sqrt(d)) [v_i; v_t], head by head."""
    core = build(("image", "text"))
    x = {"image": torch.randn(1, 3, 16), "text": torch.randn(1, 2, 16)}
    out = run(core, x)
    q, k, v = (
        torch.cat([getattr(core.projections[s], part)(x[s]) for s in x], dim=1).unflatten(-1, (4, 4)).transpose(1, 2) for part in "qkv"
    )
    mixed = ((q @ k.transpose(-1, -2) / 2.0).softmax(-1) @ v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(out["image"], core.projections["image"].out(mixed[:, :3]))
    torch.testing.assert_close(out["text"], core.projections["text"].out(mixed[:, 3:]))


def test_a_silent_stream_lends_keys_and_gives_nothing():
    core = build(("image", "text"), silent=frozenset({"text"}))
    x = {"image": torch.randn(1, 3, 16), "text": torch.randn(1, 2, 16)}
    out = run(core, x)
    assert set(out) == {"image"} and core.projections["text"].out is None
    core.projections["text"].q.weight.data.fill_(torch.nan)
    assert torch.equal(run(core, x)["image"], out["image"]), "nobody hears it, so nobody asks"
    assert not torch.allclose(out["image"], run(core, x | {"text": torch.randn(1, 2, 16)})["image"])


@pytest.mark.parametrize("part", ["q", "k"])
def test_with_qk_norm_the_scale_of_q_and_k_does_not_matter(part: str):
    x = torch.randn(2, 5, 16)
    for qk_norm in (True, False):
        core = build(qk_norm=qk_norm)
        before = run(core, {"image": x})["image"]
        layer = getattr(core.projections["image"], part)
        layer.weight.data *= 100
        layer.bias.data *= 100
        after = run(core, {"image": x})["image"]
        assert torch.allclose(before, after, atol=1e-4) == qk_norm


def test_masked_keys_contribute_exactly_nothing():
    core, x = build(("image", "text")), {"image": torch.randn(1, 3, 16), "text": torch.randn(1, 4, 16)}
    keep = {"text": torch.tensor([[True, True, False, False]])}
    first = run(core, x, keep)["image"]
    x["text"] = x["text"].clone()
    x["text"][:, 2:] = 1e4
    assert torch.equal(run(core, x, keep)["image"], first)


def test_a_query_without_keys_gets_zeros_and_no_gradient():
    core, x = build(), torch.randn(2, 5, 16, requires_grad=True)
    keep = torch.tensor([[True] * 5, [False] * 5])
    for grad in (True, False):  # two kernels
        with torch.set_grad_enabled(grad):
            out = run(core, {"image": x}, {"image": keep})["image"]
        torch.testing.assert_close(out[1], core.projections["image"].out.bias.expand(5, 16))
        torch.testing.assert_close(out[0], run(core, {"image": x[:1]})["image"][0])
    run(core, {"image": x}, {"image": keep})["image"].square().sum().backward()
    assert x.grad is not None and x.grad[0].any() and not x.grad[1].any() and torch.isfinite(x.grad).all()


@pytest.mark.parametrize(("norm", "width"), [("rms", 4), ("rms across", 16), ("layer across", 16)])
def test_norms_are_of_each_head_or_of_all_at_once(norm: str, width: int):
    torch.manual_seed(0)
    core, x = JointAttention(AttentionShape(16, 4, norm=norm, kv_heads=2), ("image",)), torch.randn(2, 3, 16)
    own = core.projections["image"]
    assert own.q_norm.weight.shape == (width,) and own.k_norm.weight.shape == (width if norm == "rms" else 8,)
    found = own.project(x, Stream(x), None)
    q, k = own.q(x), own.k(x)
    if norm != "rms":
        q, k = own.q_norm(q), own.k_norm(k)
    q, k = (y.unflatten(-1, (-1, 4)).transpose(1, 2) for y in (q, k))
    if norm == "rms":
        q, k = own.q_norm(q), own.k_norm(k)
    torch.testing.assert_close(found.q, q)
    torch.testing.assert_close(found.k, k[:, [0, 0, 1, 1]], msg="a head of keys serves two of queries")
    units = core.units("core")
    assert units.count == 2 and ("core.projections.image.q_norm.weight" in units.slices) == (norm != "rms")
    with pytest.raises(ConfigError, match="kv_heads 3"):
        AttentionShape(16, 4, kv_heads=3)


def heads(n: int, seed: int = 0, keep: Tensor | None = None) -> Heads:
    generator = torch.Generator().manual_seed(seed)
    return Heads(*(torch.randn(2, 2, n, 4, generator=generator) for _ in range(3)), keep=keep)


def test_a_plan_that_names_every_stream_equals_no_plan():
    keep = torch.tensor([[True, False, True], [True, True, True]])
    streams = {"image": heads(4), "text": heads(3, 1, keep)}
    joint = attend(streams, None)
    group = [Group(("image", "text"))]
    for name, x in attend(streams, {"image": group, "text": group}).items():
        torch.testing.assert_close(x, joint[name])


def test_groups_add_with_their_weights_and_masks_and_together():
    streams = {"image": heads(4), "text": heads(3, 1, torch.tensor([[True, True, False]] * 2))}
    mask = torch.ones(4, 3, dtype=torch.bool)
    mask[:, 0] = False
    plan = {"image": [Group(("image",)), Group(("text",), mask, weight=0.5)]}
    own = nn.functional.scaled_dot_product_attention(streams["image"].q, streams["image"].k, streams["image"].v)
    # The only key that both the mask and the padding leave is number 1, so its value is the answer.
    torch.testing.assert_close(attend(streams, plan)["image"], own + 0.5 * streams["text"].v[:, :, 1:2].expand(-1, -1, 4, -1))
    with pytest.raises(ValueError, match="at least one group"):
        attend(streams, {"image": []})


def test_stored_keys_join_as_a_stream_would():
    streams, bank = {"image": heads(4)}, heads(3, 1)
    with_bank = attend(streams, {"image": [Group(("image", Stored(bank.k, bank.v)))]})["image"]
    torch.testing.assert_close(with_bank, attend({"image": streams["image"], "bank": bank}, None)["image"])
