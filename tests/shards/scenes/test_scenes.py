import math
import random
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imgcap.errors import UserError
from imgcap.shards.scenes.captions import captions_of
from imgcap.shards.scenes.counting import count_facts
from imgcap.shards.scenes.facts import claims, false_facts
from imgcap.shards.scenes.rendering import REACH, SIDE, place, render
from imgcap.shards.scenes.scene import (
    COLOURS,
    COMMON,
    COUNTS,
    HELD_OUT,
    SHAPES,
    SIZES,
    SPLIT_RANGE,
    SPLITS,
    TEXTURES,
    Group,
    Scene,
    indices,
    scene_at,
    split_of,
)
from imgcap.shards.sources import demo

any_index = st.builds(lambda split, i: split * SPLIT_RANGE + i, st.integers(0, 2), st.integers(0, SPLIT_RANGE - 1))
any_scene = any_index.map(scene_at)


def shown(scene: Scene) -> set:
    return {group.combination for group in scene.groups}


# What is on a picture


@given(any_index, st.integers(0, 5))
def test_a_scene_is_a_pure_function_of_seed_and_index(index, seed):
    assert scene_at(index, seed) == scene_at(index, seed)
    assert scene_at(index, seed) != scene_at((index + 1) % SPLIT_RANGE, seed)  # they differ at least in the index


@given(any_scene)
def test_splits_share_no_held_out_combination(scene):
    split = split_of(scene.index)
    for other in HELD_OUT:
        assert bool(shown(scene) & HELD_OUT[other]) == (other == split)


def test_of_four_attributes_only_all_together_are_new():
    every = len(COUNTS) * len(TEXTURES) * len(COLOURS) * len(SHAPES)
    assert len(COMMON) + sum(len(held) for held in HELD_OUT.values()) == every
    for three in combinations(range(4), 3):
        known = {tuple(combination[i] for i in three) for combination in COMMON}
        assert known >= {tuple(combination[i] for i in three) for held in HELD_OUT.values() for combination in held}


@given(any_scene)
def test_two_groups_differ_in_colour_and_have_a_relation(scene):
    assert len({group.colour for group in scene.groups}) == len(scene.groups)
    assert (scene.relation is None) == (len(scene.groups) == 1)


@pytest.mark.parametrize(
    "attribute, values",
    [("colour", COLOURS), ("shape", SHAPES), ("count", COUNTS), ("size", SIZES), ("texture", TEXTURES)],
)
def test_attributes_are_near_uniform(attribute, values):
    counts = Counter(getattr(group, attribute) for i in range(3000) for group in scene_at(i).groups)
    expected = sum(counts.values()) / len(values)
    assert all(0.8 * expected < counts[value] < 1.2 * expected for value in values)


@pytest.mark.parametrize("index", [-1, SPLIT_RANGE * len(SPLITS), 391895])
def test_only_an_index_in_the_range_of_a_split_has_a_scene(index):
    if index == 391895:
        assert split_of(index) == "train"
    else:
        with pytest.raises(UserError, match=str(index)):
            scene_at(index)


# The picture


@given(any_scene)
def test_objects_keep_apart_and_stay_on_the_picture(scene):
    placed = place(scene)
    assert Counter(one.group for one in placed) == Counter({group: group.count for group in scene.groups})
    for one, other in combinations(placed, 2):
        assert math.dist(one.centre, other.centre) > (one.radius + other.radius) * REACH + 1
    for one in placed:
        assert all(one.radius * REACH < coordinate < SIDE - one.radius * REACH for coordinate in one.centre)


@given(any_scene)
def test_the_relation_holds_for_every_object_and_the_other_axis_is_level(scene):
    if scene.relation is None:
        return
    along, across = (0, 1) if scene.relation == "left of" else (1, 0)
    first, second = ([one for one in place(scene) if one.group is group] for group in scene.groups)
    ends = max(one.centre[along] + one.radius * REACH for one in first)
    begins = min(one.centre[along] - one.radius * REACH for one in second)
    assert begins - ends > 5
    middles = [sum(one.centre[across] for one in group) / len(group) for group in (first, second)]
    assert abs(middles[0] - middles[1]) <= 13


