"""What stands in for ftfy and beautifulsoup4 where they are not installed: it leaves text as it is, and the rest is diffusers' own."""

from __future__ import annotations

import sys
from types import ModuleType

import diffusers.pipelines.pixart_alpha.pipeline_pixart_alpha as alpha
import pytest

from sfumato.text import captions


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "find_spec", lambda module: object())
    monkeypatch.setattr(alpha, "is_bs4_available", lambda: True)
    monkeypatch.setattr(alpha, "is_ftfy_available", lambda: True)
    monkeypatch.setattr(alpha, "BeautifulSoup", lambda text, features: type("Soup", (), {"text": text}), raising=False)
    ftfy = ModuleType("ftfy")
    ftfy.fix_text = lambda text: text  # type: ignore[attr-defined]
    monkeypatch.setattr(alpha, "ftfy", ftfy, raising=False)
    monkeypatch.setitem(sys.modules, "ftfy", ftfy)
