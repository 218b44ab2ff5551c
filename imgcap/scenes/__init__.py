"""Generated scenes: what is on a picture, the picture, true captions of it, and a check of any caption."""

from imgcap.scenes.captions import captions_of
from imgcap.scenes.counting import FactCount, count_facts
from imgcap.scenes.facts import KINDS, Claim, claims, false_facts
from imgcap.scenes.rendering import DRAWING, SIDE, render
from imgcap.scenes.scene import SPLITS, Group, Scene, indices, scene_at, split_of

__all__ = [
    "DRAWING",
    "KINDS",
    "SIDE",
    "SPLITS",
    "Claim",
    "FactCount",
    "Group",
    "Scene",
    "captions_of",
    "claims",
    "count_facts",
    "false_facts",
    "indices",
    "render",
    "scene_at",
    "split_of",
]
