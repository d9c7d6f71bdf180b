"""What SD3 (arXiv 2403.03206) says of training, measured on small MM-DiTs: the law of times, and norms of queries and keys."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..backbones.mmdit import MMDiTConfig
from ..objectives.denoising import Denoising
from ..objectives.times import law
from .arms import Arm, Trial
from .claims import Budget, Finding, Outcome, Verdict, reached, shown
from .norm_study import learn_norms
from .study import Results
from .trial import concluded, run_study
from .world import open_world

NEW, OLD = "logit-normal", "uniform"
RANKED_STEPS = (5, 25, 50)


@dataclass(frozen=True)
class Plan:
    """`times`: what is taught and drawn to compare the laws; `norms`: to compare the norms, first after `early` pictures."""

    shape: MMDiTConfig
    times: Trial
    norms: Trial
    early: int

    def scaled(self, scale: float) -> Plan:
        early = max(self.norms.batch, int(scale * self.early))
        return self if scale == 1.0 else replace(self, times=self.times.scaled(scale), norms=self.norms.scaled(scale), early=early)


# On 2 cores 5 M parameters on 64 tokens, about an hour; on a large GPU the sheet's network and a million pictures an arm.
PLANS = {
    "cpu": Plan(
        MMDiTConfig(depth=4, width=192, heads=3), Trial(images=44_800, batch=64, pictures=320), Trial(images=12_800, batch=64), 3_200
    ),
    "gpu": Plan(
        MMDiTConfig(depth=6, width=384, heads=6),
        Trial(images=1_000_000, batch=512, ema=0.998),
        Trial(images=204_800, batch=512, ema=0.998),
        51_200,
    ),
}
NORMED, BARE = "QK-norm", "no QK-norm"
HIGH = {"lr": 3e-3, "muon_lr": 6e-3}  # three times the trial's


def measure(budget: Budget) -> Outcome:
    """What each time law teaches, and what the norms do."""
    plan, world = PLANS[budget.name].scaled(budget.scale), open_world(budget)
    laws = run_study("sd3-mmdit", {name: Arm(plan.shape, Denoising(law(name))) for name in (NEW, OLD)}, plan.times, world, budget)
    shapes = {NORMED: plan.shape, BARE: replace(plan.shape, qk_norm=False)}
    norms = learn_norms("sd3-mmdit-norms", {n: Arm(s, changes=HIGH) for n, s in shapes.items()}, plan.early, plan.norms, world, budget)
    outcome = concluded(laws, plan.times, budget, lambda results: verdict(results, norms))
    return replace(outcome, findings=(*outcome.findings, *norms.findings()))


def verdict(laws: Results, norms: Results) -> tuple[Verdict, str, tuple[Finding, ...]]:
    """Times: logit-normal ranks best over 5, 25 and 50 steps and draws nearer at 5, clear of chance. Norms: without them logits grow, and
    by more than with them, clear of chance, or training does not stay finite. Reproduced: both; partly: one.
    """
    ranks = laws.mean_ranks([f"{kind}@{n}" for kind in ("frechet", "concept", "style") for n in RANKED_STEPS])
    nearer = laws.apart(f"Fréchet distance at 5 steps, {NEW} minus {OLD}", NEW, OLD, "frechet@5")
    if ranks is None or not isinstance(nearer.found, float):
        return "not yet", "too few pictures for a Fréchet distance", ()
    first, second = ranks[NEW], ranks[OLD]
    rank = Finding(f"mean rank of {NEW} times over {RANKED_STEPS} steps", f"below that of {OLD}, {second:.2f}", first, first < second)
    of_norms = grown(norms)
    parts = [all(f.passed for f in part) for part in ((rank, nearer), of_norms)]
    logits = [norms.mean(arm, "growth") for arm in (NORMED, BARE)]
    told = f"mean rank {first:.2f} v {second:.2f}; Fréchet at 5 steps {shown(nearer.found, nearer.interval)}"
    late = " and ".join("none" if m is None else f"{m[0]:.2f}" for m in logits)
    return reached(*parts), f"{told}; largest logit late over early, with and without QK-norm: {late}", (rank, nearer, *of_norms)


def grown(norms: Results) -> tuple[Finding, Finding]:
    """What the logits did without norms, and with them beside that."""
    bare = norms.mean(BARE, "growth")
    first = Finding(f"largest logit late over early, {BARE}", "above 1, interval too", "not estimable", False)
    if bare is not None:
        first = replace(first, found=bare[0], passed=bare[1][0] > 1, interval=bare[1])
    more = norms.apart(f"the same, {NORMED} minus {BARE}", NORMED, BARE, "growth")
    # Training without norms that does not stay finite has its logits grown; with them, nothing is known.
    if bare is None and norms.mean(NORMED, "growth") is not None:
        return replace(first, found="diverged", passed=True), replace(more, found="diverged", passed=True)
    return first, more
