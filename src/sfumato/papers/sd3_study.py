"""What SD3 (arXiv 2403.03206) says of training, measured on small MM-DiTs: the law of times, and norms of queries and keys."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..backbones.mmdit import MMDiTConfig
from ..objectives.denoising import Denoising
from ..objectives.times import law
from .arms import Arm, Trial
from .claims import Budget, Finding, Outcome, Verdict, shown
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
    by more than with them, clear of chance, or training does not stay finite. Reproduced: all of it; partly: some.
    """
    ranks = laws.mean_ranks([f"{kind}@{n}" for kind in ("frechet", "concept", "style") for n in RANKED_STEPS])
    gain = laws.difference(NEW, OLD, "frechet@5")
    if ranks is None or gain is None:
        return "not yet", "too few pictures for a Fréchet distance", ()
    difference, interval = gain
    findings = (
        Finding(
            f"mean rank of {NEW} times over {RANKED_STEPS} steps",
            f"below that of {OLD}, {ranks[OLD]:.2f}",
            ranks[NEW],
            ranks[NEW] < ranks[OLD],
        ),
        Finding(f"Fréchet distance at 5 steps, {NEW} minus {OLD}", "below 0, interval too", difference, interval[1] < 0, "", interval),
        *grown(norms),
    )
    held = [bool(f.passed) for f in findings]
    reached: Verdict = "reproduced" if all(held) else "partly" if any(held) else "not reproduced"
    logits = [norms.mean(arm, "growth") for arm in (NORMED, BARE)]
    times = f"mean rank {ranks[NEW]:.2f} v {ranks[OLD]:.2f}; Fréchet at 5 steps {shown(difference, interval)}"
    return (
        reached,
        f"{times}; largest logit late over early, with and without QK-norm: {' and '.join(f'{m[0]:.2f}' if m else 'none' for m in logits)}",
        findings,
    )


def grown(norms: Results) -> tuple[Finding, Finding]:
    """What the logits did without norms, and with them beside that."""
    bare, more = norms.mean(BARE, "growth"), norms.difference(NORMED, BARE, "growth")
    # Training without norms that does not stay finite has its logits grown; with them, nothing is known.
    diverged = bare is None and norms.mean(NORMED, "growth") is not None
    found = "diverged" if diverged else "not estimable"
    return (
        Finding(
            f"largest logit late over early, {BARE}",
            "above 1, interval too",
            bare[0] if bare else found,
            bare[1][0] > 1 if bare else diverged,
            "",
            bare and bare[1],
        ),
        Finding(
            f"the same, {NORMED} minus {BARE}",
            "below 0, interval too",
            more[0] if more else found,
            more[1][1] < 0 if more else diverged,
            "",
            more and more[1],
        ),
    )
