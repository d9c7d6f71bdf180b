"""Joint attention on a CPU, forward and backward in bf16: the three lines of `core/attention.py` against torch's fused kernel, alternating.

python benchmarks/attention.py            # 64 picture tokens and 16 text tokens, half of the rows padded
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch.nn.functional import scaled_dot_product_attention

from sfumato.core.attention import Heads, attend

BATCH, HEADS, TOKENS, WIDTH, ROUNDS = 64, 5, 80, 64, 9


def main() -> None:
    q, k, v = (torch.randn(BATCH, HEADS, TOKENS, WIDTH, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    keep = torch.ones(BATCH, TOKENS, dtype=torch.bool)
    keep[::2, 70:] = False
    arms: dict[str, Callable[[], torch.Tensor]] = {
        "sfumato": lambda: attend({"image": Heads(q, k, v, keep)}, None)["image"],
        "torch": lambda: scaled_dot_product_attention(q, k, v, attn_mask=keep[:, None, None]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(ROUNDS):
        for name, run in arms.items():
            start = time.perf_counter()
            run().float().sum().backward()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    for name, value in medians.items():
        print(f"{name:8} {1000 * value:7.1f} ms forward + backward")
    print(f"ratio torch / sfumato: {medians['torch'] / medians['sfumato']:.2f} ({torch.get_num_threads()} threads)")


if __name__ == "__main__":
    main()
