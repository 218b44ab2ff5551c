"""What is on a picture: one or two groups of like objects, and how the two stand to each other.

A scene is a pure function of (seed, index), and the range an index lies in is its split. Some triples
of colour, shape and count are held out of the train split: val and test pictures hold one each of theirs.
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
TWO_GROUPS = 0.7  # of the scenes

Triple = tuple[str, str, int]


@dataclass(frozen=True)
class Group:
    """Like objects that lie together."""

    count: int
    size: str
    texture: str
    colour: str
    shape: str

    @property
    def triple(self) -> Triple:
        return (self.colour, self.shape, self.count)


@dataclass(frozen=True)
class Scene:
    """The facts of a picture. `relation` is that of the first group to the second, None for one group."""

    seed: int
    index: int
    groups: tuple[Group, ...]
    relation: str | None

    def random(self, purpose: str) -> random.Random:
        """A stream of its own for each purpose, so that a change in one doesn't stir the others."""
        return random.Random(f"{purpose} {self.seed} {self.index}")


def _held_out() -> dict[str, frozenset[Triple]]:
    """One count of three of every colour and shape that meet on some diagonals: test has two, val one.

    So each pair of a colour, a shape and a count is still in the train split, in other company.
    """
    triples: dict[str, list[Triple]] = {"val": [], "test": []}
    for (c, colour), (s, shape) in product(enumerate(COLOURS), enumerate(SHAPES)):
        split = {0: "test", 1: "test", 2: "val"}.get((c + 2 * s) % len(SHAPES))
        if split:
            triples[split].append((colour, shape, COUNTS[(c + s) % len(COUNTS)]))
    return {split: frozenset(held) for split, held in triples.items()}


HELD_OUT = _held_out()
COMMON = tuple(
    triple for triple in product(COLOURS, SHAPES, COUNTS) if not any(triple in held for held in HELD_OUT.values())
)


def split_of(index: int) -> str:
    """The split of a scene; UserError for an index that no scene has."""
    if not 0 <= index < SPLIT_RANGE * len(SPLITS):
        raise UserError(f"image_id {index} is no scene of the demo data; give results of the demo's shards")
    return SPLITS[index // SPLIT_RANGE]


def indices(split: str, images: int) -> range:
    """The first scenes of a split."""
    start = SPLITS.index(split) * SPLIT_RANGE
    return range(start, start + images)


def scene_at(index: int, seed: int = SEED) -> Scene:
    """The scene of an index. Two groups always differ in colour; all else is free."""
    rng = random.Random(f"scene {seed} {index}")
    held = sorted(HELD_OUT.get(split_of(index), ()))
    pool = [*COMMON, *held]
    first = _group(rng, rng.choice(held or pool))
    if rng.random() >= TWO_GROUPS:
        return Scene(seed, index, (first,), None)
    second = _group(rng, rng.choice([triple for triple in pool if triple[0] != first.colour]))
    groups = (first, second) if rng.random() < 0.5 else (second, first)
    return Scene(seed, index, groups, rng.choice(RELATIONS))


def _group(rng: random.Random, triple: Triple) -> Group:
    colour, shape, count = triple
    return Group(count, rng.choice(SIZES), rng.choice(TEXTURES), colour, shape)
