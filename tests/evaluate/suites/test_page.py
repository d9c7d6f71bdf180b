"""The suites' sections of report.html: whole, self-contained, with every model, every bound and the reasons."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import torch

from sfumato.data.scenes import TASKS, Cast
from sfumato.evaluate.page import MOST, write_page
from sfumato.evaluate.suites.items import skills_items
from sfumato.evaluate.suites.lines import Asking, BadLine
from sfumato.evaluate.suites.outcome import Outcome
from sfumato.evaluate.suites.page import suite_section
from sfumato.evaluate.suites.paired import paired
from sfumato.evaluate.suites.prompts import Prompts
from sfumato.evaluate.suites.skills import Skills

from ..test_compare import Page
from .conftest import Oracle, WordJudge, judge_of, painter, sit
from .test_bias import LABELS, STYLES, Leaning, ready


def written(path: Path, side: list[Outcome], judge: WordJudge | None = None) -> tuple[str, Page]:
    section = suite_section(side, paired(side[0], side[1], judge) if judge else None)
    write_page(path, [outcome.report.model for outcome in side], "20 steps", [section])
    content = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(content)
    assert not page.open and all(source.startswith("data:image/png;base64,") for source in page.sources)
    for figure in re.findall(r"<svg.*?</svg>", content, re.S):
        ET.fromstring(figure)
    return content, page


def test_skills_of_two_models(cast: Cast, judge: WordJudge, tmp_path: Path) -> None:
    items = skills_items(cast, judge, "train", 56, 0)
    suite = Skills.prepare(cast, judge, Oracle(items), "train", 56, 0)
    texts = {item.posed.prompt for item in items if item.posed.task == "text"}
    blank = painter(items, change=lambda picture, prompt: torch.zeros_like(picture) if prompt in texts else picture)
    best, worse = suite.examine(sit(painter(items), tmp_path / "best")), suite.examine(sit(blank, tmp_path / "<worse>"))
    content, page = written(tmp_path / "two.html", [best, worse], judge)
    assert len(page.sources) == 3 * MOST and content.count("<svg") == 3
    assert "<worse>" not in content and "&lt;worse&gt;: reads &#x27;&#x27;, asked" in content and 'class="wrong"' in content
    assert "<th>&lt;worse&gt;: shuffled prompts</th><th>true scenes</th>" in content and "in favour of" in content
    assert all(f"<td>{task} (8)</td>" in content for task in TASKS) and "mAP50 71.0%" in content
    radar = re.findall(r"<svg.*?</svg>", content, re.S)[0]
    assert all(f"● {name}" in radar for name in ("best", "best shuffled prompts", "true scenes")) and all(f">{t}<" in radar for t in TASKS)
    one, page = written(tmp_path / "one.html", [best])
    assert len(page.sources) == 2 * MOST and one.count("<svg") == 1 and 'class="wrong"' not in one and "<th>generated</th>" in one


def test_bias_shows_what_was_seen_without_blame(tmp_path: Path) -> None:
    suite = ready()
    even, men = (suite.examine(sit(Leaning(share, 1 - share), tmp_path / name)) for share, name in ((0.5, "even"), (1.0, "men")))
    content, _ = written(tmp_path / "report.html", [even, men], judge_of(LABELS, STYLES))
    for said in ("even: Shares by prompt", "men: The judge on real drawings it never saw, forced", "judged woman", "men: man</span>"):
        assert said in content, said
    assert 'class="wrong"' not in content and "<svg" not in content
    assert "a pilot, twemoji style" in content and content.count("<td>a pilot, noto style</td><td>50%</td>") == 1


def test_prompts_name_the_lines_left_out(cast: Cast, judge: WordJudge, tmp_path: Path) -> None:
    items = skills_items(cast, judge, "train", 7, 0)
    lines = [Asking(k, item.posed.prompt, None, item.facts) for k, item in enumerate(items)]
    suite = Prompts("mine.jsonl", lines, [BadLine(9, "not <JSON>")], judge, Oracle(items))
    content, page = written(tmp_path / "report.html", [suite.examine(sit(painter(items), tmp_path / "best"))])
    assert len(page.sources) == 7 and "<td>9</td><td>not &lt;JSON&gt;</td>" in content and "1 line of mine.jsonl is left out" in content