def test_pictures_repeat_and_hold_their_colours():
    for index in range(12):
        scene = scene_at(index)
        picture = render(scene)
        pixels = np.asarray(picture)
        assert picture.size == (SIDE, SIDE)
        assert np.array_equal(pixels, np.asarray(render(scene)))
        for one in place(scene):  # the mean over an object has its colour's strongest channel and weakest channel
            x, y = (round(coordinate) for coordinate in one.centre)
            red, green, blue = pixels[y - 3 : y + 4, x - 3 : x + 4].reshape(-1, 3).mean(axis=0)
            strongest = {"red": red, "orange": red, "yellow": red, "green": green, "blue": blue, "purple": blue}
            weakest = {"red": green, "orange": blue, "yellow": blue, "green": red, "blue": red, "purple": green}
            assert strongest[one.group.colour] == max(red, green, blue)
            assert weakest[one.group.colour] <= min(red, green, blue) + 20


# The captions


@given(any_scene)
def test_five_captions_differ_and_tell_only_facts(scene):
    captions = captions_of(scene)
    assert len(set(captions)) == 5
    assert captions == captions_of(scene)
    for caption in captions:
        kinds = Counter(claim.kind for claim in claims(caption, scene))
        assert false_facts(caption, scene) == []
        assert all(kinds[kind] == len(scene.groups) for kind in ("colour", "shape", "count"))
        assert (kinds["relation"] > 0) == (scene.relation is not None)


def test_every_caption_of_300_scenes_is_true_and_of_few_words():
    scenes = [scene_at(index) for split in SPLITS for index in indices(split, 100)]
    captions = [(scene, caption) for scene in scenes for caption in captions_of(scene)]
    assert [caption for scene, caption in captions if false_facts(caption, scene)] == []
    assert 40 <= len({word for _, caption in captions for word in caption.split()}) <= 60


SINGULAR = list(SHAPES)
PLURAL = ["circles", "squares", "triangles", "stars", "crosses"]
SWAPS = {
    "colour": [list(COLOURS)],
    "shape": [SINGULAR, PLURAL],
    "count": [["a", "an", "two", "three"]],
    "size": [list(SIZES)],
    "texture": [list(TEXTURES)],
    "relation": [["above", "below"], ["left", "right"], ["top", "bottom"]],
}


@given(any_scene, st.sampled_from(sorted(SWAPS)), st.integers(0, 4), st.randoms(use_true_random=False))
def test_one_changed_word_is_one_false_fact_of_its_kind(scene, kind, which, rng: random.Random):
    words = captions_of(scene)[which].split()
    places = [
        (place, [other for other in words_of_kind if other != word])
        for place, word in enumerate(words)
        for words_of_kind in SWAPS[kind]
        if word in words_of_kind and words[place + 1 : place + 2] != ["picture"]
    ]
    if not places:
        return
    place, others = rng.choice(places)
    if kind == "count" and words[place] in ("a", "an"):
        others = ["two", "three"]
    words[place] = rng.choice(others)
    false = [claim.kind for claim in claims(" ".join(words), scene) if not claim.true]
    assert false == [kind]
    assert false_facts(" ".join(words), scene)[0].startswith(kind)


PAIR = Scene(
    0, 0, (Group(2, "small", "solid", "red", "circle"), Group(1, "large", "striped", "blue", "square")), "left of"
)
ALONE = Scene(0, 0, (Group(1, "small", "dotted", "green", "star"),), None)


@pytest.mark.parametrize(
    "caption, kind",
    [
        ("", "other"),
        ("there is", "other"),
        ("the the of to", "other"),
        ("a dog runs on the grass", "other"),
        ("two small red", "other"),
        ("two red circles to the left of a striped blue", "other"),
        ("two red circles to the left of a blue square and a dog", "other"),
        ("two red circles and a blue square and a blue square", "other"),
        ("two red circles to the left of", "relation"),
        ("above a blue square", "relation"),
        ("two red circles to the left of left of a blue square above", "relation"),
        ("two red blue circles to the left of a blue square", "colour"),
        ("two red circle to the left of a blue square", "count"),
        ("two red circles below a blue square", "relation"),
        ("two red circles on the right and a blue square on the left", "relation"),
        ("a blue square to the left of two red circles", "relation"),
        ("two red circles to the right of a blue square", "relation"),
    ],
)
def test_what_cannot_be_read_or_isn_t_there_is_false(caption, kind):
    assert kind in {claim.kind for claim in claims(caption, PAIR) if not claim.true}


