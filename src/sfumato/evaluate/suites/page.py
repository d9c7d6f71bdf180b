"""A suite's section of the page: its numbers for each model, figures, and pictures with what was noted of them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from random import Random

from ..compare import Comparison
from ..page import MOST, compared, figure, planes, table, warnings
from ..svg import radar
from .outcome import Outcome, Row


def suite_section(side: Sequence[Outcome], comparison: Comparison | None) -> list[str]:
    """HTML of what was seen of each model, one or several, and of the comparison of the first two."""
    reports = [outcome.report for outcome in side]
    parts = [f"<h2>{escape(reports[0].kind_title())}</h2>", table(*_numbers(side)), f'<p class="quiet">{escape(reports[0].legend())}</p>']
    parts += warnings({report.model: report.remarks() for report in reports})
    if comparison:
        parts += compared(comparison)
    parts += ['<div class="figures">', *_figures(side), "</div>"]
    for report in reports:
        for extra in report.extras():
            named = extra.title if len(reports) == 1 else f"{report.model}: {extra.title}"
            parts += [f"<h3>{escape(named)}</h3>", table(extra.headings, extra.rows)]
    return [*parts, "<h3>Pictures</h3>", *_grid(side)]


def _numbers(side: Sequence[Outcome]) -> tuple[Row, list[Row]]:
    """Each model's own columns, then those that all share."""
    first = side[0].report
    many = len(first.own_columns)
    headings = [f"{o.report.model}: {name}" if len(side) > 1 else name for o in side for name in o.report.own_columns]
    rows = [
        (cells[0][0], *(cell for row in cells for cell in row[1 : 1 + many]), *cells[0][1 + many :])
        for cells in zip(*(outcome.report.rows() for outcome in side), strict=False)
    ]
    return ("measure", *headings, *first.shared_columns), rows


def _figures(side: Sequence[Outcome]) -> list[str]:
    """The radar, where the suite has one, and quality against cost."""
    axes, _, shared = side[0].report.radar()
    series = {f"{o.report.model} {name}".strip(): scores for o in side for name, scores in o.report.radar()[1].items()}
    rated = [(o.report.model, o.report.cost, q[1], q[0]) for o in side if (q := o.report.quality())]
    pareto = planes([row[:3] for row in rated], rated[0][3]) if rated else []
    return [radar(axes, {**series, **shared}), *pareto]


def _grid(side: Sequence[Outcome]) -> list[str]:
    """Pictures that all models have, picked by lot: the first ones would be of the first prompts alone."""
    shared = [place for place in side[0].places if all(place in outcome.places for outcome in side)]
    picked = sorted(Random(0).sample(shared, min(MOST, len(shared))))
    lead, models = side[0], [outcome.report.model or "generated" for outcome in side]
    names = models if lead.reference is None else [lead.reference_name, *models]
    parts = [f'<p class="quiet">From left to right: {escape(", ".join(names))}.</p>', '<div class="grid">']
    for place in picked:
        rows = [outcome.places.index(place) for outcome in side]
        pictures = [outcome.images[row] for outcome, row in zip(side, rows, strict=True)]
        if lead.reference is not None:
            pictures.insert(0, lead.reference[rows[0]])
        notes = [outcome.notes[row] for outcome, row in zip(side, rows, strict=True)]
        said = [note if len(side) == 1 else f"{model}: {note}" for model, note in zip(models, notes, strict=True) if note]
        marked = [f'<span class="{"wrong" if lead.faulty else "quiet"}">{escape(note)}</span>' for note in said]
        parts.append(figure(pictures, names, "<br>".join([escape(lead.report.prompts[rows[0]]), *marked])))
    return [*parts, "</div>"]
