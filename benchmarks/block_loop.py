"""What the program costs: `Network.run` with no policy against a bare loop over the same blocks, alternating, one forward each.

    python benchmarks/block_loop.py           # MM-DiT as shipped: 8 blocks of width 320, batch 4, 64 picture tokens and 16 text tokens

The promise is under 1%. Medians of interleaved rounds; the spread of the bare loop says how far the ratio may be believed.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch

from sfumato.backbones.mmdit import MMDiT, MMDiTConfig
from sfumato.core.call import Call
from sfumato.core.conditions import Conditions, Tokens
from sfumato.core.state import State, Stream

BATCH, WORDS, ROUNDS = 4, 16, int(sys.argv[1]) if len(sys.argv) > 1 else 200


def bare(net: MMDiT, state: State) -> State:
    for block in net.blocks:
        state = block(state)
    return state


@torch.inference_mode()
def main() -> None:
    net = MMDiT(MMDiTConfig()).eval()
    text = Tokens(torch.randn(BATCH, WORDS, 384), torch.ones(BATCH, WORDS, dtype=torch.bool))
    cond = Conditions({"text": text}, {"pooled": torch.randn(BATCH, 384)})
    state = net.start({"image": Stream(torch.randn(BATCH, 16, 16, 16), t=torch.rand(BATCH))}, cond)
    call, count = Call(), len(net.blocks)
    arms: dict[str, Callable[[], State]] = {"bare": lambda: bare(net, state), "program": lambda: net.run(state, 0, count, call)}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(ROUNDS):
        for name in sorted(arms, reverse=bool(turn % 2)):
            start = time.process_time()
            arms[name]()
            seconds[name].append(time.process_time() - start)
    medians = {name: statistics.median(values[5:]) for name, values in seconds.items()}
    quartiles = statistics.quantiles(seconds["bare"][5:], n=4)
    print(f"bare    {1e3 * medians['bare']:8.3f} ms  (quartiles {1e3 * quartiles[0]:.3f} … {1e3 * quartiles[2]:.3f})")
    print(f"program {1e3 * medians['program']:8.3f} ms")
    print(f"ratio   {medians['program'] / medians['bare']:8.4f}  ({torch.get_num_threads()} threads, {ROUNDS} rounds)")


if __name__ == "__main__":
    main()
