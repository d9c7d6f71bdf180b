"""CreatiLayout's SiamLayout: boxes with phrases are a third stream, which meets the image in an attention of its own beside the frozen one.

Exercises a graft onto a built MM-DiT: a door that turns slots into a stream, a second attention in the group of the first that reads the
image as that one normalised and modulated it (`Branch.reads`), layout slots that drop together, and a session that ends the branch early.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from sfumato.backbones.mmdit import MMDiT, MMDiTConfig, tiny
from sfumato.core.blocks import Block, Branch
from sfumato.core.call import ByStream, Call, Core, Footprint, Session, Site
from sfumato.core.conditions import Conditions, Slot, Tokens, nulled
from sfumato.core.state import State, Stream
from sfumato.nn.attention import JointAttention
from sfumato.nn.embeddings import MLPEmbedding
from sfumato.nn.joint import StreamsMLP
from sfumato.nn.linear import Linear, name_linears
from sfumato.nn.mlp import MLP
from sfumato.nn.modulation import Modulation, modulate
from sfumato.nn.norms import LayerNorm
from sfumato.nn.projections import AttentionShape

from .sketches import prompt, same, seeded, weights

PHRASE, BOXES = 10, 4


def fourier(boxes: Tensor) -> Tensor:
    """Boxes (B, N, 4) to (B, N, 64): for each of the frequencies 100^(k / 8), sines then cosines of the four sides."""
    angles = boxes[..., None, :] * (100.0 ** (torch.arange(8) / 8))[:, None]
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)


class LayoutDoor(nn.Module):
    """One token a box. Empty places are learned nulls, which are attended like the rest."""

    slots = frozenset({"boxes", "phrases"})

    def __init__(self, width: int) -> None:
        super().__init__()
        self.phrase, self.mix = MLPEmbedding(PHRASE, width), MLPEmbedding(width + 64, width)
        self.nulls = nn.ParameterDict({"phrase": torch.zeros(width), "box": torch.zeros(64)})

    def forward(self, state: State, cond: Conditions, call: Call | None) -> State:
        if "boxes" not in cond.tokens:
            return state
        boxes, valid = cond.tokens["boxes"], cond.tokens["boxes"].keep[..., None]
        phrase = torch.where(valid, self.phrase(cond.tokens["phrases"].states, call), self.nulls["phrase"])
        place = torch.where(valid, fourier(boxes.states), self.nulls["box"])
        return state.attach("layout", Stream(self.mix(torch.cat([phrase, place], dim=-1), call)))


class LayoutAttention(Branch):
    """Image and layout attend jointly; the image's part returns through a zero Linear, ungated. The last block gives the layout nothing."""

    name, reads, streams = "layout_attention", "attention", ("image", "layout")

    def __init__(self, config: MMDiTConfig, last: bool) -> None:
        super().__init__()
        self.norm, self.modulation = LayerNorm(config.width), Modulation(config.width, 2 if last else 3)
        shape = AttentionShape(config.width, config.heads, config.qk_norm)
        self.core = JointAttention(shape, self.streams, frozenset({"layout"}) if last else frozenset())
        self.zero = Linear(config.width, config.width, "out")
        nn.init.zeros_(self.zero.weight)
        nn.init.zeros_(self.zero.bias)

    def prepare(self, state: State, call: Call | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        if "layout" not in state.streams:
            return {}, {}
        shift, scale, *gate = self.modulation(state.cond["c"], call)
        layout = modulate(self.norm(state["layout"]), shift, scale)
        return {"image": state.cond["attention.image"], "layout": layout}, dict(zip(("layout",), gate, strict=False))

    def compute(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> dict[str, Tensor]:
        if not inputs:
            return {}
        mixed = self.core(inputs, state, site, call)
        return {**mixed, "image": self.zero(mixed["image"], call)}


def graft(net: MMDiT) -> MMDiT:
    """`net` frozen, with a layout branch in every block."""
    net.requires_grad_(False)
    items: list[nn.Module] = []
    for index, block in enumerate(net.blocks):
        last, (attention, mlp) = index == len(net.blocks) - 1, block.branches()
        width = net.config.width
        feed = StreamsMLP(("layout",), nn.ModuleDict({"layout": MLP(width, net.config.mlp_ratio * width)}), width)
        feed.name = "layout_mlp"
        items.append(Block((attention, LayoutAttention(net.config, last)), (mlp,) if last else (mlp, feed)))
    net.set_program(items)
    net.doors["layout"] = LayoutDoor(net.config.width)
    name_linears(net)
    return net


def trained() -> MMDiT:
    """Every layout weight alive, and the door's large enough to tell one phrase from another."""
    net = graft(tiny())
    for name, parameter in net.named_parameters():
        if parameter.requires_grad and (name.startswith("doors") or not parameter.any()):
            nn.init.normal_(parameter, std=0.2, generator=seeded(len(name)))
    return net


def layout(count: int = 3, seed: int = 3) -> dict[str, Tokens]:
    """Two rows of `count` boxes in four places."""
    keep = (torch.arange(BOXES) < count).expand(2, -1)
    phrases, corners = (torch.randn(2, BOXES, PHRASE, generator=seeded(seed)), torch.rand(2, BOXES, 4, generator=seeded(seed)))
    return {"boxes": Tokens(corners, keep), "phrases": Tokens(phrases, keep)}


def conditions(slots: Mapping[str, Tokens] | None = None) -> Conditions:
    cond = prompt(2)
    return replace(cond, tokens={**cond.tokens, **(slots or {})})


IMAGE = {"image": Stream(torch.randn(2, 4, 8, 8, generator=seeded()), t=torch.tensor([0.3, 0.8]))}


def ask(net: MMDiT, slots: Mapping[str, Tokens] | None = None, call: Call | None = None) -> Tensor:
    with torch.no_grad():
        return net(IMAGE, conditions(slots), call).pred["image"]


def test_the_base_stays_the_base() -> None:
    base, calls = ask(tiny()), []
    assert torch.equal(ask(graft(tiny()), layout()), base)
    net = trained()
    for name, module in net.named_modules():
        if (name.startswith("doors") and isinstance(module, Linear)) or name.endswith(("layout_attention.core", "layout_mlp.core.layout")):
            module.register_forward_hook(lambda *seen: calls.append(1))
    assert torch.equal(ask(net), base) and not calls
    assert not torch.allclose(ask(net, layout()), base, atol=1e-3) and calls
    kept = weights(tiny())
    assert same({n: w for n, w in weights(net).items() if n in kept}, kept)


def test_text_meets_the_layout_only_through_the_image_and_the_last_layout_is_silent() -> None:
    net, plain = trained(), tiny()
    with torch.no_grad():
        state, base = net.start(IMAGE, conditions(layout())), plain.start(IMAGE, conditions())
        first = net.run(state, 0, 1)
        assert torch.equal(first["text"], plain.run(base, 0, 1)["text"])
        assert not torch.allclose(first["image"], plain.run(base, 0, 1)["image"], atol=1e-3)
        assert not any(name.startswith("attention.") for name in first.cond)
        before, after = net.run(state, 0, 2), net.run(state, 0, 3)
        assert not torch.allclose(before["layout"], first["layout"], atol=1e-3) and torch.equal(after["layout"], before["layout"])
    sites = [info.site.branch for info in net.sites()]
    assert sites.count("layout_attention") == 3 and sites.count("layout_mlp") == 2


def test_fourier_features() -> None:
    found = fourier(torch.tensor([[[0.25, 0.5, 0.75, 1.0]]]))[0, 0]
    assert found.shape == (64,) and fourier(torch.zeros(1, 1, 4)).view(8, 2, 4)[:, 1].eq(1).all()
    assert found[:8].tolist() == pytest.approx([0.2474, 0.4794, 0.6816, 0.8415, 0.9689, 0.8776, 0.7317, 0.5403], abs=1e-4)


def test_boxes_have_no_order_and_absent_ones_no_content() -> None:
    net, order = trained(), [2, 0, 1, 3]
    shuffled = {n: Tokens(s.states[:, order], s.keep[:, order]) for n, s in layout().items()}
    assert torch.allclose(ask(net, shuffled), ask(net, layout()), atol=1e-5)
    swapped = {**layout(), "phrases": shuffled["phrases"]}
    assert not torch.allclose(ask(net, swapped), ask(net, layout()), atol=1e-4)
    assert torch.equal(ask(net, layout(0, seed=3)), ask(net, layout(0, seed=4)))
    slots = (Slot("boxes", group="layout"), Slot("phrases", group="layout"))
    dropped = nulled(conditions(layout()), slots, {"layout": torch.tensor([True, False])})
    with torch.no_grad():
        mixed = net(IMAGE, dropped).pred["image"]
    assert torch.allclose(mixed[0], ask(net, layout(0))[0], atol=1e-6) and torch.allclose(mixed[1], ask(net, layout())[1], atol=1e-6)


def test_the_zero_linear_learns_first() -> None:
    net = graft(tiny())
    core = [p for n, p in net.named_parameters() if "layout_attention.core" in n and n.endswith("image.q.weight")]
    zeros = [p for n, p in net.named_parameters() if n.endswith("layout_attention.zero.weight")]
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.5)
    for step in range(2):
        optimizer.zero_grad()
        net(IMAGE, conditions(layout())).pred["image"].square().mean().backward()
        assert all(p.grad.any() for p in zeros) and all(bool(p.grad.any()) is (step == 1) for p in core)
        optimizer.step()
    assert all(p.grad is None for n, p in net.named_parameters() if "layout" not in n)


@dataclass
class LayoutUntil(Session):
    """The layout acts on the first `steps` steps; later its cores are not computed."""

    steps: int
    footprint = Footprint(frozenset({"branch"}))

    def branch(self, site: Site, state: State, inputs: ByStream, compute: Core, call: Call) -> ByStream:
        return {} if call.step >= self.steps and site.branch.startswith("layout") else compute(inputs)


def test_a_session_ends_the_layout() -> None:
    net, session = trained(), (LayoutUntil(3),)
    assert torch.equal(ask(net, layout(), Call(session, step=2)), ask(net, layout()))
    assert torch.equal(ask(net, layout(), Call(session, step=3)), ask(tiny()))
