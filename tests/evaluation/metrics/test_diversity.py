"""How varied captions are, counted by hand, and against the captions of a train split."""

import shutil
from pathlib import Path

import pytest

from imgcap.evaluation.metrics.diversity import TrainCaptions, diversity, train_split
from imgcap.evaluation.metrics.endings import ends_badly, knows_endings
from imgcap.evaluation.metrics.languages import without_punctuation
from imgcap.shards.builder import build
from imgcap.shards.reader import ShardReader
from imgcap.shards.source import Source
from imgcap.types import Record


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGCAP_CACHE", str(tmp_path / "cache"))


def test_words_and_pairs_counted_by_hand() -> None:
    found = diversity([["a", "dog", "."], ["a", "dog", "runs"], ["a", "cat"]], "en")
    counted = {"distinct-1": 4 / 7, "distinct-2": 3 / 4, "words": 4, "length": pytest.approx(7 / 3)}
    assert found == {**counted, "bad-endings": 0}
    assert diversity([[], ["."]], "fi") == {"distinct-1": 0, "distinct-2": 0, "words": 0, "length": 0}


def test_captions_that_end_in_the_middle_of_a_phrase() -> None:
    ends = ["a man with a", "a man with a .", "a boy looks up", "a dog runs on the", "", "two dogs in"]
    assert [ends_badly(caption.split(), "en") for caption in ends] == [True, True, False, True, True, True]
    assert diversity([caption.split() for caption in ends], "en")["bad-endings"] == 5 / 6
    assert ends_badly(["ein", "mann", "mit", "einem"], "de") and not knows_endings("fi")


@pytest.fixture
def both(tiny: Path, tmp_path: Path) -> ShardReader:
    """A set whose train split has the first five images of `tiny`; opened at its test split, which has the others."""
    reader, records = ShardReader(tiny, "val"), []
    for i in range(len(reader)):
        sample = reader.read(i)
        path = tmp_path / "photos" / sample.file_name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(sample.jpeg)
        records.append(Record(sample.image_id, sample.file_name, path, tuple(f"{text}." for text in sample.captions)))

    class Words:
        name = "words and full stops"

        def __call__(self, caption: str) -> list[str]:
            return caption.lower().replace(".", " .").split()

    build(Source("both", {"train": records[:5], "test": records[5:]}, []), tmp_path / "both", Words())
    return ShardReader(tmp_path / "both", "test")


def test_a_caption_of_the_train_split_is_not_novel(both: ShardReader) -> None:
    train = train_split(both)
    assert train is not None
    known = [tokens for i in range(len(train)) for tokens in train.read_text(i).tokens]
    unsaid = [known[0], [*known[1], "!"], known[2][:-1], known[3][::-1], ["never", "said"]]
    assert diversity(unsaid, "en", TrainCaptions(train))["novel"] == pytest.approx(2 / 5), (
        "punctuation makes nothing new"
    )


def test_hashes_are_made_once_and_never_kept_of_a_damaged_split(both: ShardReader, tmp_path: Path) -> None:
    train = train_split(both)
    assert train is not None
    first, second = (without_punctuation(train.read_text(i).tokens[0]) for i in (0, 1))
    tar = tmp_path / "both" / train.shards[0].file
    data = tar.read_bytes()

    def novelty() -> float:
        return TrainCaptions(ShardReader(tmp_path / "both", "train")).novelty([first, second])

    damaged = data.replace(b'"image_id":100', b'"image_id":900', 1)
    tar.write_bytes(damaged)
    assert novelty() == 0.5, "a damaged caption is left out"
    tar.write_bytes(data)
    assert novelty() == 0, "what was left out of a damaged split is missing for good"
    tar.write_bytes(damaged)
    assert novelty() == 0, "they are on disk"


def test_a_set_without_a_whole_train_split_has_none(both: ShardReader, tiny: Path, tmp_path: Path) -> None:
    assert train_split(ShardReader(tiny, "val")) is None
    shutil.copytree(tmp_path / "both", tmp_path / "part")
    (tmp_path / "part" / "train-00000.tar").unlink()
    assert train_split(ShardReader(tmp_path / "part", "test")) is None
