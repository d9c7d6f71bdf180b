"""The exact checks of MicroDiT: sizes, experts that choose, patches that are left out, EDM's precondition around it."""

import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from tests.builders import conditions, image, toy
from tests.training.tasks import latents
from torch import Tensor, nn

from sfumato.backbones.microdit import MicroDiT, MicroDiTConfig, tiny
from sfumato.core.call import Call
from sfumato.core.conditions import Conditions, Slot, Tokens
from sfumato.core.config import from_dict, to_dict
from sfumato.core.denoiser import Denoiser, Meaning
from sfumato.core.errors import ConfigError, UsageError
from sfumato.core.precondition import Edm
from sfumato.core.rng import Draws, Rows
from sfumato.core.state import Stream
from sfumato.core.task import Phase
from sfumato.nn.expert_choice import ExpertChoice
from sfumato.nn.mlp import SwiGLU
from sfumato.nn.rewires import Gather
from sfumato.objectives.denoising import Denoising
from sfumato.objectives.masking import Masking
from sfumato.objectives.times import LogitNormal
from sfumato.sampling.guidance import ClassifierFree
from sfumato.sampling.loop import draw
from sfumato.sampling.ode import DrawRequest, Ode
from sfumato.sampling.schedules import grid
from sfumato.sampling.solvers import Heun
from sfumato.training.diffusion import DiffusionTask

TINY2 = {"depth": 16, "width": 512, "head": 32, "mixer_depth": 4, "mixer_width": 512}


def words(lengths: list[int], seed: int = 0) -> Conditions:
    return Conditions(conditions(lengths, seed=seed).tokens, {})


@cache
def on_meta(**changes: object) -> MicroDiT:
    with torch.device("meta"):
        return MicroDiT(MicroDiTConfig(**changes))


def size(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(
    ("changes", "whole", "backbone", "mixer"),
    [({}, 1_165_442_832, 958_238_720, 184_084_992), (TINY2, 200_691_728, 141_922_304, 52_979_712)],
)
def test_parameter_counts_of_the_paper(changes: dict[str, object], whole: int, backbone: int, mixer: int):
    net = on_meta(**changes)
    depth, blocks = net.config.depth, list(net.blocks)
    gather = next(i for i, item in enumerate(blocks) if isinstance(item, Gather))
    assert (size(net), size(*blocks[-depth:]), size(*blocks[gather - net.config.mixer_depth : gather])) == (whole, backbone, mixer)


def test_widths_grow_with_depth():
    net = on_meta()
    blocks = list(net.blocks)[-28:]
    heads = [block.attention.core.projections["image"].q.out_features for block in blocks]
    assert heads[:2] == [512, 640] and heads[-1] == 1024 and heads == sorted(heads) and not any(w % 128 for w in heads)
    sparse = [i for i, block in enumerate(blocks) if isinstance(block.mlp.core, ExpertChoice)]
    assert sparse == list(range(1, 27, 2)) and blocks[1].mlp.core.experts[0].up.out_features == 768
    assert blocks[0].mlp.core.up.out_features == 512 and blocks[-1].mlp.core.up.out_features == 2816
    mixed = [isinstance(block.mlp.core, ExpertChoice) for block in list(net.blocks)[3:9]]
    assert mixed == [False, True] * 3 and all(block.cross.core.q.out_features == 1024 for block in blocks)
    even = on_meta(attention_ratio=(1.0, 1.0), mlp_ratio=(4.0, 4.0), experts=0)
    assert all(isinstance(block.mlp.core, SwiGLU) and block.mlp.core.up.out_features == 2816 for block in list(even.blocks)[-28:])


def experts(count: int = 4, capacity: float = 2.0) -> ExpertChoice:
    torch.manual_seed(0)
    return ExpertChoice(6, 8, count, capacity)


@pytest.mark.parametrize(("tokens", "count", "capacity"), [(64, 8, 2.0), (256, 8, 2.0), (15, 4, 2.0), (7, 4, 1.0), (3, 8, 2.0)])
def test_every_expert_takes_as_many_tokens(tokens: int, count: int, capacity: float):
    moe, x = experts(count, capacity), torch.randn(3, tokens, 6)
    p, chosen = moe.chosen(x)
    assert p.shape == chosen.shape == (3, count, int(capacity * tokens / count))
    every = moe.router(x).softmax(-1)
    assert torch.equal(p, every.transpose(1, 2).gather(2, chosen)), "what it takes is weighed by its probability"
    if p.shape[2]:
        left = every.transpose(1, 2).scatter(2, chosen, 0.0)
        assert bool((left.amax(2) <= p.amin(2)).all()), "no token it left counts more than one it took"
    expected = torch.zeros_like(x)
    for row in range(3):
        for e in range(count):
            for token, weight in zip(chosen[row, e].tolist(), p[row, e], strict=True):
                expected[row, token] += weight * moe.experts[e](x[row, token])
    torch.testing.assert_close(moe(x), expected)


def test_experts_of_one_mind_share_evenly_and_a_row_is_routed_by_itself():
    moe, x = experts(8), torch.randn(2, 16, 6)
    alone = moe(x[:1])
    torch.testing.assert_close(moe(x)[:1], alone)
    moe.router.weight.data[:] = moe.router.weight.data[:1]
    assert torch.equal(moe.chosen(x)[0], torch.full((2, 8, 4), 1 / 8))
    (2 * moe(x)).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in moe.parameters() if p is not moe.router.weight)


