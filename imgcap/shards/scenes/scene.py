"""The facts of a generated picture: one or two groups of like objects, and how the two stand to each other.

A scene is a pure function of (seed, index), and the range an index lies in is its split. Some combinations
of count, texture, colour and shape are held out of the train split: each val and test picture has one of its own.
"""

import random
from dataclasses import dataclass
from itertools import product

from imgcap.errors import UserError

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple")
COUNTS = (1, 2, 3)
SIZES = ("small", "large")
TEXTURES = ("solid", "striped", "dotted")
RELATIONS = ("left of", "above")  # of the first group to the second: groups are told in reading order
CONVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

SEED = 0
SPLITS = ("train", "val", "test")
SPLIT_RANGE = 1_000_000  # indices of a split; the splits lie one after the other
TWO_GROUPS = 0.5  # of the scenes

Combination = tuple[int, str, str, str]  # count, texture, colour, shape


@dataclass(frozen=True)
class Group:
    """A group of like objects that lie together."""

    count: int
    size: str
    texture: str
    colour: str
    shape: str

    @property
    def combination(self) -> Combination:
        return (self.count, self.texture, self.colour, self.shape)


@dataclass(frozen=True)
class Scene:
    """The facts of a picture. `relation` is that of the first group to the second, None for one group."""

    seed: int
    index: int
    groups: tuple[Group, ...]
    relation: str | None

    def random(self, purpose: str) -> random.Random:
        """A random generator for a purpose, each with its own, so that a change in one doesn't stir the others."""
        return random.Random(f"{purpose} {self.seed} {self.index}")


def _held_out() -> dict[str, frozenset[Combination]]:
    """Choose the held-out combinations: one of every colour and shape for test, and of every second for val.

    Only all four attributes together are new: any three of them are in the train split, in other company.
    Were three held out, a model could learn which shape never goes with a colour and a count, and avoid it.
    """
    held: dict[str, list[Combination]] = {"val": [], "test": []}
    for (c, colour), (s, shape) in product(enumerate(COLOURS), enumerate(SHAPES)):
        count, texture = c + s, s + s // 3 + c // 3
        held["test"].append((COUNTS[count % 3], TEXTURES[texture % 3], colour, shape))
        if count % 2 == 0:
            held["val"].append((COUNTS[(count + 1) % 3], TEXTURES[(texture + 1) % 3], colour, shape))
    return {split: frozenset(combinations) for split, combinations in held.items()}


HELD_OUT = _held_out()
COMMON = tuple(
    combination
    for combination in product(COUNTS, TEXTURES, COLOURS, SHAPES)
    if not any(combination in held for held in HELD_OUT.values())
)


def split_of(index: int) -> str:
    """The split of a scene; `UserError` for an index that no scene has."""
    if not 0 <= index < SPLIT_RANGE * len(SPLITS):
        raise UserError(f"image_id {index} is no scene of the demo data; give results of the demo's shards")
    return SPLITS[index // SPLIT_RANGE]


def indices(split: str, images: int) -> range:
    """The indices of a split's first scenes, so many as `images`."""
    start = SPLITS.index(split) * SPLIT_RANGE
    return range(start, start + images)


def scene_at(index: int, seed: int = SEED) -> Scene:
    """Make the scene of an index; `UserError` for one out of range. Two groups differ in colour; all else is free."""
    rng = random.Random(f"scene {seed} {index}")
    held = sorted(HELD_OUT.get(split_of(index), ()))
    pool = [*COMMON, *held]
    first = _group(rng, rng.choice(held or pool))
    if rng.random() >= TWO_GROUPS:
        return Scene(seed, index, (first,), None)
    second = _group(rng, rng.choice([combination for combination in pool if combination[2] != first.colour]))
    groups = (first, second) if rng.random() < 0.5 else (second, first)
    return Scene(seed, index, groups, rng.choice(RELATIONS))


def _group(rng: random.Random, combination: Combination) -> Group:
    count, texture, colour, shape = combination
    return Group(count, rng.choice(SIZES), texture, colour, shape)
