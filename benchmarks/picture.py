"""What one picture costs once a model is loaded: seconds, and the memory that its process ever held.

    python benchmarks/picture.py [MODEL_OR_FOLDER] [--runs 7] [--threads 2] [--pack]

Asked on 2 cores, for the shipped model at its own size, steps and guidance: under 1 s and under 1.5 GB (peak resident memory of the whole
process, imports and loading included). The first picture, which warms caches up, stands apart. Processor seconds stand beside the wall,
because a busy machine stretches the wall only.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import time

import torch

from sfumato.pipelines import load

PROMPT = "a red heart, noto style"
BUDGET_SECONDS, BUDGET_BYTES = 1.0, 1.5e9


def peak() -> int:
    """Bytes of the largest resident set that this process had; Linux counts in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="emoji-mmdit")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pack", action="store_true", help="weights laid out for this CPU first (pipe.pack())")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)

    pipe = load(chosen.model)
    if chosen.pack:
        pipe.pack()
    loaded, wall, cpu = peak(), list[float](), list[float]()
    for seed in range(chosen.runs + 1):
        started, spent = time.perf_counter(), time.process_time()
        pipe(PROMPT, seed=seed)
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - spent)

    own = pipe.defaults
    print(f"{chosen.model}, {own.size[1]}x{own.size[0]}, {own.steps} steps, guidance {own.guidance:g}, {chosen.threads} threads", end="")
    print(f"{', packed' if chosen.pack else ''}; torch {torch.__version__}, load average {os.getloadavg()[0]:.1f}")
    print(f"  first picture   {wall[0]:6.2f} s wall {cpu[0]:6.2f} s cpu")
    quartiles = statistics.quantiles(wall[1:], n=4) if chosen.runs > 1 else wall[1:] * 3
    print(f"  a picture       {statistics.median(wall[1:]):6.2f} s wall {statistics.median(cpu[1:]):6.2f} s cpu", end="")
    print(f"   (wall quartiles {quartiles[0]:.2f} to {quartiles[2]:.2f}; budget {BUDGET_SECONDS:g} s)")
    print(f"  peak memory     {peak() / 1e9:6.2f} GB ({loaded / 1e9:.2f} GB once loaded; budget {BUDGET_BYTES / 1e9:g} GB)")


if __name__ == "__main__":
    main()
