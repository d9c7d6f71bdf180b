"""Layton: a codec that keeps a few discrete tokens and lets a frozen latent denoiser draw the rest, steered by a trainable copy of itself.

Exercises the codec contract where decoding is a Process (seeds and step count are the caller's), a graft that reads a conditioning slot at
a network's door and adds to the residual stream between frozen blocks, and a gradient through the last step of a sampler only.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sfumato.backbones.mmdit import MMDiT, tiny
from sfumato.codecs.kl import KLCodec
from sfumato.core.blocks import Rewire
from sfumato.core.call import Call
from sfumato.core.codec import Codec
from sfumato.core.conditions import Conditions, Tokens
from sfumato.core.denoiser import Denoiser
from sfumato.core.errors import UsageError
from sfumato.core.process import NetCall, finish
from sfumato.core.rng import Rows
from sfumato.core.state import Out, State, Stream
from sfumato.sampling.loop import evaluate

from .sketches import same, seeded, weights

CODE, ENTRIES, LATENT = 6, 32, (4, 8, 8)


class Control(nn.Module):
    """A door: copies of the first blocks see the codes, and what each says goes through a zero Linear to the frozen block's output."""

    slots = frozenset({"codes"})

    def __init__(self, net: MMDiT) -> None:
        super().__init__()
        self.copies = nn.ModuleList(deepcopy(block) for block in list(net.blocks)[:-1])
        self.enter = nn.Conv2d(CODE, net.config.width, 1)
        self.zeros = nn.ModuleList(nn.Linear(net.config.width, net.config.width) for _ in self.copies)
        for zero in self.zeros:
            nn.init.zeros_(zero.weight)
            nn.init.zeros_(zero.bias)

    def forward(self, state: State, cond: Conditions, call: Call | None) -> State:
        if "codes" not in cond.spatial:
            return state
        inner = state.with_x({"image": state["image"] + self.enter(cond.spatial["codes"]).flatten(2).transpose(1, 2)})
        said: dict[str, Tensor] = {}
        for k, (copy, zero) in enumerate(zip(self.copies, self.zeros, strict=True)):
            inner = copy(inner)
            said[f"control{k}"] = zero(inner["image"])
        return replace(state, cond={**state.cond, **said})


class Inject(Rewire):
    def __init__(self, k: int) -> None:
        super().__init__()
        self.key = f"control{k}"

    def forward(self, state: State, call: Call | None = None) -> State:
        return state.with_x({"image": state["image"] + state.cond[self.key]}) if self.key in state.cond else state


def controlled(net: MMDiT) -> MMDiT:
    """`net` frozen, with a trainable control."""
    control, frozen = Control(net), list(net.blocks)
    net.requires_grad_(False)
    net.doors["control"] = control
    net.set_program([item for k, block in enumerate(frozen[:-1]) for item in (block, Inject(k))] + frozen[-1:])
    return net


@dataclass(frozen=True)
class FewRun:
    z: Tensor
    cond: Conditions
    index: int = 0


@dataclass(frozen=True)
class FewSteps:
    """Expect x_0, noise it again to the next time with fresh noise; the last x_0 is the answer."""

    denoiser: Denoiser
    times: tuple[float, ...]

    def init(self, request: Conditions, rows: Rows) -> FewRun:
        return FewRun(rows.normal(LATENT, "noise"), request)

    def calls(self, run: FewRun) -> dict[str, NetCall]:
        return {"cond": NetCall({"image": Stream(run.z, t=self._now(run))}, run.cond, Call(step=run.index))}

    def update(self, run: FewRun, outs: Mapping[str, Out], rows: Rows) -> FewRun:
        z = self.denoiser.interpret(outs["cond"].pred["image"], run.z, self._now(run)).x0
        if run.index + 1 < len(self.times):
            z = self.denoiser.path.mix(z, rows.normal(LATENT, "renoise", run.index), torch.tensor(self.times[run.index + 1]))
        return replace(run, z=z, index=run.index + 1)

    def done(self, run: FewRun) -> bool:
        return run.index == len(self.times)

    def _now(self, run: FewRun) -> Tensor:
        return torch.full((len(run.z),), self.times[run.index])


class Layton(nn.Module):
    """Pictures (B, 3, 16, 16) to ids (B, 4, 4)."""

    factor = 4

    def __init__(self) -> None:
        super().__init__()
        self.net = controlled(tiny())
        self.encoder, self.vae = nn.Conv2d(3, CODE, 4, 4).requires_grad_(False), nn.ConvTranspose2d(4, 3, 2, 2).requires_grad_(False)
        self.register_buffer("codebook", normalize(torch.randn(ENTRIES, CODE, generator=seeded(3)), dim=1))

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        if noise is not None:
            raise UsageError("noise is given, but these codes are ids", "leave noise out")
        return torch.einsum("bchw,kc->bkhw", self.encoder(images), self.codebook).argmax(1)

    def decode(self, codes: Tensor, rows: Rows | None = None, steps: int | None = None) -> Tensor:
        if rows is None or len(rows) != len(codes):
            raise UsageError(f"this codec draws {len(codes)} pictures from {rows}", "pass rows, a seed for each")
        count = 3 if steps is None else steps
        process = FewSteps(Denoiser(self.net), tuple(1 - i / count for i in range(count)))
        run = process.init(self.conditions(codes), rows)
        while not process.done(run):
            with torch.set_grad_enabled(torch.is_grad_enabled() and run.index == count - 1):
                run = process.update(run, evaluate(process.denoiser, process.calls(run)), rows)
        return self.vae(run.z)

    def conditions(self, codes: Tensor) -> Conditions:
        blank = Tokens(torch.zeros(len(codes), 2, 12), torch.ones(len(codes), 2, dtype=torch.bool))
        spatial = {"codes": self.codebook[codes].permute(0, 3, 1, 2)}
        return Conditions(tokens={"text": blank}, vectors={"pooled": torch.zeros(len(codes), 6)}, spatial=spatial)


