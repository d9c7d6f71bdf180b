"""Sana (arXiv 2410.10629): Gemma-2, instructed to enhance the prompt; of the instruction's states only the ends are handed on.
Drawn at the nearest trained size, as PixArt.

diffusers lowers the prompt, and tells the network whole thousandths of its time; the original neither.
"""

from dataclasses import replace

from ....text.captions import lowered, stripped
from . import FLOW, TEXT, Kind, Text, publish, refuse

# What Gemma is asked to do with a prompt (configs of the original's code, "complex human instruction").
ENHANCE = "\n".join(
    (
        "Given a user prompt, generate an 'Enhanced prompt' that provides detailed visual descriptions suitable for image generation. "
        "Evaluate the level of detail in the user prompt:",
        "- If the prompt is simple, focus on adding specifics about colors, shapes, sizes, textures, and spatial relationships to create "
        "vivid and concrete scenes.",
        "- If the prompt is already detailed, refine and enhance the existing details slightly without overcomplicating.",
        "Here are examples of how to transform or refine prompts:",
        "- User Prompt: A cat sleeping -> Enhanced: A small, fluffy white cat curled up in a round shape, sleeping peacefully on a warm "
        "sunny windowsill, surrounded by pots of blooming red flowers.",
        "- User Prompt: A busy city street -> Enhanced: A bustling city street scene at dusk, featuring glowing street lamps, a diverse "
        "crowd of people in colorful clothing, and a double-decker bus passing by towering glass skyscrapers.",
        "Please generate only the enhanced description for the prompt below and avoid including any additional commentary or evaluations:",
        "User Prompt: ",
    )
)
_GEMMA = Text("text_encoder", "tokenizer", ("Gemma2Model",), tokens=300, prepare=stripped, instruction=ENHANCE, hidden=True)
SANA = Kind(
    "SanaTransformer2DModel",
    (_GEMMA,),
    "one",
    ("DPMSolverMultistepScheduler", *FLOW),
    (TEXT,),
    steps=20,
    guidance=4.5,
    codec="AutoencoderDC",
    side=32,
    binned=True,
    time_map="identity",
)
publish("SanaPipeline", SANA, diffusers=replace(SANA, texts=(replace(_GEMMA, prepare=lowered),), time_map=None))
refuse("SanaSprintPipeline", "its steps noise the picture again (SCM), which no solver here does; `load_denoiser` reads its network")
