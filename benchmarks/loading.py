"""Loading a checkpoint of 2.4 GB: sfumato's `load_denoiser` against diffusers' `from_pretrained`, on the same folder.

    python benchmarks/loading.py

A PixArt-XL of random weights in fp32 shards, 28 blocks, 611 M parameters. Each load is in a process of its own, arms alternating. Both map
the files and read nothing of them at first, so every weight is read afterwards: "read" is the load and that. "process" has the imports too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

CONFIG = {"sample_size": 32, "num_layers": 28, "caption_channels": 4096, "interpolation_scale": 1}


def written(folder: Path) -> None:
    import diffusers

    diffusers.PixArtTransformer2DModel(**CONFIG).save_pretrained(folder, max_shard_size="1GB")


def peak_memory() -> float:
    """GB that this process has held at most. (`resource` tells of its parent's, too.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) / 1e9 for line in lines if line.startswith("VmHWM"))


def alone(arm: str, folder: Path) -> dict[str, float]:
    """Processor seconds of this process and its peak memory in GB."""
    if arm == "diffusers":
        from diffusers import PixArtTransformer2DModel

        start = time.process_time()
        net: torch.nn.Module = PixArtTransformer2DModel.from_pretrained(folder, torch_dtype=torch.float32)
    else:
        from sfumato.backbones.checkpoints import formats
        from sfumato.backbones.checkpoints.folder import load_denoiser

        formats.get("PixArtTransformer2DModel")
        start = time.process_time()
        net = load_denoiser(folder, torch.float32).net
    load = time.process_time() - start
    for parameter in net.parameters():
        parameter.detach().sum()
    return {"load": load, "read": time.process_time() - start, "process": time.process_time(), "peak": peak_memory()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--alone", nargs=2, metavar=("ARM", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(alone(options.alone[0], Path(options.alone[1]))))
        return
    arms: dict[str, list[dict[str, float]]] = {"diffusers": [], "sfumato": []}
    with tempfile.TemporaryDirectory() as folder:
        written(Path(folder))
        for turn in range(options.rounds):
            for arm in arms if turn % 2 else reversed(arms):
                command = [sys.executable, __file__, "--alone", arm, folder]
                told = subprocess.check_output(command, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
                arms[arm].append(json.loads(told.splitlines()[-1]))
    for arm, found in arms.items():
        load, read, process, peak = (statistics.median(each[name] for each in found) for name in ("load", "read", "process", "peak"))
        print(f"{arm}: load {load:.2f} s, read {read:.2f} s, process {process:.2f} s, peak {peak:.2f} GB")


if __name__ == "__main__":
    main()
