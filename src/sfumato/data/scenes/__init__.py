"""Scenes: EmojiWorld's drawings composed by code, so that every count, place, colour, mask and word is known.

    cast = Cast.open("data/emoji")
    it = scene(cast, seed=0, index=7, difficulty=3)
    render(it, cast, 128).picture, captions_of(it)

A `Cast` is the drawings, a `Scene` the description, `render` the pixels with masks, depth, edges and boxes. From scenes come edit pairs,
subject sets, stories, videos, try-on pairs, documents and probes, each a pure function of (version, seed, index). Touches `data/` only.
"""

from .captions import Negative, captions_of, facts_of, negatives, region_captions
from .cast import Cast, Figure
from .content import LEVELS
from .description import SCENES_VERSION, Background, Object, Relation, Scene, Sign, canonical, split_of_scenes
from .documents import Document, document, to_pdf
from .edits import EDITS, Edit, edit
from .fitting import TryOn, tryon
from .painting import Rendered, render
from .plan import scene
from .probes import SKILLS, Probe, probe
from .stories import Story, SubjectSet, story, subjects
from .tasks import TASKS, Posed, TaskName, pose
from .videos import Video, video

__all__ = [
    "EDITS", "LEVELS", "SCENES_VERSION", "SKILLS", "TASKS", "Background", "Cast", "Document", "Edit", "Figure", "Negative", "Object",
    "Posed", "Probe", "Relation", "Rendered", "Scene", "Sign", "Story", "SubjectSet", "TaskName", "TryOn", "Video", "canonical",
    "captions_of", "document", "edit", "facts_of", "negatives", "pose", "probe", "region_captions", "render", "scene",
    "split_of_scenes", "story", "subjects", "to_pdf", "tryon", "video",
]  # fmt: skip
