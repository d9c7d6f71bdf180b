"""HiDream-I1 (arXiv 2505.22705), Full, Dev and Fast: two CLIPs, T5, and a Llama whose layers the network's blocks hear one by one.

Original and diffusers draw alike. Dev and Fast are told apart by the shift of the scheduler that noises their steps again.
"""

from dataclasses import replace

from ....core.conditions import Slot
from . import FLOW, POOLED, PROJECTED_CLIP, T5, TEXT, Kind, Said, Text, publish

# Steps of the distilled ones, by shift. They need no guidance.
_DEV_AND_FAST = {6.0: 28, 3.0: 16}


def _released(kind: Kind, said: Said) -> Kind:
    """Llama's layers up to the last that is heard, side by side."""
    *others, llama = kind.texts
    kind = replace(kind, texts=(*others, replace(llama, layers=tuple(range(1, 2 + max(said.config["llama_layers"]))))))
    if said.scheduler.solver != "renoise":
        return kind
    return replace(kind, steps=_DEV_AND_FAST.get(said.scheduler.shift, kind.steps), guidance=1.0)


publish(
    "HiDreamImagePipeline",
    Kind(
        "HiDreamImageTransformer2DModel",
        (
            Text("text_encoder", "tokenizer", PROJECTED_CLIP, tokens=128, padding="attended"),
            Text("text_encoder_2", "tokenizer_2", PROJECTED_CLIP, tokens=128, padding="attended"),
            Text("text_encoder_3", "tokenizer_3", T5, tokens=128, padding="kept"),
            Text("text_encoder_4", "tokenizer_4", ("LlamaForCausalLM", "LlamaModel"), tokens=128, padding="kept", ends=True),
        ),
        "tapped",
        ("UniPCMultistepScheduler", *FLOW, "FlowMatchLCMScheduler"),
        (TEXT, Slot("taps", null="empty"), POOLED),
        steps=50,
        guidance=5.0,
        settled=_released,
    ),
)
