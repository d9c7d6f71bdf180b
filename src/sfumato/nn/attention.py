"""Joint attention over streams with separate weights per role (MM-DiT; Esser et al., arXiv 2403.03206, section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from ..core.attention import Attend, Heads, Plan, attend
from ..core.call import Call, Session, Site
from ..core.state import State, Stream
from .linear import Linear
from .norms import RMSNorm


@dataclass(frozen=True)
class AttentionShape:
    """`width` = `heads` * head width. `qk_norm`: RMS norm of each head's q and k, which keeps bf16 logits bounded."""

    width: int
    heads: int
    qk_norm: bool = True


class Projections(nn.Module):
    """One role's q, k, v and output Linears and its q/k norms. `output` False: read by others, gives nothing (SD3's last text stream)."""

    def __init__(self, shape: AttentionShape, output: bool = True) -> None:
        super().__init__()
        self.heads = shape.heads
        self.q = Linear(shape.width, shape.width, "q")
        self.k = Linear(shape.width, shape.width, "k")
        self.v = Linear(shape.width, shape.width, "v")
        self.out = Linear(shape.width, shape.width, "out") if output else None
        head = shape.width // shape.heads
        self.q_norm = RMSNorm(head) if shape.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(head) if shape.qk_norm else nn.Identity()

    def project(self, x: Tensor, stream: Stream, call: Call | None) -> Heads:
        q, k, v = (layer(x, call).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        # Norms may come back in fp32 under autocast; attention wants one type.
        return Heads(self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype), v, stream.keep, stream.pos, stream.grid)


class JointAttention(nn.Module):
    """Every stream's queries against the joined keys and values of all streams. A stream's role picks its projections."""

    def __init__(self, shape: AttentionShape, roles: tuple[str, ...], silent: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.projections = nn.ModuleDict({r: Projections(shape, output=r not in silent) for r in roles})

    def forward(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> dict[str, Tensor]:
        streams, own = state.streams, {n: self._of(state.streams[n].role or n) for n in inputs}
        heads = {n: own[n].project(x, streams[n], call) for n, x in inputs.items()}
        compute: Attend = attend
        if call is not None:
            for session in call.hooked("attention", site.block):
                compute = partial(_hooked, session, site, compute, call)
        mixed = compute(heads, None)
        outputs: dict[str, Tensor] = {}
        for name, x in mixed.items():
            if (out := own[name].out) is not None:
                outputs[name] = out(x.transpose(1, 2).flatten(2), call)
        return outputs

    def _of(self, role: str) -> Projections:
        projections = self.projections[role]
        assert isinstance(projections, Projections)
        return projections


def _hooked(session: Session, site: Site, inner: Attend, call: Call, heads: Mapping[str, Heads], plan: Plan | None) -> Mapping[str, Tensor]:
    # An outer session that already chose a plan passes it inwards; the innermost session sees the plan through `inner`.
    return session.attention(site, heads, lambda h, p: inner(h, p if p is not None else plan), call)
