"""Beyond LLMs (Golden et al., arXiv 2312.14385): where the time of text-to-image generation goes, operator by operator.

The smoke check holds the profiler against closed forms. The measured claim: convolution outweighs attention in a diffusion U-Net and
sequence lengths vary within a step, linear layers outweigh all else in a diffusion transformer and lengths do not vary. What needs
systems that do not exist here (masked and autoregressive models, factorised video attention) is named as not checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..backbones.mmdit import MMDiT, MMDiTConfig, tiny
from ..core.conditions import Conditions, Tokens
from ..core.files import write_bytes
from ..core.rng import generator
from ..core.state import Stream
from ..evaluate.profile_report import ProfileReport
from ..evaluate.profiler import Profile, Work, profile
from ..evaluate.roofline import amdahl, attention, linear, measured
from ..pipelines import load
from .claims import Budget, Claim, Finding, Outcome, Verdict, exact

CLAIM = Claim(
    slug="beyond-llms",
    title="Generative AI Beyond LLMs: System Implications of Multi-Modal Generation",
    arxiv="2312.14385",
    statement="With fused attention, convolution takes the largest share of a diffusion U-Net's time (up to 44 %) and linear layers that "
    "of a transformer's (up to 49 %); diffusion computes like prefill, far above the intensity that decoding reaches; a U-Net's sequence "
    "lengths vary by up to four times.",
    budgets=("smoke", "cpu"),
)
RIDGE = 312e12 / 2.04e12  # an A100's, bf16: FLOPs a byte
STEPS, BATCH, SIDE, TEXT_WIDTH = 20, 8, 64, 768
NOT_CHECKED = {
    "shares of masked-token and autoregressive transformers": "not yet: no such backbone",
    "gain of fused attention, diffusion against decoding": "not yet: needs a GPU and an autoregressive backbone",
    "temporal attention's share of a video model": "not yet: no such backbone",
}


def check(budget: Budget) -> Outcome:
    """Smoke: the exact checks. Otherwise a U-Net and the shipped transformer, profiled."""
    return Outcome((*closed_forms(), *counts())) if budget.name == "smoke" else measure(budget)


def measure(budget: Budget) -> Outcome:
    """Profile one evaluation of a U-Net, whole generations of the transformer, and count intensities at a batch of eight."""
    steps, repeats = max(1, round(STEPS * budget.scale)), max(1, round(5 * budget.scale))
    pipe = load(budget.model, device=budget.device, dtype=torch.float32)
    unet = random_unet(budget.scale).to(budget.device)
    x, text = torch.zeros(2, 4, SIDE, SIDE, device=budget.device), torch.zeros(2, 77, TEXT_WIDTH, device=budget.device)
    convolved = middle(repeats, lambda: unet(x, 0.5, text), {"network": unet})
    drawn = middle(repeats, lambda: pipe("a red heart, noto style", steps=steps), pipe.modules())
    batched = profile(lambda: pipe(["a red heart, noto style"] * BATCH, steps=1, guidance=1.0), pipe.modules())[1]
    machine = measured(pipe.device, torch.float32)
    pictures = []
    for name, seen in (("unet", convolved), ("transformer", drawn)):
        told = {"steps": steps, "repeats": repeats}
        report = ProfileReport(f"{name}, on this machine", seen, machine, seen.wall, told)
        pictures.append(budget.pictures / f"{budget.name}-{name}.svg")
        write_bytes(pictures[-1], report.svg().encode())
    reached, summary, findings = verdict(convolved, drawn, batched)
    return Outcome(findings, reached, summary, (0,), tuple(pictures))


@torch.no_grad()
def middle(repeats: int, run: Callable[[], object], parts: Mapping[str, nn.Module]) -> Profile:
    """The profile of median time among `repeats`, after a run that warms up."""
    run()
    seen = sorted((profile(run, parts)[1] for _ in range(repeats)), key=lambda p: p.total().seconds)
    return seen[len(seen) // 2]


def random_unet(scale: float) -> nn.Module:
    """Stable Diffusion 1's U-Net with random weights: time does not hang on what was learned, but on the width it does (convolutions grow
    with its square, attention does not), so only a dry run is narrower.
    """
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    width = 32 * max(1, round(10 * scale))
    net: nn.Module = UNet2DConditionModel(
        sample_size=SIDE, block_out_channels=(width, 2 * width, 4 * width, 4 * width), cross_attention_dim=TEXT_WIDTH
    )
    return net.eval()


def verdict(unet: Profile, transformer: Profile, batched: Profile) -> tuple[Verdict, str, tuple[Finding, ...]]:
    """Partly at best: half of the claims need backbones that do not exist yet. Not reproduced when one that can be checked fails."""
    u, t = unet.shares("network"), transformer.shares("network")
    first = {name: max(shares, key=lambda kind, of=shares: of[kind]) for name, shares in (("unet", u), ("transformer", t))}  # type: ignore[misc]
    rows = batched.total(lambda row: row.kind == "linear" and ".mlp.core.image." in row.module)
    intensity = 2 * rows.intensity  # counted in fp32, and the ridge is that of bf16
    decode = linear(1, 1152, 1152).intensity
    varies = {name: spread(seen) for name, seen in (("unet", unet), ("transformer", transformer))}
    findings = (
        above("U-Net: convolution's share of time, and attention's", u["attention"], u["convolution"], "share"),
        Finding("U-Net: largest class of operators", "convolution", first["unet"], first["unet"] == "convolution"),
        Finding("transformer: largest class of operators", "linear", first["transformer"], first["transformer"] == "linear"),
        Finding("transformer: linear layers' share of time", "up to 0.49 on an A100", t["linear"], None, "share"),
        above(f"transformer, batch {BATCH}: intensity of MLPs, and half an A100's ridge", RIDGE / 2, intensity, "FLOP/B"),
        above("a tenth of that ridge, and decoding's intensity", decode, RIDGE / 10, "FLOP/B"),
        above("U-Net: longest over shortest sequence", 4 - 1e-9, varies["unet"]),
        exact("transformer: longest over shortest sequence", 1, varies["transformer"]),
        *(Finding(name, "to be measured", why) for name, why in NOT_CHECKED.items()),
    )
    held = [f.passed for f in findings if f.passed is not None]
    summary = (
        f"on this machine convolution takes {u['convolution']:.0%} of a U-Net's time, linear layers {t['linear']:.0%} of a transformer's; "
    )
    return "partly" if all(held) else "not reproduced", f"{summary}{sum(held)}/{len(held)} of what can be checked here hold", findings


def above(name: str, bound: float, found: float, unit: str = "") -> Finding:
    """Passes when `found` is greater."""
    return Finding(name, f"above {bound:.3g}", found, found > bound, unit)


def spread(seen: Profile) -> float:
    """Longest over shortest sequence in the network's attention, of queries or keys, whichever are more: a last block may ask for some of
    what it reads. The text encoder has lengths of its own.
    """
    lengths = [max(at.queries, at.keys) for at in seen.lengths if at.stage == "network"]
    return max(lengths) / min(lengths)


def closed_forms() -> tuple[Finding, ...]:
    """What operators cost."""
    with torch.device("meta"):
        dit = MMDiT(MMDiTConfig(depth=28, width=1152, heads=16))
    products = sum(info.cost({"image": 256, "text": 0}) for info in dit.sites())
    naive, fused = (attention(4096, 4096, 512, heads=8, fused=fused).bytes for fused in (False, True))
    spatial, temporal = 16 * attention(256, 256, 64).flops, 256 * attention(16, 16, 64).flops
    rows = (1, 64, 256, 1024, 4096)
    intensities = [linear(n, 1152, 1152).intensity for n in rows]
    return (
        exact(
            f"intensity of a linear layer, width 1152, {rows} rows", (0.99827, 57.60, 177.23, 368.64, 504.99), intensities, 5e-3, "FLOP/B"
        ),
        exact("DiT-XL/2, 256 tokens: multiply-adds of all sites", 118.38, products / 1e9, 5e-3, "G"),
        exact("Amdahl: half made 4 times faster, a tenth", (1.6, 1.081), (amdahl(0.5, 4), amdahl(0.1, 4)), 5e-4),
        exact("scores of 8 heads, 4096 by 4096, bf16", 268_435_456, (naive - fused) / 4, 0, "B"),
        exact("FLOPs of spatial over temporal attention, 256 places, 16 frames", 16, spatial / temporal),
    )


@torch.no_grad()
def counts() -> tuple[Finding, ...]:
    """What the profiler says of a tiny transformer."""
    net, noise = tiny().eval(), generator((0, "input", 0))
    cond = Conditions({"text": Tokens(torch.randn(1, 5, 12, generator=noise), torch.ones(1, 5) > 0)}, {"pooled": torch.zeros(1, 6)})
    streams = {"image": Stream(torch.randn(1, 4, 32, 32, generator=noise), t=torch.full((1,), 0.5))}

    def run() -> Tensor:
        answer: Tensor = net(streams, cond).pred["image"]
        return answer

    plain = run()
    watched, seen = profile(run, {"network": net})
    of_sites = [row.work for row in seen.rows if row.module.startswith("network.blocks.") and ".modulation." not in row.module]
    cost = sum(2 * info.cost({"image": 256, "text": 5}) for info in net.sites())
    return (
        exact("profiler on and off: largest difference of the answers", 0, float((plain - watched).abs().max())),
        exact("shares of time, sum", 1, sum(seen.shares().values()), 1e-9),
        exact("FLOPs of the blocks' products", cost, sum(of_sites, Work()).flops),
        # Nobody reads the last block's text.
        exact("queries of all attention calls", (261, 261, 256), [at.queries for at in seen.lengths]),
    )
