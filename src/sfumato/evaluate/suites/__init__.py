"""Suites: what a model is asked beyond single drawings, each a fixed list of prompts with its own rule of scoring.

`skills`: GenEval-style tasks on scenes; `neutral` and `bias`: the attribute that neutral prompts show; `words`: words that no training
caption holds; `lines` and `prompts`: a file of the user's own. `sitting` draws, `outcome` is what all of them give, `bounded` the rates
that stand between two others, `paired` sets two models side by side. Touches what `evaluate/` may.
Nothing is imported here, so that start-up stays cheap.
"""
