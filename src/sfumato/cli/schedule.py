"""`sfumato schedule`: the times a model is walked through, and where each number came from. No weights are read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tyro import conf

from .verb import Verb, parse_layout, parse_size, unset

if TYPE_CHECKING:
    from rich.table import Table

    from ..pipelines.timetable import Timetable


@dataclass(frozen=True, kw_only=True)
class Schedule(Verb):
    """Print a model's times: t, alpha, sigma, half the log-SNR, and what the network is told at each step."""

    # A shipped model, or the folder of a pipeline, ours or diffusers'.
    model: Annotated[str, conf.Positional] = "emoji-mmdit"
    # Steps from noise to the picture.
    steps: Annotated[int | None, unset("the model's own")] = None
    # Pixels: 128, or width x height as 128x192.
    size: Annotated[str | None, unset("what the model was trained at")] = None
    # Shift of a flow's times towards noise; 1 leaves them even.
    shift: Annotated[float | None, unset("the model's own at this size")] = None
    # Another layout of the steps, as sfumato generate takes it: uniform,end=first, say.
    layout: Annotated[str | None, unset("the model's own", "KIND[,FIELD=VALUE]")] = None
    # Print everything as JSON instead of tables.
    json: bool = False

    def run(self) -> int:
        from ..pipelines.timetable import timetable

        size = None if self.size is None else parse_size(self.size)
        layout = None if self.layout is None else parse_layout(self.layout)
        found = timetable(self.model, self.steps, size, self.shift, layout)
        if self.json:
            print(json.dumps(found.record(), ensure_ascii=False))
            return 0
        from rich.console import Console

        for table in _tables(found):
            Console().print(table)
        return 0


def _tables(found: Timetable) -> tuple[Table, Table]:
    from rich.table import Table

    origins = Table(title=f"{found.model}: where the numbers come from", title_justify="left")
    for name in ("what", "value", "from"):
        origins.add_column(name)
    for row in found.origins:
        origins.add_row(*row)
    stops = Table(title="stops, from noise to the picture", title_justify="left")
    discrete = any(stop.step is not None for stop in found.stops)
    for name in ("", "t", "alpha", "sigma", "log alpha / sigma", "the network is told", *(["step"] if discrete else [])):
        stops.add_column(name, justify="right")
    for i, stop in enumerate(found.stops):
        numbers = [f"{v:.6f}" for v in (stop.t, stop.alpha, stop.sigma, stop.half_log_snr)]
        step = ["" if stop.step is None else f"{stop.step:g}"] if discrete else []
        stops.add_row(str(i), *numbers, "" if stop.told is None else f"{stop.told:.6f}", *step)
    return origins, stops
