"""The Cow of Rembrandt (arXiv 2507.23313): do the words for what is drawn and for how it is drawn look at different places?

The smoke check holds recorder and metrics against the paper's protocol. The measured claim needs no generated picture: real drawings,
whose alpha is the exact mask of the object, are noised to several levels, and the network is watched while it looks at each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..backbones.mmdit import tiny
from ..core.attention import Attend, Group, Heads, attend
from ..core.call import Call, Footprint, Session, Site
from ..core.conditions import Conditions, Tokens
from ..core.denoiser import Denoiser
from ..core.errors import DataError, UsageError
from ..core.files import write_with
from ..core.rng import Rows, generator
from ..core.state import Stream
from ..data.captions import phrase
from ..data.sources import Sample, open_source
from ..evaluate.attribution import Attribution, Threshold, attribute, independent_iou, iou, other_pairs, spread, support
from ..evaluate.heatmaps import attended
from ..evaluate.metrics import bootstrap
from ..pipelines import TextToImage, load
from ..pipelines.sheet import contact_sheet
from ..sampling.guidance import ClassifierFree
from ..sampling.loop import draw
from ..sampling.ode import DrawRequest, Ode
from ..sampling.policies.attention_maps import AttentionRecorder, merged, probabilities, renormalised, resized
from ..sampling.schedules import grid
from ..sampling.solvers import Euler
from ..text.spans import parts
from .claims import Budget, Claim, Finding, Outcome, Verdict, drawings, exact, reached, shown

CLAIM = Claim(
    slug="cow-of-rembrandt",
    title="The Cow of Rembrandt: Analyzing Artistic Prompt Interpretation in Text-to-Image Models",
    arxiv="2507.23313",
    statement="A text-to-image model separates what is drawn from how: the attention maps of content and style words overlap less than "
    "those of other words of the same prompt; content words look at the object, style words at the rest.",
    budgets=("smoke", "cpu"),
)
DRAWINGS, LEVELS, NOISES = 240, (0.3, 0.5, 0.7), 4
CAPTION = "a {style} style drawing of {content}"
CONTROL = "drawing"  # a noun that names neither: beside function words, whose maps are diffuse, any two words look far apart
HIGH: tuple[Threshold, Threshold] = (("quantile", 0.8), ("absolute", 0.4))


def check(budget: Budget) -> Outcome:
    """Smoke: the exact checks. Otherwise real drawings, watched."""
    return Outcome((*metrics(), *recorder())) if budget.name == "smoke" else measure(budget)


# The attributions by renormalised and by raw maps: what cross attention shares among words alone, joint attention shares with the picture.
Seen = tuple[Sample, tuple[Attribution, Attribution], Mapping[str, Tensor]]


def measure(budget: Budget) -> Outcome:
    """Watch up to `DRAWINGS` held-out drawings; the verdict, and a sheet of examples."""
    folder = drawings(budget)
    pipe = load(budget.model, device=budget.device, dtype=torch.float32)
    source = open_source(folder, split="test", size=pipe.defaults.size[0])
    wanted, found = max(2, round(DRAWINGS * budget.scale)), list[Seen]()
    for i in torch.randperm(len(source), generator=generator((0, CLAIM.slug, 0))).tolist():
        if len(found) < wanted and (seen := look(pipe, source[i])) is not None:
            found.append(seen)
    if len(found) < 2:
        raise DataError(f"{len(found)} drawings in {folder} have a mask and words that the text encoder reads", "at least 2 are needed")
    reached, summary, findings = verdict([both for _, both, _ in found])
    return Outcome(findings, reached, summary, tuple(range(NOISES)), (sheet(found[:6], budget.pictures / f"{budget.name}-maps.png"),))


def look(pipe: TextToImage, sample: Sample) -> Seen | None:
    """A drawing under its true caption; None where it has no mask, fills the picture, or has words that the encoder does not read."""
    content, style = phrase(str(sample.attributes["concept"])), str(sample.attributes["style"])
    prompt = CAPTION.format(content=content, style=style)
    mask = torch.zeros(1, 1) > 0 if sample.alpha is None else sample.alpha > 127
    if not mask.any() or mask.all():
        return None
    try:
        tokens = parts(pipe.encoder.encode([prompt]), 0, {"content": content, "style": style})
    except UsageError:
        return None
    seen = resized(attended(pipe, sample.image.float() / 127.5 - 1, prompt, LEVELS, NOISES), (mask.shape[0], mask.shape[1]))
    shares, raw = ({name: merged(maps, rows) for name, rows in tokens.items()} for maps in (renormalised(seen[None])[0], seen))
    pictures = {"object": mask.float(), "content": spread(shares["content"]), "style": spread(shares["style"])}
    first, second = (attribute(maps, mask, "content", "style", CONTROL, HIGH) for maps in (shares, raw))
    return sample, (first, second), pictures


def verdict(both: Sequence[tuple[Attribution, Attribution]]) -> tuple[Verdict, str, tuple[Finding, ...]]:
    """By renormalised maps. Reproduced: all hold, clear of chance. Not reproduced: content words look at objects no more than style words
    do, or the two overlap as much as other words at both thresholds. Partly: the rest.
    """
    found = [shares for shares, _ in both]
    columns = {"content's attention on the object minus style's": [x.density[0] - x.density[1] for x in found]}
    columns |= {f"gap of content and style to all words, {t[0]} {t[1]}": [x.gaps[t] for x in found] for t in HIGH}
    columns |= {f"gap to the noun {CONTROL!r} alone, {t[0]} {t[1]}": [x.control[t] for x in found] for t in HIGH}
    columns["IoU of content's map and the object minus that of chance"] = [x.on_object for x in found]
    findings, lead = [], ""
    for name, values in columns.items():
        column = torch.tensor(values, dtype=torch.float64)
        mean, interval = float(column.mean()), bootstrap(column)
        findings.append(Finding(name, "above 0, interval too", mean, interval[0] > 0, "", interval))
        lead = lead or f"content minus style on the object {shown(mean, interval)}"
    held = [bool(f.passed) for f in findings]
    settled = reached(*held) if held[0] and any(held[1:3]) else "not reproduced"
    for kind, side in (("share of the text", found), ("raw", [raw for _, raw in both])):
        for i, name in enumerate(("content", "style")):
            mean = sum(x.density[i] for x in side) / len(side)
            findings.append(Finding(f"density of {name} words' attention on the object, {kind}", "1 = no preference", mean))
    return settled, f"{len(found)} drawings: {lead}; {sum(held)}/{len(held)} hold", tuple(findings)


def sheet(found: Sequence[Seen], path: Path) -> Path:
    """A row for each drawing: itself, its object, the content's map and the style's."""
    from PIL import Image

    pictures, captions = [], []
    for sample, _, maps in found:
        pictures.append(Image.fromarray(sample.image.permute(1, 2, 0).contiguous().numpy()))
        pictures += [Image.fromarray((one * 255).round().to(torch.uint8).numpy()).convert("RGB") for one in maps.values()]
        captions += [f"{sample.attributes['concept']}, {sample.attributes['style']}", *maps]
    write_with(path, lambda temporary: contact_sheet(pictures, captions).save(temporary, "PNG"))
    return path


def metrics() -> tuple[Finding, ...]:
    """Spread, thresholds, overlap and pairs."""
    ramp, maps = torch.arange(10.0)[None] / 10, torch.rand(12, 64, 64, generator=generator((0, "maps", 0)))
    a, b = ramp > 0.25, ramp > 0.55
    found = [
        exact("a map scaled and shifted, spread: largest difference", 0, _gap(spread(3 * maps + 5), spread(maps)), 1e-5),
        exact("IoU with itself, with the rest, both ways round", (1, 0, 4 / 7, 4 / 7), (iou(a, a), iou(a, ~a), iou(a, b), iou(b, a))),
        exact("a word of three tokens, mean: largest difference", 0, _gap(merged(maps, (0, 1, 2)), maps[:3].mean(0))),
        exact("a word of three tokens, first: largest difference", 0, _gap(merged(maps, (0, 1, 2), "first"), maps[0])),
    ]
    for high, counts in ((("absolute", 0.4), (2, 10)), (("absolute", 0.5), (0, 10)), (("quantile", 0.8), (0, 4))):
        x, y = (support(m, high) for m in (ramp, ramp.flip(-1)))  # type: ignore[arg-type]
        found.append(exact(f"a ramp and its mirror, {high[0]} {high[1]}: both, either", counts, (int((x & y).sum()), int((x | y).sum()))))
    for q in (0.1, 0.5, 0.8, 0.9):
        masks = support(maps, ("quantile", q))
        mean = sum(iou(masks[i], masks[i + 1]) for i in range(0, 12, 2)) / 6
        found.append(exact(f"IoU of unrelated maps, quantile {q}", independent_iou(1 - q, 1 - q), mean, 0.02))
    for words, counts in ((9, (35, 14)), (6, (14, 8)), (5, (9, 6))):
        pairs = other_pairs(("C", "S", *map(str, range(words - 2))), "C", "S")
        found.append(exact(f"other pairs of {words} words: all, touching", counts, (len(pairs[0]), len(pairs[1]))))
    return tuple(found)


class Crossing(Session):
    """Makes joint attention cross attention: the picture reads the text alone."""

    footprint = Footprint(frozenset({"attention"}), writes=frozenset({"attention"}))

    def attention(self, site: Site, heads: Mapping[str, Heads], attend: Attend, call: Call) -> Mapping[str, Tensor]:
        return attend(heads, {name: [Group(("text",))] for name in heads})


@torch.no_grad()
def recorder() -> tuple[Finding, ...]:
    """On a tiny random network: what is recorded is the softmax, and recording changes nothing."""
    net, noise = tiny().eval(), generator((0, "text", 0))
    cond = Conditions({"text": Tokens(torch.randn(1, 5, 12, generator=noise), torch.ones(1, 5) > 0)}, {"pooled": torch.zeros(1, 6)})
    sessions = [AttentionRecorder(apart=apart).begin() for apart in (frozenset(), frozenset({"steps", "sites"}))]  # type: ignore[arg-type]
    plain, watched = (
        draw(Ode(Denoiser(net), Euler(), grid(3), ClassifierFree(1.0), s), DrawRequest((4, 8, 8), {"cond": cond}), Rows((0,)))
        for s in ((), tuple(sessions))
    )

    def maps(keys: str, *outer: Session) -> Tensor:
        session = AttentionRecorder(keys=keys).begin()
        net({"image": Stream(plain, t=torch.full((1,), 0.5))}, cond, Call((*outer, session)))
        return session.mean()

    heads = {n: Heads(*torch.randn(3, 1, 2, k, 8, generator=noise)) for n, k in (("image", 16), ("text", 5))}
    whole = (heads["image"].q @ torch.cat([h.k for h in heads.values()], 2).mT / 8**0.5).softmax(-1)
    text, one = maps("text"), torch.ones(1, 4, 4)
    return (
        exact("the sampled picture with and without the recorder: largest difference", 0, _gap(plain, watched)),
        exact("running mean against the mean of what is kept apart: largest difference", 0, _gap(*(s.mean() for s in sessions)), 1e-6),
        exact(
            "joint attention: text mass and picture mass, largest distance from 1", 0, _gap(text.sum(1) + maps("image").sum(1), one), 1e-5
        ),
        exact("joint attention, renormalised: largest distance from 1", 0, _gap(renormalised(text).sum(1), one), 1e-5),
        exact("cross attention: text mass, largest distance from 1", 0, _gap(maps("text", Crossing()).sum(1), one), 1e-5),
        exact(
            "columns of the full softmax: largest difference", 0, _gap(probabilities(heads, attend, "image", "text"), whole[..., 16:]), 1e-6
        ),
    )


def _gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())
