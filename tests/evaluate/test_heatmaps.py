"""Heat maps of words: they belong to the picture that is drawn anyway, and people and programs can read them."""

from __future__ import annotations

import json
import re

import pytest
import torch
from tests.builders import codec, mmdit

from sfumato.core.conditions import Slot
from sfumato.core.denoiser import Denoiser
from sfumato.core.errors import UsageError
from sfumato.evaluate.heatmaps import attended, heatmaps
from sfumato.pipelines import Defaults, TextToImage
from sfumato.text import load_minilm

NET = mmdit(text_width=384, pooled_width=384, base_grid=8)
PIPE = TextToImage(
    load_minilm(max_tokens=32), Denoiser(NET), codec(), (Slot("text"), Slot("pooled")), Defaults(size=(32, 32), steps=2), {"name": "tiny"}
)
PROMPT = 'a <b>cat</b> & "{{words}}", noto style'


def test_words_of_the_picture_that_is_drawn_anyway() -> None:
    found = heatmaps(PIPE, PROMPT, seed=3, size=(32, 48))
    assert torch.equal(found.pictures.images, PIPE(PROMPT, seed=3, size=(32, 48)).images)
    assert found.words[0].text == "a" and all(w.grid.shape == (8, 12) and 0 < w.mass < 1 for w in found.words)
    assert sum(w.mass * (w.tokens[1] - w.tokens[0]) for w in found.words) < found.whole < 1
    record = json.loads(json.dumps(found.record()))
    assert record["prompt"] == PROMPT and record["seed"] == 3 and len(record["words"][0]["map"]) == 8
    assert not torch.equal(heatmaps(PIPE, PROMPT, blocks=(0,)).words[0].grid, heatmaps(PIPE, PROMPT, blocks=(1,)).words[0].grid)


def test_a_page_of_its_own() -> None:
    found = heatmaps(PIPE, PROMPT)
    page = found.page()
    assert page.count("data:image/png;base64,") == 1 + len(found.words) == page.count("<button") + 1
    assert "<b>cat" not in page and "&lt;b&gt;cat" in page and "{{words}}" in page and "{{layers}}" not in page
    assert not re.search(r"(src|href)=.(?!data:)", page)
    assert found.sheet().width > 600


def test_a_real_picture_is_looked_at() -> None:
    image = torch.rand(3, 32, 32) * 2 - 1
    maps = attended(PIPE, image, "a cat", (0.3, 0.7), 2)
    assert maps.shape == (4, 8, 8) and float(maps.sum(0).max()) < 1
    assert torch.equal(maps, attended(PIPE, image, "a cat", (0.3, 0.7), 2))


@pytest.mark.parametrize("blocks", [(), (3,), (-1,)])
def test_blocks_that_are_not_there(blocks: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="this network has 3"):
        heatmaps(PIPE, "a cat", blocks=blocks)
