"""Resampled scores are those of the drawn images, and intervals tell a difference from none."""

import random

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu

from imgcap.evaluation.comparison.bootstrap import METRICS, differences
from imgcap.evaluation.metrics.bleu import bleu, bleu_of_counts
from imgcap.evaluation.metrics.scorers import score_images

IMAGES = 150
SUBJECTS, VERBS, PLACES = (
    ["a dog", "two men", "a girl", "the cat"],
    ["runs", "sits", "plays"],
    ["grass", "snow", "sand"],
)


def captions(seed: int) -> dict[int, str]:
    """One of several ways to tell what is on each image; the seed is whose."""
    told = {}
    for image in range(IMAGES):
        truth, way = random.Random(f"image {image}"), random.Random(f"{seed} {image}")
        subject, verb, place = truth.choice(SUBJECTS), truth.choice(VERBS), truth.choice(PLACES)
        number = truth.randint(1, 40)
        frames = (
            f"{subject} {verb} on the {place}",
            f"{subject} in the {place}",
            f"{subject} {verb} near item {number}",
        )
        told[image] = way.choice(frames)
    return told


REFERENCES = {image: [captions(seed)[image] for seed in (10, 11, 12)] for image in range(IMAGES)}
OTHERS = dict(zip(range(IMAGES), [*list(captions(0).values())[1:], "a"], strict=True))


@pytest.fixture(scope="module")
def scored():
    sides = {"one": captions(0), "as good": captions(1), "of other images": OTHERS}
    return {name: score_images(side, REFERENCES, ["BLEU", "ROUGE-L", "CIDEr"]) for name, side in sides.items()}


@pytest.mark.parametrize("seed", range(3))
def test_bleu_of_drawn_images_is_pycocoevalcaps(seed: int) -> None:
    drawn = np.random.default_rng(seed).integers(0, 20, 30)
    references = {place: REFERENCES[image] for place, image in enumerate(drawn.tolist())}
    hypotheses = {place: [captions(seed)[image]] for place, image in enumerate(drawn.tolist())}
    wanted, _ = Bleu(4).compute_score(references, hypotheses, verbose=0)
    _, _, counts_NS = bleu(REFERENCES, {image: [caption] for image, caption in captions(seed).items()})
    times_N = np.bincount(drawn, minlength=IMAGES)
    assert bleu_of_counts(times_N @ counts_NS).tolist() == pytest.approx(wanted, rel=1e-9)


def test_the_images_own_scores_have_the_whole_as_their_mean(scored) -> None:
    for side in scored.values():
        for name in ("CIDEr", "ROUGE-L"):
            assert np.mean([own[name] for own in side.images.values()]) == pytest.approx(side.scores[name], rel=1e-12)
        whole = bleu_of_counts(side.counts_NS.sum(0))
        assert whole.tolist() == pytest.approx([side.scores[f"BLEU-{n}"] for n in (1, 2, 3, 4)], rel=1e-9)


def test_two_that_are_as_good_do_not_differ(scored) -> None:
    for name, found in differences(scored["one"], scored["as good"]).items():
        assert found.covers_zero and found.low < found.high, (name, found)
        assert found.low < found.difference < found.high
        assert 0.025 < found.b_wins < 0.975


def test_the_same_captions_do_not_differ_at_all(scored) -> None:
    for found in differences(scored["one"], scored["one"], resamples=50).values():
        assert (found.difference, found.low, found.high, found.b_wins) == (0, 0, 0, 0.5) and found.covers_zero


def test_captions_of_other_images_are_worse(scored) -> None:
    found = differences(scored["one"], scored["of other images"], resamples=500)
    assert tuple(found) == METRICS
    for name, difference in found.items():
        assert difference.high < 0 and difference.b_wins == 0 and not difference.covers_zero, name


def test_sides_change_places_with_the_sign(scored) -> None:
    there = differences(scored["one"], scored["as good"], resamples=300, seed=5)
    back = differences(scored["as good"], scored["one"], resamples=300, seed=5)
    for name in METRICS:
        assert (there[name].low, there[name].b_wins) == pytest.approx((-back[name].high, 1 - back[name].b_wins))


def test_a_seed_gives_the_same_intervals_however_they_are_computed(scored, monkeypatch: pytest.MonkeyPatch) -> None:
    sides = (scored["one"], scored["as good"])
    whole = differences(*sides, resamples=100, seed=1)
    assert differences(*sides, resamples=100, seed=2) != whole
    monkeypatch.setattr("imgcap.evaluation.comparison.bootstrap._CHUNK", 7 * IMAGES)
    assert differences(*sides, resamples=100, seed=1) == whole
