"""The gate that every backbone passes by being registered.

{eager, compiled, checkpointed, 2-process FSDP2} x {no policy, identity policy} x {before save, after load and prepared}
give the outputs and the gradients of eager, no policy, before save; bf16, by autocast or in the weights, comes near them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.backbones.gate import Answer, Identity, asked, batch, built, sharded
from torch._dynamo.utils import counters

from sfumato.backbones import backbones
from sfumato.core.blocks import Block
from sfumato.core.files import write_tensors
from sfumato.core.program import Network

POLICIES, SAVED = ("no policy", "identity policy"), ("before save", "after load")
Weights = tuple[str, Path, Answer]
# The graphs of users' compiled blocks, forward and backward, without code generation. Inductor was measured: it agrees as closely, but its
# C++ costs every family a minute of processor time (112 s beside a busy machine's other work), and this 5 s.
BACKEND = "aot_eager"


@pytest.fixture(scope="module", params=sorted(backbones))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """A family's name, its saved weights, and what its network answers eagerly, without a policy, before they were saved."""
    path = tmp_path_factory.mktemp(request.param) / "weights.safetensors"
    net = built(request.param, None)
    write_tensors(path, net.state_dict())
    return request.param, path, asked(net, None)


def agree(found: Answer, expected: Answer, rtol: float = 1e-5) -> None:
    """Each tensor within `rtol` of its norm; a gradient that is zero in exact arithmetic is measured by the largest gradient instead."""
    assert found.keys() == expected.keys()
    scale = max(float(x.norm()) for x in expected.values())
    for name, value in expected.items():
        error = float((found[name] - value).norm())
        assert error <= rtol * float(value.norm()) + 1e-7 * scale, f"{name}: {error:.2e} of {float(value.norm()):.2e}"


@pytest.mark.parametrize("saved", SAVED)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("mode", ["eager", "compiled", "checkpointed"])
def test_gate(family: Weights, mode: str, policy: str, saved: str) -> None:
    name, path, expected = family
    net = built(name, path if saved == "after load" else None)
    net.checkpointing = mode == "checkpointed"
    if mode == "compiled":
        net.compile_blocks(BACKEND)
    session = Identity() if policy == "identity policy" else None
    graphs = counters["stats"]["unique_graphs"]
    # What is prepared is used where nothing acts, and given up where a policy does.
    agree(asked(net, session, prepared=saved == "after load"), expected)
    if session is not None:
        assert session.acted.keys() == {"branch", "attention", "tokens", "blocks"} and session.acted["tokens"] >= sum(
            isinstance(item, Block) for item in net.blocks
        )
        assert counters["stats"]["unique_graphs"] == graphs, "a block that a policy touches runs eagerly"


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
def test_gate_in_half_precision(family: Weights, weights: str) -> None:
    """bf16 by autocast, and in the weights: answers and gradients, each as a whole, lie by 0.3 to 1.3% from those in fp32."""
    name, path, expected = family
    net = built(name, path).to(torch.bfloat16 if weights == "bf16" else torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=weights == "fp32"):
        found = asked(net, None)
    assert found.keys() == expected.keys() and all(torch.isfinite(x).all() for x in found.values())
    for kind in ("pred.", "grad."):
        names = [n for n in expected if n.startswith(kind)]
        whole = [torch.cat([answer[n].float().flatten() for n in names]) for answer in (found, expected)]
        error = float((whole[0] - whole[1]).norm() / whole[1].norm())
        assert error <= 0.02, f"{kind} {error:.3f}"


def test_gate_sharded(family: Weights, tmp_path: Path) -> None:
    name, path, expected = family
    found = sharded(tmp_path, name, path)
    assert found.keys() == {(policy, saved) for policy in POLICIES for saved in SAVED}
    for answer in found.values():
        agree(answer, expected)


@pytest.mark.parametrize(("name", "graphs"), [("MMDiT", 2), ("UViT", 3), ("UniDiffuser", 3)])
def test_blocks_of_one_kind_are_compiled_once(name: str, graphs: int) -> None:
    """Deeper than torch's limit of eight compilations for one function: a block that depended on its place would fall back silently."""
    torch._dynamo.reset()
    net: Network = backbones.get(name).tiny(depth=12)
    net.compile_blocks("eager")
    before = counters["stats"]["unique_graphs"]
    with torch.no_grad():
        net(*batch(net))
    # Blocks, and the last one; or merges, and the blocks behind them, whose streams lie in one tensor.
    assert counters["stats"]["unique_graphs"] - before == graphs
