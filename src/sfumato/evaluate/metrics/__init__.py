"""The metrics, as plain functions: numbers in, numbers with their doubt out.

`estimates`: rates, means, intervals, the jackknife. `sets`: Fréchet, kernel distance, CMMD. `manifolds`: precision, recall, density,
coverage. `pairs`: alignment, retrieval, SSIM, distance in feature maps. `bias` and `tasks`: from what a classifier or detector saw.
May touch `core/` only.
"""

from .bias import Bias, bias, fair_range
from .estimates import Estimate, Score, bootstrap, finite_rows, jackknife, student, wilson
from .manifolds import Manifolds, manifolds
from .pairs import Retrieval, alignment, feature_distance, retrieval, ssim
from .sets import cmmd, frechet, kernel_distance, mmd2
from .tasks import Answer, Asked, Detection, Facts, judge_facts, paint_count, paint_object, paint_spatial

__all__ = [
    "Answer",
    "Asked",
    "Bias",
    "Detection",
    "Estimate",
    "Facts",
    "Manifolds",
    "Retrieval",
    "Score",
    "alignment",
    "bias",
    "bootstrap",
    "cmmd",
    "fair_range",
    "feature_distance",
    "finite_rows",
    "frechet",
    "jackknife",
    "judge_facts",
    "kernel_distance",
    "manifolds",
    "mmd2",
    "paint_count",
    "paint_object",
    "paint_spatial",
    "retrieval",
    "ssim",
    "student",
    "wilson",
]