IMAGES = torch.randn(2, 3, 16, 16, generator=seeded(4))


def trained() -> Layton:
    """A Layton whose control has something to say."""
    codec = Layton()
    for zero in codec.net.doors["control"].zeros:
        nn.init.normal_(zero.weight, std=0.3, generator=seeded(5))
    return codec


@torch.no_grad()
def test_an_untrained_control_changes_nothing_and_a_trained_one_reads_the_codes() -> None:
    z, t = torch.randn(2, *LATENT, generator=seeded()), torch.tensor([0.4, 0.9])
    for codec, alike in ((Layton(), True), (trained(), False)):
        cond = codec.conditions(codec.encode(IMAGES))
        with pytest.raises(UsageError, match="does not read the conditioning slot codes"):
            tiny()({"image": Stream(z, t=t)}, cond)
        plain = tiny()({"image": Stream(z, t=t)}, replace(cond, spatial={})).pred["image"]
        assert torch.equal(codec.net({"image": Stream(z, t=t)}, cond).pred["image"], plain) is alike
        assert torch.equal(codec.net({"image": Stream(z, t=t)}, replace(cond, spatial={})).pred["image"], plain)


@torch.no_grad()
def test_decoding_is_a_seeded_run_of_so_many_steps() -> None:
    codec: Codec = trained()
    assert isinstance(codec, Codec)
    ids = codec.encode(IMAGES)
    assert ids.shape == (2, 4, 4) and not ids.is_floating_point()
    pictures, calls = codec.decode(ids, Rows((1, 2))), []
    assert pictures.shape == IMAGES.shape and torch.equal(codec.decode(ids, Rows((1, 2))), pictures)
    assert torch.allclose(codec.decode(ids[1:], Rows((2,))), pictures[1:], atol=1e-5)
    for other in (codec.decode(ids, Rows((1, 3))), codec.decode(ids.flip(1), Rows((1, 2))), codec.decode(ids, Rows((1, 2)), steps=2)):
        assert not torch.allclose(other[1], pictures[1], atol=1e-3)
    codec.net.register_forward_hook(lambda *seen: calls.append(1))
    codec.decode(ids, Rows((1, 2)), steps=5)
    assert len(calls) == 5
    with pytest.raises(UsageError, match="seed"):
        codec.decode(ids)
    with pytest.raises(UsageError, match="one pass"):
        KLCodec(nn.Identity()).decode(torch.zeros(1, 4, 2, 2), steps=3)


@pytest.mark.parametrize("steps", [1, 3])
def test_an_oracle_is_decoded_exactly(steps: int) -> None:
    target, rows = torch.randn(2, *LATENT, generator=seeded(6)), Rows((1, 2))
    process = FewSteps(Denoiser(tiny()), tuple(1 - i / steps for i in range(steps)))

    def oracle(calls: Mapping[str, NetCall]) -> dict[str, Out]:
        image = calls["cond"].streams["image"]
        return {"cond": Out({"image": (image.x - target) / image.t[:, None, None, None]})}

    assert torch.allclose(finish(process, process.init(Conditions(), rows), rows, oracle).z, target, atol=1e-5)


def test_pixels_train_the_control_through_the_last_step_alone() -> None:
    codec, recorded = Layton(), []
    ids, before = codec.encode(IMAGES), {n: w for n, w in weights(codec).items() if "doors" not in n}
    codec.net.register_forward_hook(lambda module, inputs, out: recorded.append(out.pred["image"].requires_grad))
    learning = [p for p in codec.parameters() if p.requires_grad]
    assert {id(p) for p in learning} == {id(p) for p in codec.net.doors["control"].parameters()}
    optimizer = torch.optim.SGD(learning, lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        (codec.decode(ids, Rows((1, 2))) - IMAGES).square().mean().backward()
        control = codec.net.doors["control"]
        assert all(z.weight.grad.any() for z in control.zeros) and bool(control.enter.weight.grad.any()) is (step == 1)
        assert all(p.grad is None for p in codec.parameters() if not p.requires_grad)
        optimizer.step()
    assert recorded == [False, False, True] * 2
    assert same({n: w for n, w in weights(codec).items() if "doors" not in n}, before) and torch.equal(codec.encode(IMAGES), ids)
