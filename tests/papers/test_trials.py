"""Studies of small networks run, at microscopic size, from drawings to record; and their rules on made-up results."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from sfumato.backbones.ascan import AsCAN, AsCANConfig
from sfumato.backbones.nextdit import NextDiTConfig
from sfumato.backbones.pixart import PixArtConfig
from sfumato.backbones.unet_plan import UNetConfig
from sfumato.nn.layout import asymmetric
from sfumato.papers import ascan, ascan_study, lumina_next, pixart_sigma, sdxl, sdxl_report, study, uvit_scaling, uvit_study
from sfumato.papers.arms import Arm, Trial
from sfumato.papers.claims import reproduce
from sfumato.papers.compression_study import compressed, speed
from sfumato.papers.study import Cell, Metric, Results
from sfumato.papers.trial import cost
from sfumato.papers.tuning import Tuning
from sfumato.papers.world import World
from sfumato.training.optimizers import OptimizerConfig

MICRO = Trial(images=8, batch=4, seeds=(0,), pictures=4, steps=(2,))


@pytest.fixture
def small(little_world: World, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Papers at microscopic size."""
    for module in (pixart_sigma, uvit_study, lumina_next, sdxl, ascan_study):
        monkeypatch.setattr(module, "SIZE", 32)
        monkeypatch.setattr(module, "open_world", lambda budget, size: little_world)
    for module in (uvit_study, lumina_next, ascan_study):
        monkeypatch.setattr(module, "TRIAL", MICRO)
    return monkeypatch


def run(module: ModuleType, folder: Path) -> dict[str, Any]:
    slug = module.CLAIM.slug
    report = reproduce(slug, "cpu", folder / "claims", work=folder / "work")
    assert report.verdict != "not yet"
    record: dict[str, Any] = json.loads((folder / "claims" / f"{slug}.json").read_text())["budgets"]["cpu"]
    assert record["pictures"] and all((folder / "claims" / picture).is_file() for picture in record["pictures"])
    return record


def test_compression_is_measured_from_one_trained_network_a_seed(small: pytest.MonkeyPatch, tmp_path: Path) -> None:
    base = Arm(PixArtConfig(depth=8, width=16, heads=2, patch=1, variance=False))
    small.setattr(
        pixart_sigma,
        "PLAN",
        replace(pixart_sigma.PLAN, base=base, trial=replace(MICRO, seeds=(0, 1)), tuning=Tuning(8, marks=(4,), batch=4)),
    )
    small.setattr(pixart_sigma, "speed", lambda arm, blocks: {64: (0.6, (0.5, 0.7))})
    found = {f["name"]: f for f in run(pixart_sigma, tmp_path)["findings"]}
    assert found["time at 64x64 tokens, half compressed over dense"]["passed"]
    assert found["validation loss after 0 pictures: dense"]["found"] != found["validation loss after 0 pictures: deep"]["found"]
    assert len(list((tmp_path / "work" / "networks").iterdir())) == 2


