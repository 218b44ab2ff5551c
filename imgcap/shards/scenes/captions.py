"""True captions of a scene: five paraphrases out of a small grammar of frames and details.

Count, colour and shape of each group are always told, and how two groups stand to each other; size and
texture only in some captions.
"""

from imgcap.shards.scenes.scene import CONVERSE, Group, Scene

CAPTIONS = 5
COUNT_WORDS = {1: "a", 2: "two", 3: "three"}
PLURALS = {
    "circle": "circles", "square": "squares", "triangle": "triangles", "star": "stars", "cross": "crosses"
}  # fmt: skip
RELATION_WORDS = {"left of": "to the left of", "right of": "to the right of", "above": "above", "below": "below"}
PLACES = {"left of": ("on the left", "on the right"), "above": ("at the top", "at the bottom")}

# Which of size and texture a caption tells.
FULL = ("size", "texture")
MAIN_DETAILS = (FULL, ("size",), ())
OTHER_DETAILS = (FULL, FULL, ("size",), ("texture",), (), ())
MAIN_ONE = "a picture of {first}"
OTHERS_ONE = ("there {is_are} {first}", "the picture shows {first}", "{first} in the picture")
MAIN_TWO = "{first} {relation} {second}"
OTHERS_TWO = (
    "{second} {converse} {first}",
    "there {is_are} {first} {relation} {second}",
    "{first} {place} and {second} {other_place}",
)


def captions_of(scene: Scene) -> list[str]:
    """Write five different true captions of a scene, in random order; three have the main frame, with fewer details."""
    rng = scene.random("captions")
    main, others = (MAIN_ONE, OTHERS_ONE) if scene.relation is None else (MAIN_TWO, OTHERS_TWO)
    chosen = [(main, details) for details in MAIN_DETAILS]
    chosen += [(frame, rng.choice(OTHER_DETAILS)) for frame in rng.sample(others, CAPTIONS - len(chosen))]
    rng.shuffle(chosen)
    return [caption(scene, frame, details) for frame, details in chosen]


def caption(scene: Scene, frame: str, details: tuple[str, ...]) -> str:
    """Fill a caption's frame with the groups of a scene, told with these details."""
    words = {"first": phrase(scene.groups[0], details), "is_are": "is" if scene.groups[0].count == 1 else "are"}
    if scene.relation is not None:
        place, other_place = PLACES[scene.relation]
        words |= {
            "second": phrase(scene.groups[1], details),
            "relation": RELATION_WORDS[scene.relation],
            "converse": RELATION_WORDS[CONVERSE[scene.relation]],
            "place": place,
            "other_place": other_place,
        }
    return frame.format(**words)


def phrase(group: Group, details: tuple[str, ...] = FULL) -> str:
    """Tell a group in words, such as "two small striped red circles" or "an orange star"."""
    noun = group.shape if group.count == 1 else PLURALS[group.shape]
    words = [*(getattr(group, detail) for detail in details), group.colour, noun]
    count = "an" if group.count == 1 and words[0][0] in "aeiou" else COUNT_WORDS[group.count]
    return " ".join([count, *words])
