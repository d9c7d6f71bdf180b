"""Labels of other languages as captions: those that EmojiWorld has, and a plain word where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from sfumato.core.errors import DataError, UnknownNameError
from sfumato.data import open_source
from sfumato.data.languages import captions_in
from sfumato.text import load_minilm
from sfumato.training.precompute import encoded_captions

FIXTURE = Path(__file__).parent / "fixture"


def test_every_row_is_named_in_every_language() -> None:
    source = open_source(FIXTURE)
    named = dict(
        zip(
            source.column("id"),
            zip(source.column("concept"), source.column("style"), captions_in(source, ("de", "ja")), strict=True),
            strict=True,
        )
    )
    concept, style, (german, styled, japanese, _) = named["noto/fox"]
    assert (concept, german, styled, japanese) == ("fox", "Fuchs", f"Fuchs, {style} style", "\u30ad\u30c4\u30cd\u306e\u9854")
    assert all(len(captions) == 4 and all(captions) for _, _, captions in named.values())


class Few:
    """A flag, and a drawing that is no emoji."""

    def column(self, name: str) -> list[object]:
        flag = [{"language": "fr", "label": "drapeau\u202f: Allemagne"}, {"language": "de", "label": "Flagge: Deutschland"}]
        columns: dict[str, list[object]] = {
            "labels": [flag, None],
            "style": ["noto", "fxemoji"],
            "captions": [("flag of Germany", "flag of Germany, noto style"), ("rubber duck",)],
        }
        return columns[name]


def test_colons_are_not_said_and_what_has_no_label_is_said_in_english() -> None:
    flag, duck = captions_in(Few(), ("fr", "de"))  # type: ignore[arg-type]
    assert flag == ("drapeau Allemagne", "drapeau Allemagne, noto style", "Flagge Deutschland", "Flagge Deutschland, noto style")
    assert duck == ("rubber duck",) * 4


def test_what_has_no_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="language 'dee'"):
        captions_in(open_source(FIXTURE), ("dee",))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a square")
    with pytest.raises(DataError, match="no labels in other languages"):
        captions_in(open_source(tmp_path), ("de",))


def test_they_are_encoded_beside_the_others(tmp_path: Path) -> None:
    source, encoder = open_source(FIXTURE), load_minilm()
    plain, _ = encoded_captions(source, encoder, tmp_path)
    numbers, table = encoded_captions(source, encoder, tmp_path, languages=("de",))
    assert numbers.shape == (len(source), plain.shape[1] + 2) and len(list(tmp_path.glob("captions-*"))) == 2
    row = source.column("id").index("noto/fox")
    own = encoder.encode(["Fuchs"])
    start, end = table.offsets[numbers[row, -2]], table.offsets[numbers[row, -2] + 1]
    assert torch.allclose(table.states[start:end].float(), own.tokens[0][own.mask[0]], atol=2e-3)
