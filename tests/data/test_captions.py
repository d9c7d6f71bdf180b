"""Caption files, caption forms and colour names."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.core.errors import DataError
from sfumato.data.captions import CAPTION_FIELDS, drawing_captions, phrase, read_captions
from sfumato.data.palette import PALETTE, dominant_colours, to_lab

CAPTION = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=30)


def parsed(suffix: str, content: bytes) -> tuple[tuple[str, ...], Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        path.write_bytes(content)
        return read_captions(path)


@given(st.lists(CAPTION, min_size=1, max_size=4))
def test_txt_is_one_caption_a_line(captions: list[str]) -> None:
    padded = "\n\n".join(f"  {caption}\t" for caption in captions)
    assert parsed(".txt", padded.encode()) == (tuple(captions), {})
    assert parsed(".txt", b"\xef\xbb\xbf" + padded.encode()) == (tuple(captions), {})


@given(st.lists(CAPTION, min_size=1, max_size=4), st.sampled_from(CAPTION_FIELDS))
def test_json_text_list_and_object_agree(captions: list[str], field: str) -> None:
    assert parsed(".json", json.dumps(captions).encode())[0] == tuple(captions)
    assert parsed(".json", json.dumps(captions[0]).encode())[0] == (captions[0],)
    assert parsed(".json", json.dumps({field: captions, "author": "me"}).encode()) == (tuple(captions), {"author": "me"})


@given(st.binary(max_size=60), st.sampled_from([".txt", ".json"]))
def test_any_bytes_give_captions_or_a_data_error(content: bytes, suffix: str) -> None:
    try:
        captions, _ = parsed(suffix, content)
    except DataError:
        return
    assert captions and all(caption.strip() for caption in captions)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"caption": ""}', '{"caption": 3}', "null", "[" * 100000])
def test_captionless_json_is_refused(content: str) -> None:
    with pytest.raises(DataError):
        parsed(".json", content.encode())


def test_drawing_captions_have_all_forms() -> None:
    bare, styled, drawing, tagged, sentence = drawing_captions("flag: Germany", "noto", ["DE", "flag"], ["black", "red", "yellow"])
    assert bare == "flag of Germany" and styled == "flag of Germany, noto style" and drawing == "a noto style drawing of flag of Germany"
    assert tagged == "flag of Germany, DE"
    assert sentence == "A picture of flag of Germany, drawn in the noto emoji style, mostly black and red."
    assert phrase("keycap: 1") == "keycap 1" and phrase("fox") == "fox"


def test_lab_of_known_colours() -> None:
    # Reference values of sRGB white, red and mid grey under D65 (CIE 15:2004).
    lab = to_lab(np.array([[255, 255, 255], [255, 0, 0], [119, 119, 119]]))
    np.testing.assert_allclose(lab, [[100, 0, 0], [53.24, 80.09, 67.20], [50.03, 0, 0]], atol=0.02)


@pytest.mark.parametrize("name", PALETTE)
def test_every_palette_colour_bears_its_name(name: str) -> None:
    for value in PALETTE[name]:
        rgba = np.full((4, 4, 4), 255, np.uint8)
        rgba[..., :3] = [value >> 16, value >> 8 & 255, value & 255]
        assert dominant_colours(rgba) == (name,)


def test_dominant_colours_rank_by_area_and_skip_the_invisible() -> None:
    rgba = np.zeros((10, 10, 4), np.uint8)
    assert dominant_colours(rgba) == ()
    rgba[:6] = (224, 32, 32, 255)
    rgba[6:9] = (32, 96, 208, 255)
    rgba[9, :2] = (0, 0, 0, 255)  # 2 of 92 drawn pixels: too few
    rgba[9, 2:] = (32, 160, 64, 100)  # mostly transparent: not drawn
    assert dominant_colours(rgba) == ("red", "blue")
