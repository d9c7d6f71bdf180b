"""The split rule and the join of icon names to Unicode labels."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.world import emojibase

from sfumato.core.errors import DataError
from sfumato.data.corrections import CORRECTIONS
from sfumato.data.names import Names, bare_hexcode, key, split_tone
from sfumato.data.splits import split_of


@given(st.text(), st.text())
def test_split_is_the_published_formula(concept: str, style: str) -> None:
    # An independent reading of the rule: the digest as big-endian bytes, reduced modulo 100 byte by byte.
    h = 0
    for byte in hashlib.sha256((concept + "|" + style).encode()).digest():
        h = (h * 256 + byte) % 100
    assert split_of(concept, style) == ("test" if h in range(5) else "validation" if h in (5, 6, 7) else "train")


def test_split_shares_are_near_five_three_ninety_two() -> None:
    splits = [split_of(f"concept {i}", "noto") for i in range(4000)]
    assert 0.035 < splits.count("test") / 4000 < 0.065
    assert 0.02 < splits.count("validation") / 4000 < 0.04


@given(st.lists(st.from_regex(r"[A-Za-z]{1,8}", fullmatch=True), min_size=1, max_size=5), st.sampled_from(["-", "", "_", " ", ": "]))
def test_slug_joined_and_spoken_names_have_one_key(words: list[str], joint: str) -> None:
    assert key(joint.join(words)) == key(" ".join(words)) == "".join(words).lower()


@given(st.text())
def test_a_key_is_its_own_key(name: str) -> None:
    assert key(key(name)) == key(name)


def test_keys_keep_accents_signs_and_ampersands_apart() -> None:
    assert key("flag: Côte d’Ivoire") == "flagcotedivoire"
    assert key("keycap: #") != key("keycap: *")
    assert key("Antigua & Barbuda") == key("antigua-and-barbuda")


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("waving-hand-medium-dark-skin-tone", {}, ("waving-hand", "medium-dark")),
        ("man-dark-skin-tone-bald", {}, ("man-bald", "dark")),
        ("handshake-light-skin-tone-dark-skin-tone", {}, ("handshake", "light+dark")),
        ("man-elf-tone3", {}, ("man-elf", "medium")),
        ("artist-dark", {"artist": 1}, ("artist", "dark")),
        ("police-car-light", {"police-car": 1, "police-car-light": 1}, ("police-car", "light")),
        ("police-car-light", {}, ("police-car-light", "")),
        ("fox", {}, ("fox", "")),
    ],
)
def test_split_tone(name: str, known: dict[str, int], expected: tuple[str, str]) -> None:
    assert split_tone(name, known) == expected


@given(st.lists(st.integers(0x23, 0x1FAFF).filter(lambda c: c not in (0xFE0F, 0xFE0E)), min_size=1, max_size=4))
def test_hexcode_form_ignores_case_and_presentation_selectors(codes: list[int]) -> None:
    plain = "-".join(f"{c:x}" for c in codes)
    dressed = "-".join(f"{c:04X}-FE0F" for c in codes)
    assert bare_hexcode(plain) == bare_hexcode(dressed)


def test_join_by_every_kind_of_name(tmp_path: Path) -> None:
    aliases = [("renard", "fox-face"), ("flag-for-antigua-and-barbuda", "flag-for-cote-divoire")]
    names = Names(emojibase(tmp_path), [{"1f98a": "fox-face"}], aliases)
    found = {
        "grinning-face": "grinning face",
        "grinning": "grinning face",
        "heavyblackheart": "red heart",
        "fox-face": "fox",
        "renard": "fox",
        "flag-for-cte-divoire": "flag: Côte d’Ivoire",
        "flag-cote-divoire": "flag: Côte d’Ivoire",
        "antigua-flag": None,
        "antigua-and-barbuda-flag": "flag: Antigua & Barbuda",
        "antigua-and-barbuda": None,
        "flag-for-antigua-and-barbuda": "flag: Antigua & Barbuda",
        "womanpoliceofficer": "woman police officer",
        "fox2": "fox",
        "2hearts": "two hearts",
        "flowerpunctuationmark": "flower punctuation mark",
        "1": None,
    }
    assert {name: getattr(names.by_name(name), "label", None) for name in found} == found
    assert names.by_hexcode("1f46e-200d-2640") == names.by_name("womanpoliceofficer")
    skin = names.by_hexcode("1F44B-1F3FF")
    assert skin is not None and (skin.label, skin.skin_tone) == ("waving hand", "dark")
    woman = names.by_name("womanpoliceofficer")
    assert woman is not None and woman.gender == "female" and woman.labels == (("de", "woman police officer auf Deutsch"),)
    assert names.words("foxqqq") is None and names.words("happyfox") == "happy fox" and names.words("red-fox") == "red fox"


def test_corrections_are_keys_that_differ_from_their_labels() -> None:
    assert len(CORRECTIONS) > 150
    assert all(label.strip() == label and label and key(name) != key(label) for name, label in CORRECTIONS.items())


def test_missing_and_damaged_labels_teach(tmp_path: Path) -> None:
    folder = emojibase(tmp_path)
    (folder / "en" / "data.json").write_text("[{")
    with pytest.raises(DataError, match=r"damaged file .*data\.json"):
        Names(folder)
    with pytest.raises(DataError, match="cannot read"):
        Names(tmp_path / "nowhere")
