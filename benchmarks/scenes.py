"""How many scenes a second the generator plans and draws at 128 pixels, masks, depth and edges included, by several processes at once.

python benchmarks/scenes.py data/emoji              # two processes, difficulty 4
python benchmarks/scenes.py data/emoji 1 3          # one process, difficulty 3

The first round, which decodes the drawings, is not counted. "CPU" is what a core would do that had nothing else to do.
"""

from __future__ import annotations

import multiprocessing
import sys
import time

from sfumato.data.scenes import Cast, captions_of, render, scene

COUNT = 400


def measure(job: tuple[str, int, int]) -> tuple[float, float]:
    """(wall seconds, CPU seconds) for COUNT scenes drawn, with their captions, in this process."""
    folder, start, difficulty = job
    cast = Cast.open(folder)

    def draw() -> None:
        for index in range(start, start + COUNT):
            it = scene(cast, 0, index, difficulty)
            render(it, cast, 128)
            captions_of(it)

    draw()
    wall, cpu = time.perf_counter(), time.process_time()
    draw()
    return time.perf_counter() - wall, time.process_time() - cpu


def main(folder: str, processes: str = "2", difficulty: str = "4") -> None:
    jobs = [(folder, COUNT * i, int(difficulty)) for i in range(int(processes))]
    with multiprocessing.Pool(len(jobs)) as pool:
        times = pool.map(measure, jobs, chunksize=1)
    rate, cpu = sum(COUNT / wall for wall, _ in times), sum(COUNT / used for _, used in times)
    print(f"{rate:.0f} scenes a second ({len(jobs)} processes, difficulty {difficulty}, 128 pixels); CPU: {cpu:.0f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
