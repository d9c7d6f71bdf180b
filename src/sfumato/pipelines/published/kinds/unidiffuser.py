"""UniDiffuser (arXiv 2303.06555): known and refused for now."""

from . import refuse

refuse("UniDiffuserPipeline", "it draws a CLIP embedding beside the picture, which no process here does; `load_denoiser` reads its unet")
