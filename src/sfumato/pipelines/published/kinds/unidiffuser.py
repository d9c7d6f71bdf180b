"""UniDiffuser (arXiv 2303.06555), v0 and v1: CLIP's states, made small, are a stream beside the picture's latents and CLIP embedding.

Guidance is w here and in diffusers (8); the original's scale s is w - 1 (7). The original tells the network t x 1000, so that step k of N
is told as k + 1; diffusers tells k, and both 0 for what is given and N for what is ignored. A negative prompt is guided away from here; in
diffusers it changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ....core.errors import ConfigError, WeightsError
from ....core.pretrained import load_pretrained, require_safetensors
from ....core.weights import read_json
from ....text.captioner import CLASS, load_captioner
from . import CLIP, DISCRETE, TEXT, Kind, Said, Text, masked, publish

if TYPE_CHECKING:
    from ...text_to_image import TextToImage


def _before_it_is_small(kind: Kind, said: Said) -> Kind:
    return replace(masked(kind, said), width=int(read_json(said.folder / "text_decoder" / "config.json").get("prefix_inner_dim", 0)))


def _with_captions(pipe: TextToImage, folder: Path) -> TextToImage:
    from transformers import AutoImageProcessor

    from ...unidiffuser import Sight, UniDiffuser

    captioner, shape = load_captioner(folder), cast(Any, pipe.denoiser.net.config)
    require_safetensors(folder / "image_encoder")
    tower: Any = load_pretrained("CLIPVisionModelWithProjection", folder / "image_encoder", pipe.dtype)
    wanted, found = (shape.text_width, shape.clip_width), (captioner.latent, int(tower.config.projection_dim))
    if wanted != found:
        raise ConfigError(f"captions and embeddings are {found} wide, the network reads {wanted}", "all parts come from one place")
    try:
        processor = AutoImageProcessor.from_pretrained(str(folder / "clip_image_processor"), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # it has no errors of its own
        raise WeightsError(f"cannot load {folder / 'clip_image_processor'}: {error}", "fetch the folder again") from error
    return UniDiffuser(
        **{name: getattr(pipe, name) for name in pipe.__dataclass_fields__},
        captioner=captioner,
        sight=Sight(tower.eval().requires_grad_(False), processor),
    )


def _parts(pipe: TextToImage, folder: Path) -> Mapping[str, Any]:
    from ...unidiffuser import UniDiffuser

    assert isinstance(pipe, UniDiffuser)
    pipe.captioner.save(folder / "text_decoder")
    pipe.captioner.tokenizer.save_pretrained(folder / "text_tokenizer")
    pipe.sight.model.save_pretrained(folder / "image_encoder")
    pipe.sight.processor.save_pretrained(folder / "clip_image_processor")
    return {
        "text_decoder": ["diffusers", CLASS],
        "text_tokenizer": ["transformers", type(pipe.captioner.tokenizer).__name__],
        "image_encoder": ["transformers", type(pipe.sight.model).__name__],
        "clip_image_processor": ["transformers", type(pipe.sight.processor).__name__],
    }


UNIDIFFUSER = Kind(
    "UniDiffuserModel",
    (Text("text_encoder", "clip_tokenizer", CLIP, padding="attended"),),
    "one",
    (*DISCRETE, "PNDMScheduler"),
    (TEXT,),
    steps=50,
    guidance=8.0,
    time_map="identity",
    needs={"text_decoder": (CLASS,), "text_tokenizer": (), "image_encoder": ("CLIPVisionModelWithProjection",), "clip_image_processor": ()},
    settled=_before_it_is_small,
    completed=_with_captions,
    written=_parts,
)
publish("UniDiffuserPipeline", UNIDIFFUSER, diffusers=replace(UNIDIFFUSER, time_map=None))
