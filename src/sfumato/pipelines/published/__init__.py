"""Published checkpoints as whole pipelines: diffusers folders of PixArt, Stable Diffusion 1 to 3 and XL, FLUX.1, read and
written.

kinds.py        what each pipeline class of diffusers is made of, and its settings
schedulers.py   scheduler configs <-> path, time layout, solver, prediction
folder.py       the folder <-> a TextToImage
"""
