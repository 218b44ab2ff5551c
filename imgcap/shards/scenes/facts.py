"""The claims that a caption makes of a scene, and which of them are false.

The reader is tolerant: it looks for groups ("two small red circles"), for relations between two of them
("above", "to the left of") and for sides ("at the top"), in any order and with small words between. What
it can't read, and a group that isn't on the picture, are false claims of the kind "other".
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import permutations

from imgcap.shards.scenes.captions import COUNT_WORDS, PLURALS
from imgcap.shards.scenes.scene import COLOURS, CONVERSE, SHAPES, SIZES, TEXTURES, Group, Scene

KINDS = ("colour", "shape", "count", "size", "texture", "relation", "other")

_COUNTS = {word: count for count, word in COUNT_WORDS.items()} | {"an": 1, "one": 1}
_NOUNS = {**{shape: (shape, False) for shape in SHAPES}, **{plural: (shape, True) for shape, plural in PLURALS.items()}}
_MODIFIERS = {
    **dict.fromkeys(_COUNTS, "count"),
    **dict.fromkeys(SIZES, "size"),
    **dict.fromkeys(TEXTURES, "texture"),
    **dict.fromkeys(COLOURS, "colour"),
}
_SIDES = {"left": "left of", "right": "right of", "top": "above", "bottom": "below"}  # of the other group
_SMALL_WORDS = frozenset({"there", "is", "are", "the", "picture", "shows", "in", "on", "at", "and", "to", "of"})


@dataclass(frozen=True)
class Claim:
    """A claim of a caption; `text` names it and, if false, what is there instead."""

    kind: str
    text: str
    true: bool


@dataclass
class _Phrase:
    """A group as the caption tells it; every list holds the words said, of which more than one may contradict."""

    noun: str
    said: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Link:
    """A relation that a caption tells, or a side where `side` is set, and after how many groups it tells it."""

    relation: str
    after: int
    side: bool


@dataclass
class _Reading:
    phrases: list[_Phrase] = field(default_factory=list)
    links: list[_Link] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def false_facts(caption: str, scene: Scene) -> list[str]:
    """Name every false claim of a caption; empty where it tells of a group and all that it says is true."""
    return [f"{claim.kind}: {claim.text}" for claim in claims(caption, scene) if not claim.true]


def claims(caption: str, scene: Scene) -> list[Claim]:
    """Judge every claim of a caption, in the reading (which phrase means which group) with the fewest false ones."""
    reading = _read(caption)
    judged = [Claim("other", f"{words!r} says nothing of a scene", False) for words in reading.unread]
    if not reading.phrases:
        return [*judged, Claim("other", "no group is told of", False)]
    readings = [list(_judge(reading, meant, scene)) for meant in _meanings(len(reading.phrases), scene)]
    return judged + min(readings, key=lambda reading: sum(not claim.true for claim in reading))


def _read(caption: str) -> _Reading:
    reading, words = _Reading(), re.findall(r"[^\W_]+", caption.lower())
    said: dict[str, list[str]] = {}

    def give_up() -> None:  # attributes without a noun
        if said:
            reading.unread.append(" ".join(word for group in said.values() for word in group))
            said.clear()

    for place, word in enumerate(words):
        following = words[place + 1] if place + 1 < len(words) else ""
        if word in ("a", "an") and following == "picture":
            continue
        if word in _MODIFIERS:
            said.setdefault(_MODIFIERS[word], []).append(word)
        elif word in _NOUNS:
            reading.phrases.append(_Phrase(word, dict(said)))
            said.clear()
        else:
            give_up()
            if word in CONVERSE or word in _SIDES:
                side = word in ("top", "bottom") or (word in ("left", "right") and following != "of")
                reading.links.append(_Link(word if word in CONVERSE else _SIDES[word], len(reading.phrases), side))
            elif word not in _SMALL_WORDS:
                reading.unread.append(word)
    give_up()
    return reading


def _meanings(phrases: int, scene: Scene) -> Iterator[tuple[int | None, ...]]:
    """Yield every way to let phrases mean different groups; where there are too many phrases, some mean none."""
    spare = [None] * max(phrases - len(scene.groups), 0)
    yield from dict.fromkeys(permutations([*range(len(scene.groups)), *spare], phrases))


def _judge(reading: _Reading, meant: tuple[int | None, ...], scene: Scene) -> Iterator[Claim]:
    for phrase, index in zip(reading.phrases, meant, strict=True):
        if index is None:
            yield Claim("other", f"there is no other group, yet it tells of {phrase.noun!r}", False)
        else:
            yield from _judge_phrase(phrase, scene.groups[index])
    for link in reading.links:
        if link.side:  # "A on the left" speaks of the phrase before it
            holds = link.after > 0 and _holds(link.relation, meant[link.after - 1], scene)
        else:
            about = meant[link.after - 1 : link.after + 1] if link.after else ()
            holds = len(about) == 2 and None not in about and _holds(link.relation, about[0], scene)
        told = link.relation if holds else f"{link.relation!r} of the other group, which is not so"
        yield Claim("relation", told, holds)


def _judge_phrase(phrase: _Phrase, group: Group) -> Iterator[Claim]:
    shape, plural = _NOUNS[phrase.noun]
    yield _compared("shape", shape, group.shape)
    for kind in ("colour", "size", "texture"):
        for word in phrase.said.get(kind, []):
            yield _compared(kind, word, getattr(group, kind))
    number = [_COUNTS[word] for word in phrase.said.get("count", [])]
    agrees = plural == (group.count > 1) and all(count == group.count for count in number)
    told = f"{phrase.noun!r}, {number or 'any number'} of them"
    yield Claim("count", told if agrees else f"{told}, where there are {group.count}", agrees)


def _compared(kind: str, said: str, true: str) -> Claim:
    return Claim(kind, said if said == true else f"{said!r}, where it is {true!r}", said == true)


def _holds(relation: str, index: int | None, scene: Scene) -> bool:
    """Whether the group of this index stands in a relation to the other one."""
    if scene.relation is None or index is None:
        return False
    return relation == (CONVERSE[scene.relation] if index else scene.relation)
