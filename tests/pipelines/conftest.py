"""One tiny pipeline with the real text encoder, and the folder it saves."""

from pathlib import Path

import pytest
from tests.builders import codec, mmdit

from sfumato.core.conditions import Slot
from sfumato.core.denoiser import Denoiser
from sfumato.pipelines import Defaults, TextToImage
from sfumato.text import load_minilm


@pytest.fixture(scope="session")
def pipe() -> TextToImage:
    """32 px, f2, patch 2: sides are multiples of 4. Not to be changed."""
    net = mmdit(text_width=384, pooled_width=384, base_grid=8)
    defaults = Defaults(size=(32, 32), steps=2, guidance=3.0, shift=1.5)
    slots = (Slot("text"), Slot("pooled"))
    return TextToImage(load_minilm(max_tokens=32), Denoiser(net), codec(), slots, defaults, {"name": "tiny"}, {"data": "none"})


@pytest.fixture
def folder(pipe: TextToImage, tmp_path: Path) -> Path:
    return pipe.save(tmp_path / "tiny")
