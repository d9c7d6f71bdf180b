"""PixArt-alpha (arXiv 2310.00426) and -Sigma (arXiv 2403.04692): T5 alone, a discrete schedule, drawn at the nearest trained size.

Original and diffusers alike lower the caption; where ftfy and beautifulsoup are installed, both also strip it of markup, links, numbers
and much else. Here that is asked for, load(..., clean_captions=True), so that what is installed changes no picture.
"""

from ....text.captions import lowered
from . import DISCRETE, T5, TEXT, Kind, Text, publish


def _pixart(tokens: int) -> Kind:
    text = Text("text_encoder", "tokenizer", T5, tokens=tokens, prepare=lowered)
    return Kind("PixArtTransformer2DModel", (text,), "one", DISCRETE, (TEXT,), steps=20, guidance=4.5, binned=True)


publish("PixArtAlphaPipeline", _pixart(120))
publish("PixArtSigmaPipeline", _pixart(300))
