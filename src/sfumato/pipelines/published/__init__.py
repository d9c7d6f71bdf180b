"""Published checkpoints as whole pipelines: diffusers folders, read and written.

kinds/        what each pipeline class of diffusers is made of, a file per family
schedulers/   scheduler configs <-> path, time layout, solver, prediction
folder.py     the folder <-> a TextToImage
"""
