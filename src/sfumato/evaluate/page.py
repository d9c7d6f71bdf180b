"""An evaluation as one HTML file that a person wants to read: what was run, numbers with intervals, figures, the pictures side by side.

Pictures are inlined, so the file can be sent and kept; it fetches nothing.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from torch import Tensor

from .. import __version__
from ..core.files import write_bytes
from .compare import Comparison
from .evaluate import Examined
from .metrics import Score
from .report import HEADINGS, Cost, Report, percent
from .svg import Spot, pareto, radar

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1080px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin-bottom: 0.2rem } h2 { margin-top: 2.2rem; border-bottom: 1px solid #ddd } .quiet { color: #666 }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: 0.2rem 0.8rem; text-align: right; border-bottom: 1px solid #eee }
th:first-child, td:first-child { text-align: left } th { border-bottom: 2px solid #999 } .warn { background: #fff4e0; padding: 0.5rem 1rem }
.figures { display: flex; flex-wrap: wrap; gap: 1rem } .grid { display: flex; flex-wrap: wrap; gap: 1rem }
figure { margin: 0; width: min-content } figure div { display: flex; gap: 2px } figcaption { font-size: 12px }
figure img { width: 96px; height: 96px; background: #fff; border: 1px solid #eee } .wrong { color: #b3300e }
"""
# Pairs shown of each kind.
MOST = 48


def write_page(path: Path, models: Sequence[str], told: str, sections: Sequence[Sequence[str]]) -> None:
    """The page of these `models`, with `told` of how they were drawn under the heading and each section's HTML. Atomic.

    Raises `OutputError` when it cannot be written.
    """
    title = escape(" against ".join(models))
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head><body>'
    body = [f"<h1>{title}</h1>", f'<p class="quiet">{escape(told)} · sfumato {__version__}</p>', *(p for s in sections for p in s)]
    write_bytes(path, "\n".join([head, *body, "</body></html>", ""]).encode())


def drawings_section(side: Sequence[Examined], comparison: Comparison | None) -> list[str]:
    """One kind of pairs: what was seen of each model, one or several, and the comparison of the first two."""
    reports = [examined.report for examined in side]
    parts = [f"<h2>{escape(reports[0].kind_title())}</h2>", _scores(reports)]
    parts += warnings({report.model: report.remarks() for report in reports})
    parts.append(
        '<p class="quiet">95% intervals in brackets, ± standard error '
        "(of the kernel distance: deviation over subsets). "
        "Distances: lower is nearer; precision to coverage: higher is "
        "better; beside real drawings stands what real drawings of other concepts reach. The last column is how often the judge itself is "
        f"right on drawings it never saw: no score can be surer than that. Distances are "
        f"in the features of {escape(reports[0].features)}.</p>"
    )
    if comparison:
        parts += compared(comparison)
    parts += ['<div class="figures">', *_figures(reports), "</div>", "<h3>Pictures</h3>", *_grid(side)]
    return parts


def _scores(reports: Sequence[Report]) -> str:
    columns = [report.rows() for report in reports]
    shown = [report.model or "generated" for report in reports]
    rows = [(cells[0][0], *(cell[1] for cell in cells), cells[0][2], cells[0][3]) for cells in zip(*columns, strict=True)]
    groups = [
        (f"top-1, {name} ({group.generated.count})", *(_group(report, name) for report in reports), percent(group.real), "")
        for name, group in sorted(reports[0].groups.items())
    ]
    return table((HEADINGS[0], *shown, *HEADINGS[2:]), [*rows, *groups])


def _group(report: Report, name: str) -> str:
    return percent(report.groups[name].generated) if name in report.groups else ""


def warnings(remarks: Mapping[str, Sequence[str]]) -> list[str]:
    """What the reader must know, by model."""
    return [f'<p class="warn">{escape(model)}: {escape(remark)}</p>' for model, said in remarks.items() for remark in said]


def compared(comparison: Comparison) -> list[str]:
    """Two models side by side in numbers."""
    title = f"{comparison.first} minus {comparison.second}, {comparison.count} pictures of equal prompts and seeds"
    return [f"<h3>{escape(title)}</h3>", table(("measure", "value", "in favour of"), comparison.rows())]


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table of text."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    lines = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return "\n".join([f"<table><tr>{head}</tr>", *lines, "</table>"])


def planes(costs: Sequence[tuple[str, Cost, Score]], quality: str) -> list[str]:
    """Quality against time and against memory, of (model, cost, quality); nothing is drawn for models of unknown cost."""
    timed = [(model, cost, score) for model, cost, score in costs if cost.pictures]
    seconds = [Spot(model, cost.seconds / cost.pictures, score) for model, cost, score in timed]
    memory = [Spot(model, cost.memory / 2**20, score) for model, cost, score in timed if cost.memory]
    kind = timed[0][1].kind if timed else ""
    return [pareto(seconds, "seconds a picture", quality), pareto(memory, f"memory, MiB ({kind})", quality)]


def _figures(reports: Sequence[Report]) -> list[str]:
    groups = [name for name in sorted(reports[0].groups) if all(name in report.groups for report in reports)]
    axes = ["all concepts", "style", *groups]
    series = {
        r.model or "generated": [r.generated.concept_top1, r.generated.style, *(r.groups[g].generated for g in groups)] for r in reports
    }
    real = reports[0]
    series["real drawings"] = [real.real.concept_top1, real.real.style, *(real.groups[g].real for g in groups)]
    return [radar(axes, series), *planes([(r.model, r.cost, r.generated.concept_top1) for r in reports], "concept top-1")]


def _grid(side: Sequence[Examined]) -> list[str]:
    """The first pictures that all have, the real drawing first."""
    shared = [place for place in side[0].places if all(place in examined.places for examined in side)][:MOST]
    names = ["real drawing", *(examined.report.model or "generated" for examined in side)]
    parts = [f'<p class="quiet">From left to right: {escape(", ".join(names))}.</p>', '<div class="grid">']
    for place in shared:
        rows = [examined.places.index(place) for examined in side]
        pictures = [side[0].real[rows[0]], *(examined.images[row] for examined, row in zip(side, rows, strict=True))]
        report, concept = side[0].report, side[0].selection.concepts[rows[0]]
        seen = [
            f'<span class="wrong">{escape(f"seen as {guess}")}</span>'
            for guess in (examined.report.guesses[row] for examined, row in zip(side, rows, strict=True))
            if guess != concept
        ]
        caption = "<br>".join([escape(report.prompts[rows[0]]), *seen])
        parts.append(figure(pictures, names, caption))
    return [*parts, "</div>"]


def figure(pictures: Sequence[Tensor], names: Sequence[str], caption: str) -> str:
    """Pictures (3, H, W) uint8 in a row, inlined, over a caption of HTML."""
    images = "".join(f'<img src="{_inline(p)}" alt="{escape(n)}">' for p, n in zip(pictures, names, strict=True))
    return f"<figure><div>{images}</div><figcaption>{caption}</figcaption></figure>"


def _inline(picture: Tensor) -> str:
    """A data URL of (3, H, W) uint8."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
