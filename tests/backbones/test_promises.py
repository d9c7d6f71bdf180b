"""What every backbone promises, by being registered.

A row is itself, padding is silent, gradients survive recomputation, loading is strict, sites own the parameters, and what it cannot
carry is refused.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from tests.backbones.gate import asked, batch, built
from torch import Tensor

from sfumato.backbones import backbones
from sfumato.core.blocks import Block
from sfumato.core.call import Call, Footprint, Session
from sfumato.core.conditions import Conditions, Tokens
from sfumato.core.errors import ConflictError, UnknownNameError, UsageError, WeightsError
from sfumato.core.program import Network
from sfumato.core.state import Stream
from sfumato.core.weights import assign_strictly
from sfumato.nn.linear import Linear

pytestmark = pytest.mark.parametrize("family", sorted(backbones))


@torch.no_grad()
def answer(net: Network, streams: dict[str, Stream], cond: Conditions) -> dict[str, Tensor]:
    return dict(net(streams, cond).pred)


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return all(torch.allclose(found[n], x, rtol=1e-5, atol=1e-5) for n, x in expected.items())


def padded(cond: Conditions, fill: float | None = None, more: int = 0) -> Conditions:
    """The same tokens with `more` padding, and padding that holds `fill`."""
    longer = {n: t.pad_to(t.states.shape[1] + more) for n, t in cond.tokens.items()}
    if fill is not None:
        longer = {n: Tokens(t.states.masked_fill(~t.keep[..., None], fill), t.keep) for n, t in longer.items()}
    return replace(cond, tokens=longer)


def test_a_row_is_itself(family: str) -> None:
    net = built(family, None)
    streams, cond = batch(net)
    together = answer(net, streams, cond)
    for row in range(4):
        alone = answer(net, *batch(net, slice(row, row + 1)))
        assert close({n: p[row : row + 1] for n, p in together.items()}, alone)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = answer(net, {n: Stream(s.x[order], t=s.t[order]) for n, s in streams.items()}, cond.rows(order))
    assert close(shuffled, {n: p[order] for n, p in together.items()})
    assert not close({n: p.flip(0) for n, p in together.items()}, together)


def test_padding_is_silent(family: str) -> None:
    net = built(family, None)
    streams, cond = batch(net)
    plain = answer(net, streams, cond)
    assert close(answer(net, streams, padded(cond, more=7)), plain)
    for garbage in (1.0, -3e38, float("nan"), float("inf")):
        found = answer(net, streams, padded(cond, garbage))
        assert all(torch.equal(found[n], p) for n, p in plain.items()), garbage
    if not cond.tokens:  # a family without texts
        return
    louder = {n: Tokens(t.states + 1.0, t.keep) for n, t in cond.tokens.items()}
    assert not close(answer(net, streams, replace(cond, tokens=louder)), plain), "the words themselves are heard"


def test_what_is_prepared_before_the_first_step_changes_no_bit(family: str) -> None:
    net = built(family, None)
    streams, cond = batch(net)
    ready = net.prepare(cond)
    plain, found = answer(net, streams, cond), answer(net, streams, ready)
    assert all(torch.equal(found[n], p) for n, p in plain.items())
    assert (ready.ready is None) == (not net.words(cond, None))
    again = answer(net, {n: Stream(0.5 * s.x, t=1 - s.t) for n, s in streams.items()}, ready)
    other = answer(net, {n: Stream(0.5 * s.x, t=1 - s.t) for n, s in streams.items()}, cond)
    assert all(torch.equal(again[n], p) for n, p in other.items()), "at another step"
    assert ready.rows(slice(0, 2)).ready is None
    if ready.ready is not None:
        louder = {n: replace(s, x=s.x.flip(-1)) for n, s in ready.ready.streams.items()}
        changed = replace(ready, ready=replace(ready.ready, streams=louder, stored={}))
        assert not close(answer(net, streams, changed), plain), "what is prepared is what is read"


class Louder(Session):
    """Every stream of the first item."""

    footprint = Footprint(frozenset({"blocks"}), gradients=False)

    def blocks(self, state, run, a, b, call):
        return run(state.with_x({n: 2 * s.x for n, s in state.streams.items()}), a, b)


@torch.no_grad()
def test_what_is_prepared_does_not_stand_in_the_way_of_adapters_and_policies(family: str) -> None:
    net = built(family, None)
    streams, cond = batch(net)
    linears = {n for n, part in net.named_modules() if isinstance(part, Linear)}
    for call in (Call(adapters=dict.fromkeys(linears, lambda linear, x, base, call: 1.5 * base(x))), Call((Louder(),))):
        plain, found = net(streams, cond, call).pred, net(streams, net.prepare(cond), call).pred
        assert all(torch.equal(found[n], p) for n, p in plain.items())


def test_garbage_in_padding_reaches_no_gradient(family: str) -> None:
    found = []
    for garbage in (0.0, float("nan")):
        net = built(family, None)
        streams, cond = batch(net)
        sum(p.square().mean() for p in net(streams, padded(cond, garbage)).pred.values()).backward()
        found.append({n: p.grad for n, p in net.named_parameters()})
    assert all(torch.equal(g, found[1][n]) for n, g in found[0].items() if g is not None)


def test_a_text_without_words_is_finite_and_so_are_its_gradients(family: str) -> None:
    """A dropped prompt keeps no token: where it is attended to alone, that softmax has no keys."""
    net = built(family, None)
    streams, cond = batch(net)
    for tokens in cond.tokens.values():
        tokens.keep[1] = False
    found = net(streams, cond).pred
    assert all(torch.isfinite(p).all() for p in found.values())
    sum(p.square().mean() for p in found.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    row = slice(1, 2)
    alone = answer(net, {n: Stream(s.x[row], t=s.t[row]) for n, s in streams.items()}, cond.rows(row))
    assert close({n: p[1:2].detach() for n, p in found.items()}, alone)


def test_recomputation_gives_the_same_gradients(family: str) -> None:
    net, other = built(family, None), built(family, None)
    other.checkpointing = True
    plain, recomputed = asked(net, None), asked(other, None)
    assert plain.keys() == recomputed.keys() and all(torch.equal(x, recomputed[n]) for n, x in plain.items())


def test_loading_is_strict(family: str) -> None:
    given = built(family, None)
    weights = given.state_dict()
    first, last = sorted(weights)[0], sorted(weights)[-1]
    wrong = {**weights, "stranger": torch.zeros(1), last: torch.zeros(7, 7)}
    del wrong[first]
    with torch.device("meta"):
        net = backbones.get(family).network(given.config)
    with pytest.raises(WeightsError) as caught:
        assign_strictly(net, wrong, "here.safetensors")
    counts = "1 missing, 1 extra, 1 misshapen"
    for part in ("here.safetensors", counts, f"missing: {first}", "extra: stranger", f"misshapen: {last} (7, 7)"):
        assert part in str(caught.value)
    assert all(p.is_meta for p in net.parameters()), "nothing is loaded by halves"
    assign_strictly(net, weights, "here.safetensors")
    streams, cond = batch(net)
    assert all(torch.equal(p, answer(given, streams, cond)[n]) for n, p in answer(net, streams, cond).items())


def test_sites_own_the_parameters(family: str) -> None:
    net = built(family, None)
    shapes = {n: p.shape for n, p in net.named_parameters()}
    owners = Counter(name for info in net.sites() for name in info.parameters)
    assert owners == Counter(n for n in shapes if n.startswith("blocks.")), "each parameter of a block belongs to one site"
    names = [str(info.site) for info in net.sites()]
    assert len(set(names)) == len(names) and names == [str(i.site) for i in built(family, None).sites()]
    assert all(net.get_submodule(name) is not None for name in names)
    for info in net.sites():
        tokens = {n: 16 if n == "image" else 5 for n in {"image", "text", *info.streams}}
        assert info.cost(tokens) > 0 and info.cost({n: 2 * c for n, c in tokens.items()}) >= 2 * info.cost(tokens)
        for units in info.units:
            assert units.count > 1 and units.slices.keys() <= set(info.parameters)
            assert all(shapes[name][dim] == units.count * each for name, (dim, each) in units.slices.items())


@torch.no_grad()
def test_every_matrix_of_a_block_is_read_once(family: str) -> None:
    net = built(family, None)
    seen: Counter[str] = Counter()
    for name, part in net.blocks.named_modules():
        if isinstance(part, Linear):
            part.register_forward_hook(lambda *_, name=name: seen.update([name]))
    net(*batch(net))
    assert set(seen.values()) == {1}, seen.most_common(3)


@torch.no_grad()
def test_a_unit_is_itself_unless_it_is_coupled(family: str) -> None:
    """The first unit of a site alone is heard: what the others hold matters where something reads all of them, and nowhere else."""
    net = built(family, None)
    streams, cond = batch(net)
    weights = {n: p.clone() for n, p in net.named_parameters()}
    for info in net.sites():
        for units in info.units:
            rest = {n: weights[n].narrow(dim, each, weights[n].shape[dim] - each) for n, (dim, each) in units.slices.items()}
            outs = {n for n in rest if n.split(".")[-2] in ("out", "down", "conv_out")}
            parts = {n: net.get_parameter(n) for n in rest}
            where = {n: parts[n].narrow(dim, each, parts[n].shape[dim] - each) for n, (dim, each) in units.slices.items()}
            for n in outs:
                where[n].zero_()
            plain = answer(net, streams, cond)
            for n in rest.keys() - outs:
                where[n].copy_(rest[n].flip(0) + 0.5)
            found = answer(net, streams, cond)
            same = all(torch.equal(found[n], p) for n, p in plain.items())
            assert same == (not units.coupled), f"{info.site}: {units.kind}"
            for n, parameter in parts.items():
                parameter.copy_(weights[n])


def test_taps_return_what_was_asked(family: str) -> None:
    net = built(family, None)
    streams, cond = batch(net)
    site = net.sites()[-1]
    name = f"{site.site}.{site.streams[0]}"
    out = net(streams, cond, Call(taps=frozenset({name})))
    assert out.feats.keys() == {name} and len(out.feats[name]) == 4
    assert not net(streams, cond).feats and all(torch.equal(p, out.pred[n]) for n, p in net(streams, cond).pred.items())


def test_what_nothing_would_reach_is_refused(family: str) -> None:
    net = built(family, None)
    streams, cond = batch(net)
    last = next(info for info in reversed(net.sites()) if isinstance(net.blocks[info.site.block], Block)).site
    moved = (f"{info.site}.image" for info in net.sites() if not isinstance(net.blocks[info.site.block], Block))
    for tap in ("blocks.99.mlp.image", f"{last}.stranger", str(last), *moved):
        with pytest.raises(UnknownNameError, match=f"unknown tap '{tap}'"):
            net(streams, cond, Call(taps=frozenset({tap})))
    for index in (len(net.blocks), *(i for i, item in enumerate(net.blocks) if not isinstance(item, Block))):
        for hook in ("branch", "tokens", "attention"):
            session = Session()
            session.footprint = Footprint(frozenset({hook}), frozenset({index}))
            with pytest.raises(ConflictError, match=f"Session acts on item {index}, which is no block"):
                net(streams, cond, Call((session,)))
            with pytest.raises(ConflictError, match="no block"):
                net.admit([session])
    session.footprint = Footprint(frozenset({"blocks"}), frozenset({len(net.blocks)}))
    net.admit([session])


@torch.no_grad()
def test_losses_are_made_where_gradients_are(family: str) -> None:
    net = built(family, None)
    assert not net(*batch(net)).aux
    with torch.enable_grad():
        assert bool(net(*batch(net)).aux) == (family == "HiDream")


def test_what_a_network_lacks_is_refused(family: str) -> None:
    net = built(family, None)
    streams, cond = batch(net)

    class Level(Session):
        footprint = Footprint(frozenset({"tokens"}), requires=frozenset({"level"}))

    class Cache(Session):
        footprint = Footprint(frozenset({"branch"}), writes=frozenset({"branch"}), gradients=False)

    class Second(Cache):
        pass

    with pytest.raises(ConflictError, match="Level needs level"):
        net(streams, cond, Call((Level(),)))
    with pytest.raises(ConflictError, match="Cache keeps results"):
        net(streams, cond, Call((Cache(),)))
    with torch.no_grad():
        net(streams, cond, Call((Cache(),)))
        with pytest.raises(ConflictError, match="Second and Cache both replace branch"):
            net(streams, cond, Call((Cache(), Second())))
    with pytest.raises(UsageError, match="stranger"):
        net({**streams, "stranger": Stream(streams["image"].x, role="stranger")}, cond)


@torch.no_grad()
def test_a_noise_level_for_each_token_is_refused(family: str) -> None:
    net = built(family, None)
    streams, cond = batch(net)
    for name in streams.keys() - {"clip"}:
        each = replace(streams[name], t=streams[name].t[:, None].expand(4, 16))
        with pytest.raises(UsageError, match=rf"the {name} stream.*\(4, 16\)"):
            net({**streams, name: each}, cond)


@torch.no_grad()
def test_a_slot_that_is_missing_or_never_read_is_refused(family: str):
    net = built(family, None)
    streams, cond = batch(net)
    named = sorted(net.slots)[0]
    lacking = replace(
        cond,
        tokens={n: v for n, v in cond.tokens.items() if n != named},
        vectors={n: v for n, v in cond.vectors.items() if n != named},
        scalars={n: v for n, v in cond.scalars.items() if n != named},
    )
    with pytest.raises(UsageError, match=f"needs the conditioning slot {named}"):
        net(streams, lacking)
    with pytest.raises(UsageError, match="does not read the conditioning slot txet"):
        net(streams, replace(cond, vectors={**cond.vectors, "txet": torch.zeros(4, 3)}))