def sent(net: MicroDiT, x: Tensor, keep: Tensor | None = None) -> Tensor:
    call = None if keep is None else Call(noise={"keep": keep})
    return net({"image": Stream(x, t=torch.linspace(-1.0, 1.0, len(x)))}, words([5, 3][: len(x)]), call).pred["image"]


@pytest.mark.parametrize("shape", [{}, {"mixer_width": 24}, {"mixer_depth": 0}, {"experts": 0, "patch": 1, "channels": 2}])
@torch.no_grad()
def test_keeping_every_patch_is_the_plain_network_bit_for_bit(shape: dict[str, int]):
    net = tiny(**shape)
    x = image(channels=net.config.channels, height=8, width=12)["image"].x
    count = 8 * 12 // net.config.patch**2
    assert torch.equal(sent(net, x, torch.arange(count).expand(2, -1)), sent(net, x))


@torch.no_grad()
def test_dropped_patches_come_back_as_zeros_in_their_places():
    x, masking = image(height=8, width=12)["image"].x, Masking(0.75)
    keep = masking.draw(x, Draws(0, 0))
    out, net = sent(tiny(), x, keep), tiny()
    patches = out.unfold(2, 2, 2).unfold(3, 2, 2).abs().sum((1, 4, 5)).flatten(1)
    assert torch.equal((patches > 0).nonzero()[:, 1].view(2, -1), keep) and keep.shape == (2, 6)
    shuffled = keep.flip(1)
    torch.testing.assert_close(sent(net, x, shuffled), out, msg="the order of what is kept tells nothing")


@torch.no_grad()
def test_a_patch_left_out_is_heard_behind_a_mixer_and_never_without():
    x = image(1)["image"].x
    keep, nudged = torch.tensor([[1, 2, 3, 7, 9, 12]]), x.clone()
    nudged[:, :, :2, :2] += 1.0
    deferred, naive = tiny(), tiny(mixer_depth=0)
    assert not torch.allclose(sent(deferred, x, keep), sent(deferred, nudged, keep))
    assert torch.equal(sent(naive, x, keep), sent(naive, nudged, keep))


def test_the_mask_is_cut_as_the_ratio_says():
    assert Masking(0.75).kept(256) == 64 and Masking(0.9).kept(10) == 1, "int(10 * (1 - 0.9)) is 0 by rounding alone"
    latents = torch.zeros(3, 4, 32, 32)
    keep = Masking(0.75).draw(latents, Draws(0, 0))
    assert keep.shape == (3, 64) and torch.equal(keep, Masking(0.75).draw(latents, Draws(0, 0)))
    assert not torch.equal(keep[0], keep[1]) and bool((keep.diff(dim=1) > 0).all())
    error = torch.zeros(1, 2, 4, 4)
    error[0, 0, :2, 2:] = 8.0
    mean = Masking(0.5).mean(error, torch.tensor([[1, 2]]))
    assert mean.item() == pytest.approx(2.0) and Masking(0.5).mean(error, torch.tensor([[0, 3]])).item() == 0.0
    with pytest.raises(UsageError, match="leaves none of 4 patches"):
        Masking(0.9).draw(torch.zeros(1, 4, 4, 4), Draws(0, 0))
    with pytest.raises(ConfigError, match=r"1\.0 of the patches"):
        Masking(1.0)


def test_a_prompt_without_words_is_one_word_of_zeros():
    net, streams = tiny(), image(2)
    blank = words([1, 1]).tokens["text"]
    nothing = Conditions({"text": Tokens(torch.full_like(blank.states, math.nan), torch.zeros_like(blank.keep))})
    zeros = Conditions({"text": Tokens(torch.zeros(2, 77, 12), torch.ones(2, 77, dtype=torch.bool))})
    one, other = (net(streams, cond).pred["image"] for cond in (nothing, zeros))
    torch.testing.assert_close(one, other, msg="77 equal words are read as one: the published null prompt")
    empty = Conditions({"text": Tokens(torch.zeros(2, 0, 12), torch.zeros(2, 0, dtype=torch.bool))})
    assert torch.isfinite(net(streams, empty).pred["image"]).all()


EDM = Edm(0.9)
MEANING = Meaning("x0", precondition=EDM)


