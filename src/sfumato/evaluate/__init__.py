"""Evaluation: the judge, the distances, and the one command that scores a model on pairs it has and has not seen.

`evaluate.evaluate` draws and scores; `compare` sets two models side by side; `judge.Judge` looks at pictures, `features` and `scorers` are
others that do; `metrics` are plain functions; `judge_recipe` makes the judge. Touches the rooms below it.
Nothing is imported here, so that start-up stays cheap.
"""