def test_families_are_compared_at_equal_flops(small: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small.setattr(uvit_study, "WIDTHS", (32, 64))
    small.setattr(study, "EVEN", 0.7)  # two steps cannot be divided finely
    small.setattr(uvit_study, "divisible", lambda trial: trial)
    record = run(uvit_scaling, tmp_path)
    assert [f["name"] for f in record["findings"]][:2] == [
        f"validation loss, mean over t at width {w}, U-ViT minus PixArt" for w in (32, 64)
    ]


@pytest.mark.parametrize("scale", [1.0, 0.02, 0.0001])
def test_a_u_vit_sees_as_many_pictures_as_its_flops_allow(little_world: World, scale: float) -> None:
    trial = uvit_study.divisible(uvit_study.TRIAL.scaled(scale))
    assert scale < 1 or trial == uvit_study.TRIAL
    for width in uvit_study.WIDTHS:
        arms = uvit_study.arms(width, trial, little_world).values()
        spent = [trial.steps_of(a) * trial.batch * cost(a, little_world) for a in arms]
        assert abs(spent[0] / spent[1] - 1) < study.EVEN


def test_norms_and_larger_pictures_are_measured(small: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shape = NextDiTConfig(depth=2, width=32, heads=2, kv_heads=1, hidden=32, patch=1, variance=False)
    arms = {name: replace(arm, shape=replace(shape, sandwich=arm.shape.sandwich)) for name, arm in lumina_next.ARMS.items()}
    small.setattr(lumina_next, "ARMS", arms)
    record = run(lumina_next, tmp_path)
    assert {f"cpu-{rule}-2-steps.png" for rule in lumina_next.LARGER} == {Path(p).name for p in record["pictures"]}


def test_a_unet_is_told_what_was_done_to_its_pictures(small: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shape = UNetConfig(widths=(8, 16), down=((0,), (1,)), middle=1, up=((1, 1), (0, 0)), heads=(1, 2), groups=4, sizes_width=8)
    # Networks begin closed: what they are told matters after some steps.
    trial = replace(MICRO, images=24, pictures=8, optimizer=OptimizerConfig(lr=0.02, warmup=1))
    small.setattr(sdxl, "PLAN", replace(sdxl.PLAN, shape=shape, trial=trial, crops=24, drawn=3))
    record = run(sdxl, tmp_path)
    found = {f["name"]: f["found"] for f in record["findings"]}
    assert found["validation loss, mean over t: size told"] != found["validation loss, mean over t: small ones kept"]
    assert len(found["detail at each size told, smallest first"]) == 4
    assert len(set(found["middle of the ink, told to begin further and further right"])) > 1
    assert {Path(p).name for p in record["pictures"]} >= {"cpu-sizes.png", "cpu-crops.png", "cpu-size-told-2-steps.png"}
    assert len(list((tmp_path / "work" / "networks").iterdir())) == 5
    small.setattr("sfumato.papers.trial.train", None)  # all that was done is kept
    assert run(sdxl, tmp_path)["findings"] == record["findings"]


def test_layouts_are_compared(small: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny = {name: replace(layout, small=(8, 16), large=(32, 32)) for name, layout in ascan_study.LAYOUTS.items()}
    small.setattr(ascan_study, "LAYOUTS", tiny)
    times = ascan_study.speed(side=4, rounds=2)
    assert set(times) == set(tiny) and times["asymmetric"] == (1.0, (1.0, 1.0)) and all(value > 0 for value, _ in times.values())
    record = run(ascan, tmp_path)
    losses = [f["found"] for f in record["findings"] if f["name"].startswith("validation loss, mean")]
    assert len(set(losses)) == 5 and len(record["pictures"]) == 6


def test_layouts_cost_alike() -> None:
    def cost(shape: AsCANConfig, cells: int) -> float:
        with torch.device("meta"):
            return sum(info.cost({"image": cells, "text": 14}) for info in AsCAN(shape).sites())

    for cells, kind in ((64, "learning"), (1024, "timed")):
        shapes = {name: getattr(layout, kind) for name, layout in ascan_study.LAYOUTS.items()}
        fitted = {name: replace(shape, channels=16, text_width=384) for name, shape in shapes.items()}
        costs = {name: cost(shape, cells) for name, shape in fitted.items()}
        assert max(costs.values()) < 1.07 * min(costs.values()), costs
    words = {name: asymmetric(layout.learning.stages) for name, layout in ascan_study.LAYOUTS.items()}
    assert [name for name in words if words[name]] == ["asymmetric", "reversed"]


def results(metrics: tuple[str, ...], **cells: tuple[float | None, ...]) -> Results:
    """Three seeds that agree: the same value a metric for each."""
    found = {arm.replace("_", " "): [Cell(dict(zip(metrics, values, strict=True)), 1)] * 3 for arm, values in cells.items()}
    return Results(tuple(Metric(m, m) for m in metrics), found, {})


@pytest.mark.parametrize(
    ("quick", "dense", "deep", "middle", "random", "verdict"),
    [
        (0.6, 1.1, 1.0, 1.4, 2.0, "reproduced"),
        (0.6, 0.9, 1.0, 1.4, 2.0, "partly"),  # tuning spoilt the dense network
        (0.9, 1.1, 1.0, 1.4, 2.0, "not reproduced"),
        (0.6, 1.1, 1.0, 0.9, 2.0, "partly"),
        (0.6, 1.1, 1.1, 1.4, 0.5, "partly"),
        (0.6, 1.1, 1.6, 1.4, 0.5, "not reproduced"),
    ],
)
def test_the_rule_of_compression(quick: float, dense: float, deep: float, middle: float, random: float, verdict: str) -> None:
    found = results(
        ("loss@0", "loss@320", "loss@3200", "style@8"),
        dense=(dense, 1.0, 1.0, 0.5),
        deep=(2.0, 1.2, deep, 0.5),
        middle=(2.0, 1.5, middle, 0.5),
        shallow=(2.0, 1.5, 1.5, 0.5),
        deep_from_random=(2.0, random, 1.3, 0.5),
    )
    assert pixart_sigma.verdict(pixart_sigma.PLAN, found, {64: (quick, (quick, quick))})[0] == verdict


@pytest.mark.parametrize(
    ("small_one", "large_one", "verdict"), [(0.9, 0.7, "reproduced"), (1.1, 0.7, "partly"), (0.9, 0.85, "not reproduced")]
)
def test_the_rule_of_scaling(small_one: float, large_one: float, verdict: str) -> None:
    cells = {"PixArt 64": 1.0, "PixArt 128": 0.8, "U-ViT 64": small_one, "U-ViT 128": large_one}
    cells |= {"U-ViT on equal pictures 64": 0.5, "U-ViT on equal pictures 128": 0.5}
    metrics = tuple(Metric(m, m) for m in ("loss", "style@8", "alignment@8"))
    found = Results(metrics, {arm: [Cell({"loss": x, "style@8": 0.5, "alignment@8": 0.5}, 1)] * 3 for arm, x in cells.items()}, {})
    assert uvit_study.verdict(found)[0] == verdict


@pytest.mark.parametrize(
    ("open_growth", "open_loss", "best", "verdict"),
    [
        (8.0, 2.0, "time", "reproduced"),
        (8.0, None, "time", "reproduced"),
        (3.0, 2.0, "time", "partly"),
        (3.0, 2.0, "ntk", "not reproduced"),
    ],
)
def test_the_rule_of_bounded_branches(open_growth: float, open_loss: float | None, best: str, verdict: str) -> None:
    names, metrics = (lumina_next.USUAL, lumina_next.OPEN, lumina_next.BOUNDED_HIGH, lumina_next.OPEN_HIGH), ("loss", "growth")
    values = ((1.0, 2.0), (1.0, open_growth), (1.0, 2.0), (open_loss, open_growth if open_loss else None))
    cells = {name: [Cell(dict(zip(metrics, v, strict=True)), 1)] * 3 for name, v in zip(names, values, strict=True)}
    if open_loss is None:
        cells[lumina_next.OPEN_HIGH] = [Cell({"loss": None, "growth": None}, 1)] * 3
    norms = Results(tuple(Metric(m, m) for m in metrics), cells, {})
    scores = {rule: [Cell({"kernel@8": 0.0 if rule == best else 1.0}, 1)] * 3 for rule in lumina_next.LARGER}
    assert lumina_next.verdict(norms, Results((Metric("kernel@8", ""),), scores, {}), 8)[0] == verdict


@torch.no_grad()
def test_compression_keeps_every_other_weight() -> None:
    from sfumato.backbones.pixart import tiny

    dense = tiny(compress=())
    for average in (True, False):
        half = compressed(dense, (1, 2), average)
        own = {n for n in half.state_dict() if "reduce" in n}
        assert half.config.compress == (1, 2) and own
        assert all(torch.equal(half.state_dict()[n], t) for n, t in dense.state_dict().items())
        weight = half.blocks[1].attention.core.projections["image"].reduce.conv.weight
        assert bool((weight == 0.25).all()) is average


def test_speed_is_a_ratio_with_an_interval() -> None:
    arm = Arm(PixArtConfig(depth=2, width=16, heads=2, patch=1, variance=False))
    ((value, (low, high)),) = speed(arm, (1,), (4,), rounds=2).values()
    assert value > 0 and low <= high


DETAILS, MIDDLES = ("detail@16", "detail@32", "detail@64"), ("middle@0", "middle@32", "middle@64")


@pytest.mark.parametrize(
    ("told", "kept", "dropped", "cuts", "verdict"),
    [
        # detail at three sizes told, distance, recall
        ((0.3, 0.5, 0.8, 50.0, 0.4), (0.6, 60.0), 0.3, (0.1, 0.4), "reproduced"),
        ((0.3, 0.5, 0.8, 50.0, 0.4), (0.6, 60.0), 0.5, (0.1, 0.4), "partly"),  # less variety than without the small ones
        ((0.3, 0.2, 0.8, 50.0, 0.4), (0.6, 60.0), 0.3, (0.1, 0.4), "partly"),  # a sweep that falls
        ((0.3, 0.5, 0.8, 50.0, 0.4), (0.6, 60.0), 0.3, (0.3, 0.4), "partly"),
        ((0.3, 0.5, 0.8, 70.0, 0.4), (0.6, 60.0), 0.3, (0.3, 0.4), "not reproduced"),
        ((0.3, 0.5, 0.5, 50.0, 0.4), (0.6, 60.0), 0.3, (0.3, 0.4), "not reproduced"),
    ],
)
def test_the_rule_of_what_is_told(
    told: tuple[float, ...], kept: tuple[float, ...], dropped: float, cuts: tuple[float, float], verdict: str
) -> None:
    of_sizes = results(
        (*DETAILS, "frechet@8", "recall@8", "alignment@8"),
        size_told=(*told, 0.1),
        small_ones_kept=(None, None, *kept, 0.3, 0.1),
        small_ones_left_out=(None, None, 0.9, 40.0, dropped, 0.1),
    )
    of_crops = results(("cut", *MIDDLES), crop_told=(cuts[0], 0.5, 0.4, 0.3), crops_kept=(cuts[1], 0.5, None, None))
    assert sdxl_report.verdict(of_sizes, of_crops, 8)[0] == verdict
    still = results(("cut", *MIDDLES), crop_told=(cuts[0], 0.5, 0.6, 0.3), crops_kept=(cuts[1], 0.5, None, None))
    assert sdxl_report.verdict(of_sizes, still, 8)[0] != "reproduced"


@pytest.mark.parametrize(
    ("losses", "times", "verdict"),
    [
        # even, convolution, attention, reversed; the asymmetric one: 1.0 and 1
        ((1.1, 1.1, 1.1, 1.2), (1.1, 1.1, 1.0, 1.2), "reproduced"),
        ((1.0, 1.1, 1.1, 1.0), (1.1, 1.0, 1.3, 1.4), "reproduced"),
        ((1.1, 1.1, 1.1, 1.0), (1.1, 1.1, 1.0, 1.0), "partly"),  # the reversed one is neither worst nor slowest
        ((1.1, 0.9, 1.1, 1.2), (1.1, 1.3, 1.1, 1.4), "partly"),  # convolution: better, and slower
        ((1.1, 0.9, 1.1, 1.2), (1.1, 0.9, 1.1, 1.4), "not reproduced"),  # convolution: better and faster
        ((0.9, 0.9, 0.9, 0.9), (1.1, 1.1, 1.1, 1.1), "not reproduced"),
    ],
)
def test_the_rule_of_layouts(losses: tuple[float, ...], times: tuple[float, ...], verdict: str) -> None:
    names = ("even", "convolution", "attention", "reversed")
    found = results(("loss",), asymmetric=(1.0,), **{name: (loss,) for name, loss in zip(names, losses, strict=True)})
    took = {"asymmetric": (1.0, (1.0, 1.0))} | {name: (t, (t, t)) for name, t in zip(names, times, strict=True)}
    assert ascan_study.verdict(found, took)[0] == verdict
    unclear = {name: (t, (0.5, 2.0)) for name, (t, _) in took.items()}
    assert ascan_study.verdict(results(("loss",), asymmetric=(1.0,), **dict.fromkeys(names, (1.0,))), unclear)[0] == "not reproduced"


def test_a_network_that_alone_diverged_counts_and_both_do_not() -> None:
    names, metrics = (lumina_next.USUAL, lumina_next.OPEN, lumina_next.BOUNDED_HIGH, lumina_next.OPEN_HIGH), ("loss", "growth")
    whole, lost = [Cell({"loss": 1.0, "growth": 2.0}, 1)] * 3, [Cell({"loss": None, "growth": None}, 1)] * 3
    scores = {rule: [Cell({"kernel@8": 1.0}, 1)] * 3 for rule in lumina_next.LARGER}
    larger = Results((Metric("kernel@8", ""),), scores, {})
    for diverged, passed in (((3,), (False, True, True)), ((2,), (False, False, False)), ((2, 3), (False, False, False))):
        cells = {name: lost if k in diverged else whole for k, name in enumerate(names)}
        _, _, findings = lumina_next.verdict(Results(tuple(Metric(m, m) for m in metrics), cells, {}), larger, 8)
        assert tuple(f.passed for f in findings[:3]) == passed
