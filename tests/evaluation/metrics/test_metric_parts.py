"""CIDEr by our own hand, and METEOR with a part of its table: both equal to pycocoevalcap's, bit for bit."""

import gzip
import random
import shutil
from pathlib import Path

import pytest
from pycocoevalcap.cider.cider import Cider

from imgcap.evaluation.metrics.cider import CiderReferences
from imgcap.evaluation.metrics.meteor import PARAPHRASES, meteor
from imgcap.evaluation.metrics.paraphrases import LONGEST, filter_aside, filter_table

WORDS = [
    "a",
    "the",
    "man",
    "woman",
    "dog",
    "runs",
    "sits",
    "on",
    "in",
    "grass",
    "ball",
    "big",
    "small",
    "red",
    "plays",
    "with",
]


def drawn(seed: int, images: int, captions: int) -> dict[int, list[str]]:
    """Captions of 0 to 14 words in which words repeat."""
    draw = random.Random(seed)
    return {
        image: [" ".join(draw.choices(WORDS, k=draw.randint(0, 14))) for _ in range(captions)]
        for image in range(images)
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_cider_equals_pycocoevalcap(seed: int) -> None:
    references, ready = drawn(seed, 60, 1 + seed), None
    for scoring in range(3):  # the references' part is computed once
        hypotheses = drawn(100 + 10 * seed + scoring, 60, 1)
        ready = ready or CiderReferences(references)
        assert ready.scores(hypotheses).mean() == Cider().compute_score(references, hypotheses)[0]


def test_cider_of_the_references_themselves() -> None:
    references = drawn(0, 30, 2)
    same = {image: group[:1] for image, group in references.items()}
    assert CiderReferences(references).scores(same).mean() == Cider().compute_score(references, same)[0]


def entries(table: bytes) -> list[tuple[str, str]]:
    lines = gzip.decompress(table).decode().splitlines()
    return list(zip(lines[1::3], lines[2::3], strict=True))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    pairs = [
        ("a dog", "the hound"),  # the first stands in a caption
        ("the hound", "a dog"),  # the second
        ("dog a", "cat"),  # in another order: neither
        ("t - shirt", "jersey"),  # METEOR may cut the caption's t-shirt so
        ("café", "bar"),
        ("狗", "dog"),  # no ASCII letter is missing
        ("x " * (LONGEST + 1), "y"),  # too long to look up
        ("cats & dogs", "pets"),
        ("lynx", "bobcat"),
    ]
    path = tmp_path / "table.gz"
    path.write_bytes(gzip.compress("".join(f"0.{n}\n{one}\n{two}\n" for n, (one, two) in enumerate(pairs)).encode()))
    return path


def test_pairs_that_no_caption_can_match_are_left_out(table: Path) -> None:
    captions = ["see a dog", "his t-shirt", "un café noir", "cats &amp; dogs"]
    kept = entries(filter_table(table, captions))
    assert kept == [pair for pair in entries(table.read_bytes()) if pair not in (("dog a", "cat"), ("lynx", "bobcat"))]
    assert filter_aside(table, captions) == filter_table(table, captions)


def test_a_table_is_read_whole_in_any_chunks(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = filter_table(table, ["a dog"])
    for size in (1, 7, 64):
        monkeypatch.setattr("imgcap.evaluation.metrics.paraphrases.CHUNK", size)
        assert entries(filter_table(table, ["a dog"])) == entries(whole)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_meteor_equals_that_with_the_whole_table(tmp_path: Path) -> None:
    """Captions with what METEOR's normalisation changes: hyphens, quotes, entities, numbers, other scripts."""
    references = {
        1: ["a man in a t-shirt walks across the street", "the guy 's walking over the road"],
        2: ["cats &amp; dogs ``play'' near 1,000 people", "kittens and puppies are playing close to a crowd"],
        3: ["un café noir on the table", "a cup of black coffee stands upon a desk 狗"],
        4: ["two children are running quickly through the park", "kids run fast in a park"],
    }
    hypotheses = {
        1: ["a person wearing a shirt is walking along the road"],
        2: ["pets play in front of about 1,000 men and women"],
        3: ["a mug of coffee on top of a table 狗"],
        4: ["a couple of kids are jogging in the garden"],
    }
    whole = PARAPHRASES
    part = tmp_path / "part.gz"
    captions = [caption for group in references.values() for caption in group]
    part.write_bytes(filter_aside(whole, captions))
    assert len(part.read_bytes()) < 0.1 * whole.stat().st_size
    assert meteor(references, hypotheses, part) == meteor(references, hypotheses, whole)
    (tmp_path / "none.gz").write_bytes(gzip.compress(b""))
    assert meteor(references, hypotheses, part) != meteor(references, hypotheses, tmp_path / "none.gz")


@pytest.mark.parametrize("size", [1, 5000])
def test_a_java_that_dies_is_a_failure_of_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int) -> None:
    monkeypatch.setattr("imgcap.evaluation.metrics.meteor.find_java", lambda: shutil.which("true"))
    references = {image: ["a dog"] for image in range(size)}
    with pytest.raises(RuntimeError, match="METEOR's Java process failed"):
        meteor(references, references, tmp_path)
