"""A pipeline of a few thousand random numbers with the real text encoder, on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sfumato.backbones.mmdit import tiny
from sfumato.codecs.kl import KLCodec, KLConfig, new_autoencoder
from sfumato.core.conditions import Slot
from sfumato.core.denoiser import Denoiser
from sfumato.pipelines import Defaults, TextToImage
from sfumato.text import load_minilm


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 x 64, 16 tokens."""
    torch.manual_seed(0)
    codec = KLCodec(new_autoencoder(KLConfig(channels=(4, 4, 4, 8), latent=4, groups=4)))
    net = tiny(text_width=384, pooled_width=384)
    pipe = TextToImage(load_minilm(), Denoiser(net), codec, (Slot("text"), Slot("pooled")), Defaults(size=(64, 64), steps=2))
    return pipe.save(tmp_path_factory.mktemp("models") / "tiny")
