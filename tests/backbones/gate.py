"""One column of the gate: a network's answer and gradients, on one process or as the two ranks of a sharded run.

The sharded column lives in a module of its own because spawned processes import it by name.
"""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tests.builders import conditions, image
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from sfumato.backbones import backbones
from sfumato.core.call import HOOKS, Call, Footprint, Session
from sfumato.core.conditions import Conditions
from sfumato.core.files import read_tensors
from sfumato.core.program import Network
from sfumato.core.state import Stream
from sfumato.core.weights import assign_strictly

WORLD, PATIENCE = 2, 600.0
Answer = dict[str, Tensor]


class Identity(Session):
    """Every hook, at every block, passing everything through; `acted` counts which were asked."""

    footprint = Footprint(frozenset(HOOKS))

    def __init__(self) -> None:
        self.acted: dict[str, int] = {}

    def branch(self, site, state, inputs, compute, call):
        self.acted["branch"] = self.acted.get("branch", 0) + 1
        return compute(inputs)

    def attention(self, site, heads, attend, call):
        self.acted["attention"] = self.acted.get("attention", 0) + 1
        return attend(heads, None)

    def tokens(self, block, state, call):
        self.acted["tokens"] = self.acted.get("tokens", 0) + 1
        return state

    def blocks(self, state, run, a, b, call):
        self.acted["blocks"] = self.acted.get("blocks", 0) + 1
        return run(state, a, b)


def batch(net: Network, rows: slice = slice(None)) -> tuple[dict[str, Stream], Conditions]:
    """Four rows of picture and text, with padding, in the slots that the network reads. A family that needs more slots adds them here."""
    streams, cond = image(4), conditions([5, 3, 4, 1])
    sizes = torch.tensor([[64.0, 48.0], [512.0, 512.0], [16.0, 0.0], [0.0, 7.0]])
    vectors = {**cond.vectors, "original_size": sizes, "crop": sizes.flip(0), "target_size": sizes.flip(1)}
    # Two layers of a language model, side by side.
    tokens = {**cond.tokens, "taps": conditions([2, 4, 1, 3], width=16, seed=1).tokens["text"]}
    scalars = {"class": torch.tensor([2, 0, 3, 5]), "kind": torch.tensor([1, 0, 0, 1])}
    generator, shape = torch.Generator().manual_seed(1), vars(net.config)
    others = {"clip": (4, 1, shape.get("clip_width")), "text": (4, shape.get("words"), shape.get("text_width"))}
    for name in net.inputs[1:]:
        level = streams["image"].t if name == "clip" else torch.linspace(0.8, 0.0, 4)
        streams |= {name: Stream(torch.randn(*others[name], generator=generator), t=level)}
    cond = Conditions(*({n: v for n, v in slot.items() if n in net.slots} for slot in (tokens, vectors, scalars)))
    return {n: Stream(s.x[rows], t=s.t[rows]) for n, s in streams.items()}, cond.rows(rows)


def built(family: str, weights: Path | None) -> Network:
    """The family's tiny network; with `weights`, one of other random numbers that then loads them."""
    net = backbones.get(family).tiny(seed=0 if weights is None else 1)
    if weights is not None:
        assign_strictly(net, read_tensors(weights), str(weights))
    return net.train()


def asked(net: Network, policy: Session | None, rows: slice = slice(None), prepared: bool = False) -> Answer:
    """Predictions `pred.*` of the rows and gradients `grad.*` of their mean square; `prepared`: what the slots say is computed before."""
    streams, cond = batch(net, rows)
    cond = net.prepare(cond) if prepared else cond
    pred = net(streams, cond, None if policy is None else Call((policy,), t=streams["image"].t)).pred
    sum(p.square().mean() for p in pred.values()).backward()
    grads = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
    return {f"pred.{n}": p.detach() for n, p in pred.items()} | {
        f"grad.{n}": g.full_tensor() if isinstance(g, DTensor) else g for n, g in grads.items()
    }


def shard(net: Network) -> Network:
    """Every program item and the root. torch's default would cast inputs, tables and all, to the parameters' type."""
    mesh, policy = init_device_mesh("cpu", (WORLD,)), MixedPrecisionPolicy(cast_forward_inputs=False)
    for item in net.blocks:
        fully_shard(item, mesh=mesh, mp_policy=policy)
    fully_shard(net, mesh=mesh, mp_policy=policy)
    return net


def sharded(folder: Path, family: str, weights: Path) -> dict[tuple[str, str], Answer]:
    """The column "FSDP2": two processes, each with half of the rows; answers by (policy, saved)."""
    context = mp.start_processes(_rank, args=(str(folder), family, str(weights)), nprocs=WORLD, join=False, start_method="spawn")
    deadline = time.monotonic() + PATIENCE
    try:
        while not context.join(timeout=5.0):
            if time.monotonic() > deadline:
                raise TimeoutError(f"two processes did not finish within {PATIENCE:.0f} s")
    finally:
        for process in context.processes:
            process.kill()
    found = [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]
    return {key: _joined([part[key] for part in found]) for key in found[0]}


def _joined(parts: list[Answer]) -> Answer:
    return {n: torch.cat([p[n] for p in parts]) if n.startswith("pred.") else x for n, x in parts[0].items()}


def _rank(rank: int, folder: str, family: str, weights: str) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=WORLD, timeout=timedelta(seconds=PATIENCE))
    half = slice(2 * rank, 2 * rank + 2)
    answers: dict[tuple[str, str], Answer] = {}
    for policy, session in (("no policy", None), ("identity policy", Identity())):
        for saved, file in (("before save", None), ("after load", Path(weights))):
            answers[policy, saved] = asked(shard(built(family, file)), session, half, prepared=file is not None)
    torch.save(answers, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