@pytest.mark.parametrize(
    "caption",
    [
        "two red circles",
        "Two red circles, to the left of a blue square.",
        "a blue square and two small circles",
        "red circles left of one striped square",
        "a blue square on the right and two red circles on the left",
    ],
)
def test_what_is_told_freely_or_in_part_may_be_true(caption):
    assert false_facts(caption, PAIR) == []


def test_a_single_group_stands_in_no_relation():
    assert false_facts("a picture of a green star", ALONE) == []
    assert false_facts("a green star on the left", ALONE)
    assert false_facts("a green star above a green star", ALONE)
    assert false_facts("a green star and a red circle", ALONE)


@given(st.text(alphabet="abc d", max_size=30), any_scene)
def test_garbage_is_never_wholly_true(caption, scene):
    assert false_facts(caption, scene)


GRAMMAR = re.findall(r"\w+", "a two red blue small striped circle squares above left of to on the top and")


@given(st.lists(st.sampled_from(GRAMMAR)), any_scene)
def test_any_words_of_the_grammar_are_judged(words, scene):
    judged = claims(" ".join(words), scene)
    assert judged and all(claim.text for claim in judged)


def test_counting_facts_over_results():
    results = [{"image_id": i, "caption": captions_of(scene_at(i))[0]} for i in range(20)]
    count = count_facts(results)
    assert (count.captions, count.wholly_true, sum(count.false.values())) == (20, 20, 0)
    assert count.claims["colour"] == sum(len(scene_at(i).groups) for i in range(20))
    worse = count_facts([*results, {"image_id": 3, "caption": "three dogs"}])
    assert (worse.captions, worse.wholly_true, worse.false["other"]) == (21, 20, 3)
    assert worse.wholly_true_share == 20 / 21


def test_language_alone_scores_badly():
    """The captions of one scene, told of another, share little with its references."""
    from pycocoevalcap.cider.cider import Cider

    scenes = [scene_at(index) for index in indices("test", 100)]
    references = {scene.index: captions_of(scene) for scene in scenes}

    def cider(turn: int) -> float:
        told = {scene.index: [references[scenes[i - turn].index][0]] for i, scene in enumerate(scenes)}
        return Cider().compute_score(references, told)[0]

    assert cider(1) < cider(0) / 4


# The source


def test_the_source_draws_what_is_missing_and_only_that(tmp_path: Path):
    whole = demo.read(tmp_path / "one", images=20)
    assert {split: len(records) for split, records in whole.splits.items()} == {"train": 18, "val": 1, "test": 1}
    records = [record for split in whole.splits.values() for record in split]
    before = {record.path: record.path.read_bytes() for record in records}
    records[3].path.unlink()
    records[5].path.write_bytes(b"kept")
    demo.read(tmp_path / "one", images=20)
    assert records[3].path.read_bytes() == before[records[3].path]
    assert records[5].path.read_bytes() == b"kept"
    assert sorted(tmp_path.glob("one/*.jpg*")) == sorted(before)
    for record in records:
        assert record.captions == tuple(captions_of(scene_at(record.image_id)))


def test_several_processes_draw_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "_WORTH_PROCESSES", 0)
    alone = demo.read(tmp_path / "alone", images=60, workers=1)
    demo.read(tmp_path / "two", images=60, workers=2)
    for record in (record for split in alone.splits.values() for record in split):
        assert (tmp_path / "two" / record.file_name).read_bytes() == record.path.read_bytes()
        with Image.open(record.path) as picture:
            assert (picture.format, picture.size, picture.mode) == ("JPEG", (SIDE, SIDE), "RGB")


def test_a_smaller_set_is_the_beginning_of_a_larger_one(tmp_path: Path):
    small, large = (demo.read(tmp_path, images=images) for images in (30, 60))
    for split in SPLITS:
        assert large.splits[split][: len(small.splits[split])] == small.splits[split]


def test_too_few_images_for_the_splits(tmp_path: Path):
    with pytest.raises(UserError, match="2 images"):
        demo.read(tmp_path, images=2)


def test_pictures_of_another_drawing_are_not_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    record = demo.read(tmp_path, images=3).splits["train"][0]
    record.path.write_bytes(b"old")
    demo.read(tmp_path, images=3)
    assert record.path.read_bytes() == b"old"
    monkeypatch.setattr(demo, "DRAWING", demo.DRAWING + 1)
    demo.read(tmp_path, images=3)
    assert record.path.read_bytes() != b"old"