def test_edm_on_the_straight_path_is_karras_formula():
    s = torch.tensor([0.01, 0.4, 1.0, 30.0]).view(4, 1, 1, 1)
    c, d = EDM.coefficients(1 / (1 + s), s / (1 + s)), 0.9
    total = s**2 + d**2
    x = 2.0  # EDM's x; ours is x / (1 + s)
    torch.testing.assert_close(c.skip * x / (1 + s), d**2 / total * x)
    torch.testing.assert_close(c.into * x / (1 + s), x / total.sqrt())
    torch.testing.assert_close(c.out, s * d / total.sqrt())
    torch.testing.assert_close(c.noise, s.flatten().log() / 4)
    ends = EDM.coefficients(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [0.0]]))
    assert torch.equal(ends.into, torch.tensor([[1.0], [1 / 0.9]])) and torch.equal(ends.out, torch.tensor([[0.9], [0.0]]))
    torch.testing.assert_close(ends.noise, torch.tensor([math.log(80.0), math.log(0.002)]) / 4)


@pytest.mark.parametrize("law", [LogitNormal(-0.6, 1.2), LogitNormal(0.0, 0.6)])
def test_a_new_network_starts_at_a_loss_of_one_for_any_noise(law: LogitNormal):
    torch.manual_seed(0)
    net = MicroDiT(replace(tiny().config))
    x0 = 0.9 * torch.randn(64, 4, 8, 8)
    objective = Denoising(law, prediction="x0", precondition=EDM)
    sample = objective.draw(x0, Draws(0, 0))
    with torch.no_grad():
        out = Denoiser(net, MEANING).out(sample.x_t, sample.t, words([3] * 64)).pred["image"]
    skip = EDM.coefficients(*objective.path.at(sample.t, x0)).skip
    assert torch.equal(out, skip * sample.x_t), "D = c_skip x while the head says nothing"
    assert float(objective.loss(out, sample).mean()) == pytest.approx(1.0, abs=0.03)
    view = Denoiser(tiny(), MEANING).view(sample.x_t, sample.t, words([3] * 64))
    assert torch.isfinite(view.x0).all() and torch.isfinite(view.eps).all()


def test_pictures_are_drawn_from_pure_noise():
    request = DrawRequest((4, 8, 8), {"cond": words([3, 3]), "uncond": words([3, 3], seed=1)})
    out = draw(Ode(Denoiser(tiny(), MEANING), Heun(), grid(6), ClassifierFree(5.0)), request, Rows((0, 1)))
    assert torch.isfinite(out).all() and out.std() > 0


def task(net: MicroDiT, **changes: object) -> DiffusionTask:
    objective = Denoising(LogitNormal(-0.6, 1.2), prediction="x0", precondition=EDM, masking=Masking(0.5))
    return DiffusionTask(net, replace(objective, **changes), MEANING, (Slot("text"),))


def test_it_learns_with_half_of_its_patches():
    net, stream = tiny(depth=2), latents(rows=2, size=8)
    trained = task(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)

    def asked(index: int) -> Tensor:
        flat = {**stream.batch(index), "latents": torch.full((8, 4, 8, 8), 0.9)}
        return trained.loss(Phase("denoise", ("net",)), flat, {}, Draws(9, index)).total

    with torch.no_grad():
        before = sum(float(asked(1000 + i)) for i in range(4))
    for step in range(20):
        optimizer.zero_grad()
        asked(step).backward()
        optimizer.step()
    with torch.no_grad():
        assert sum(float(asked(1000 + i)) for i in range(4)) < 0.8 * before


def test_the_precondition_is_saved_with_the_meaning():
    assert from_dict(Meaning, to_dict(MEANING)) == MEANING and to_dict(MEANING)["precondition"]["sigma_data"] == 0.9


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="patches of 1 are masked"):
        task(tiny(), masking=Masking(0.5, 1))
    with pytest.raises(ConfigError, match="a masked objective for a Toy"):
        DiffusionTask(toy(lambda x, t, cond: x).net, Denoising(masking=Masking()))
    with pytest.raises(ConfigError, match="precondition is None"):
        task(tiny(), precondition=None)
    with pytest.raises(ConfigError, match="with the prediction 'flow'"):
        Meaning(precondition=EDM)
    with pytest.raises(ConfigError, match="sigma_data is 0"):
        Edm(0)
    with pytest.raises(UsageError, match=r"patches to keep come as \(2, 17\)"):
        sent(tiny(), image()["image"].x, torch.zeros(2, 17, dtype=torch.long))
    for wrong in ({"depth": 0}, {"width": 26}, {"head": 5}, {"mixer_depth": -1}, {"capacity": 9.0}, {"capacity": 0.0}, {"span": 0.0}):
        with pytest.raises(ConfigError):
            MicroDiTConfig(**wrong)
