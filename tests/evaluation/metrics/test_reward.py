"""Rewards equal pycocoevalcap's scores of the same tokens; what they are counted from is shared, never mixed up."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider

from imgcap.config.training import REWARDED
from imgcap.data.batch import NO_IMAGE, PADDING
from imgcap.errors import UserError
from imgcap.evaluation.metrics import known_references, reward
from imgcap.evaluation.metrics.cider import CiderReferences
from imgcap.evaluation.metrics.reward import Rewards
from imgcap.shards.reader import ShardReader
from imgcap.shards.token_counts import TokenCounts
from imgcap.text.vocabulary import Vocabulary
from imgcap.types import EOS, PAD, UNK, Sample

ALL = dict.fromkeys(REWARDED, 1.0)
FEW = [UNK, *range(4, 14)]
ALIKE = [4, 4 + (1 << 16), 4 + (1 << 17), 5, 5 + (1 << 16), 4 + (1 << 31)]  # equal in 16 or 31 bits

Captions = list[list[int]]


def drawn(seed: int, words: list[int], captions: int, longest: int = 14) -> Captions:
    """Captions of 0 words, 1 word and so on, in which words repeat."""
    draw = np.random.default_rng(seed)
    return [draw.choice(words, draw.integers(longest + 1)).tolist() for _ in range(captions)]


def padded(captions: Captions, cut: int = 16) -> np.ndarray:
    """Rows of captions with <eos> where there is room for it, then <pad>."""
    rows = np.full((len(captions), cut), PAD)
    for row, caption in zip(rows, captions, strict=True):
        kept = [*caption, EOS][:cut]
        row[: len(kept)] = kept
    return rows


def theirs(references: list[Captions], hypotheses: Captions, end_token: bool, cut: int = 16) -> dict[str, np.ndarray]:
    """The scores by pycocoevalcap of a hypothesis for each image, as text."""

    def text(caption: list[int], length: int | None = None) -> str:
        return " ".join(map(str, [*caption, EOS][:length] if end_token else caption[:length]))

    gts = {place: [text(caption) for caption in group] for place, group in enumerate(references)}
    res = {place: [text(caption, cut)] for place, caption in enumerate(hypotheses)}
    bleu = Bleu(4).compute_score(gts, res, verbose=0)[1]
    scores = {"CIDEr": Cider().compute_score(gts, res)[1]}
    return scores | {f"BLEU-{n}": np.array(values) for n, values in enumerate(bleu, start=1)}


def assert_equal(ours: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert ours.keys() == expected.keys()
    assert (ours["CIDEr"] == expected["CIDEr"]).all()  # to the last bit
    for name in REWARDED:
        np.testing.assert_allclose(ours[name], expected[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("end_token", [True, False])
@pytest.mark.parametrize("words", [FEW, ALIKE], ids=["few", "alike"])
@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_pycocoevalcap(seed: int, words: list[int], end_token: bool) -> None:
    references = [drawn(100 * seed + image, words, 1 + (seed + image) % 6) for image in range(50)]
    rewards = Rewards.of_references(references, ALL, end_token)
    samples = [drawn(1000 + 10 * seed + sample, [*words, 77, 78], 50) for sample in range(3)]  # 77: in no reference
    samples[0][:3] = [[], words[:1], [words[0]] * 14]
    expected = [theirs(references, captions, end_token) for captions in samples]
    images = np.random.default_rng(seed).permutation(np.repeat(np.arange(50), 3))  # several samples of an image
    turn = [int((images[:place] == image).sum()) for place, image in enumerate(images)]
    captions = padded([samples[sample][image] for image, sample in zip(images, turn, strict=True)])
    picked = {
        name: np.array([expected[sample][name][image] for image, sample in zip(images, turn, strict=True)])
        for name in REWARDED
    }
    assert_equal(rewards.scores(images, captions), picked)
    assert (rewards(images, captions) == sum(rewards.scores(images, captions).values())).all()


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("left_out", range(5))
def test_scores_of_all_flickr8k_equal_pycocoevalcap(real_data: Path, left_out: int) -> None:
    """Each caption against the four others of its image."""
    file = real_data / "flickr8k" / "captions.txt"
    if not file.exists():
        pytest.skip("no Flickr8k here")
    numbers: dict[str, int] = {}
    images: dict[str, Captions] = {}
    for line in file.read_text().splitlines()[1:]:
        name, _, caption = line.partition(",")
        ids = [numbers.setdefault(word, len(numbers) + 4) for word in caption.lower().split()]
        images.setdefault(name, []).append(ids)
    groups = [group for group in images.values() if len(group) == 5]
    assert len(groups) >= 6000
    hypotheses = [group[left_out] for group in groups]
    references = [group[:left_out] + group[left_out + 1 :] for group in groups]
    longest = max(map(len, hypotheses)) + 1
    ours = Rewards.of_references(references, ALL).scores(np.arange(len(groups)), padded(hypotheses, longest))
    assert_equal(ours, theirs(references, hypotheses, True, longest))


def test_cider_of_a_single_image_is_0() -> None:
    rewards = Rewards.of_references([[[4, 5, 6, 7, 8]]], {"CIDEr": 1.0})
    assert rewards(np.array([0, 0]), padded([[4, 5, 6, 7, 8], [9]])).tolist() == [0.0, 0.0]


@pytest.mark.filterwarnings("error")
def test_nothing_in_common_and_nothing_at_all() -> None:
    rewards = Rewards.of_references([[[]], [[], []]], ALL, end_token=False)  # there is no n-gram
    assert rewards(np.array([0, 1, 1]), np.array([[4, 5], [4, EOS], [EOS, PAD]])).max() < 1e-5
    rewards = Rewards.of_references([[[4]], [[5]]], ALL, end_token=False)
    assert rewards(np.array([0, 1]), np.array([[6, 7], [EOS, PAD]])).max() < 1e-5
    assert rewards(np.array([NO_IMAGE, PADDING]), np.array([[4], [5]])).tolist() == [0, 0]
    assert (CiderReferences({1: [""], 2: ["a"]}).scores({1: [""], 2: [""]}) == 0).all()


def test_a_caption_ends_at_its_first_eos_and_has_none_where_it_was_cut() -> None:
    rewards = Rewards.of_references([[[4, 5, 6]], [[7, 8]]], ALL)
    captions = np.array([[4, 5, 6, EOS, PAD], [4, 5, 6, EOS, 9], [4, 5, 6, PAD, 9], [4, 5, 6, 6, 6]])
    whole, same, without, cut = rewards(np.zeros(4, np.int64), captions)
    assert whole == same > without > cut
    bare = Rewards.of_references([[[4, 5, 6]], [[7, 8]]], ALL, end_token=False)
    assert bare(np.zeros(2, np.int64), captions[1:3]).tolist() == pytest.approx(
        [bare(np.zeros(1, int), captions[:1])[0]] * 2
    )
    assert len(rewards(np.zeros(0, np.int64), captions[:0])) == 0


def test_a_long_caption_changes_nothing_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    references = [drawn(image, FEW, 2) for image in range(30)]
    captions = padded([*drawn(99, FEW, 29), FEW * 60], 700)
    rewards = Rewards.of_references(references, ALL)
    together = rewards(np.arange(30), captions)
    monkeypatch.setattr(known_references, "_PAIRS", 1)  # each by itself
    assert (rewards(np.arange(30), captions) == together).all()
    with ThreadPoolExecutor(2) as pool:
        halves = pool.map(lambda half: rewards(np.arange(30)[half], captions[half]), (slice(15), slice(15, 30)))
    assert (np.concatenate(list(halves)) == together).all()


def test_images_go_by_their_ids() -> None:
    references = [drawn(image, FEW, 3) for image in range(20)]
    captions = padded(drawn(99, FEW, 20))
    expected = Rewards.of_references(references, ALL)(np.arange(20), captions)
    ids = np.random.default_rng(0).permutation(1 << 20)[:20] << 32
    rewards = Rewards.of_references(references, ALL, image_ids=ids.tolist())
    assert (rewards(ids, captions) == expected).all()
    ids[3], ids[7] = NO_IMAGE, PADDING  # damaged, padding
    expected[[3, 7]] = 0
    assert (rewards(ids, captions) == expected).all()
    with pytest.raises(AssertionError, match="without references"):
        rewards(ids + 1, captions)


def test_weights() -> None:
    references, images, captions = (
        [drawn(image, FEW, 3) for image in range(20)],
        np.arange(20),
        padded(drawn(9, FEW, 20)),
    )
    scores = Rewards.of_references(references, ALL).scores(images, captions)
    mixed = Rewards.of_references(references, {"BLEU-4": 0.5, "CIDEr": 2, "BLEU-1": 0})
    assert mixed.weights == {"CIDEr": 2.0, "BLEU-4": 0.5}
    assert (mixed(images, captions) == 2 * scores["CIDEr"] + 0.5 * scores["BLEU-4"]).all()


def test_the_digest_is_that_of_the_document_frequencies() -> None:
    references = [drawn(image, FEW, 3) for image in range(20)]
    digest = Rewards.of_references(references, {"CIDEr": 1}).digest
    turned = [group[::-1] for group in references[::-1]]
    assert Rewards.of_references(turned, {"CIDEr": 2.0, "BLEU-4": 0.5}).digest == digest
    others = [
        Rewards.of_references(references, {"CIDEr": 1}, end_token=False),
        Rewards.of_references([*references, [[4]]], {"CIDEr": 1}),
        Rewards.of_references([[[4], *references[0]], *references[1:]], {"CIDEr": 1}),
    ]
    assert len({digest, *(other.digest for other in others)}) == 3 + (others[2].digest != digest)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IMGCAP_CACHE", str(tmp_path))
    return tmp_path / "rewards"


@pytest.fixture
def words(shards: Path) -> Vocabulary:
    return Vocabulary.build(TokenCounts.load(shards).counts)


@pytest.fixture
def reader(shards: Path) -> ShardReader:
    return ShardReader(shards, "train")


def own_captions(reader: ShardReader, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """The ids of a split's images, and of each one's first caption the words and <eos>."""
    samples = [reader.read_text(place) for place in range(len(reader))]
    captions = [vocabulary.encode(sample.tokens[0]) for sample in samples]
    return np.array([sample.image_id for sample in samples]), padded(captions, max(map(len, captions)) + 1)


def never(*_: object) -> None:
    raise AssertionError("it was counted again")


def test_a_split_s_references_are_counted_once(
    cache: Path, reader: ShardReader, words: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [reader.read_text(place) for place in range(len(reader))]
    references = [[words.encode(caption) for caption in sample.tokens] for sample in samples]
    asked = own_captions(reader, words)
    by_hand = Rewards.of_references(references, ALL, image_ids=[sample.image_id for sample in samples])
    first = Rewards.of_split([reader], words, ALL)
    assert first.digest == by_hand.digest and (first(*asked) == by_hand(*asked)).all()
    monkeypatch.setattr(reward, "count_references", never)
    second = Rewards.of_split([reader], words, {"CIDEr": 1})
    assert (second(*asked) == first.scores(*asked)["CIDEr"]).all()
    if sys.platform == "linux":  # of the file's own pages, which all processes share
        assert ".safetensors" in Path("/proc/self/maps").read_text()
    smaller = Vocabulary(words.words[:-1])
    for other in ((smaller, True), (words, False)):
        with pytest.raises(AssertionError, match="counted again"):
            Rewards.of_split([reader], other[0], ALL, end_token=other[1])


def test_a_damaged_file_is_made_again(cache: Path, reader: ShardReader, words: Vocabulary) -> None:
    asked = own_captions(reader, words)
    expected = Rewards.of_split([reader], words, ALL)(*asked)
    (file,) = cache.glob("*.safetensors")
    data = file.read_bytes()
    for damaged in (data[:-1] + bytes([data[-1] ^ 1]), data[: len(data) // 2], data[:5], b""):
        file.unlink()
        file.write_bytes(damaged)
        assert (Rewards.of_split([reader], words, ALL)(*asked) == expected).all()
        assert file.read_bytes() == data


def test_images_of_negative_ids_are_rewarded() -> None:
    references = [drawn(image, FEW, 3) for image in range(3)]
    rewards = Rewards.of_references(references, ALL, image_ids=[-1, -7, 5])
    captions = padded([group[0] for group in references], 12)
    assert (rewards(np.array([-1, -7, 5]), captions) > 0).all()
    assert (rewards(np.array([NO_IMAGE, PADDING, 5]), captions) > 0).tolist() == [False, False, True]


def test_a_sample_that_is_damaged_gives_no_references(
    cache: Path,
    reader: ShardReader,
    words: Vocabulary,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, captions = own_captions(reader, words)
    whole, read = Rewards.of_split([reader], words, ALL, end_token=False), reader.read_text
    kept = set(cache.glob("*.safetensors"))

    def damaged(place: int) -> Sample:
        if place == 3:
            raise UserError("sample 3 is damaged")
        return read(place)

    monkeypatch.setattr(reader, "read_text", damaged)
    found = Rewards.of_split([reader], words, ALL)
    assert "1 of the train split's samples are damaged and give no references" in capsys.readouterr().err
    others = np.arange(len(images)) != 3
    assert (found(images[others], captions[others]) > 0).all() and found.digest != whole.digest
    assert set(cache.glob("*.safetensors")) == kept, "what isn't whole is for nobody else"


PROCESS = """
import os, signal, sys, time
from imgcap.evaluation.metrics import reward
from imgcap.files import durable
from imgcap.shards.reader import ShardReader
from imgcap.text.vocabulary import Vocabulary

shards, vocabulary, way = sys.argv[1:]
counted = reward.count_references


def count(*given):
    print("counted", flush=True)
    time.sleep(1)
    return counted(*given)


reward.count_references = count
if way == "killed":
    durable.rename = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
found = reward.Rewards.of_split([ShardReader(shards, "train")], Vocabulary.load(vocabulary), {"CIDEr": 1})
print(found.digest)
"""


def started(shards: Path, vocabulary: Path, way: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROCESS, str(shards), str(vocabulary), way]
    return subprocess.Popen(command, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True)


def test_of_two_processes_at_once_one_counts(cache: Path, shards: Path, words: Vocabulary, tmp_path: Path) -> None:
    words.save(tmp_path / "vocab.json")
    both = [started(shards, tmp_path / "vocab.json", "whole") for _ in range(2)]
    lines = [process.communicate(timeout=120)[0].split() for process in both]
    assert sorted(map(len, lines)) == [1, 2] and lines[0][-1] == lines[1][-1]


def test_killed_while_writing(
    cache: Path, shards: Path, reader: ShardReader, words: Vocabulary, tmp_path: Path
) -> None:
    words.save(tmp_path / "vocab.json")
    process = started(shards, tmp_path / "vocab.json", "killed")
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert [file.suffix for file in cache.iterdir() if file.suffix != ".lock"] == [".tmp"]
    Rewards.of_split([reader], words, ALL)
    assert sorted(file.suffix for file in cache.iterdir()) == [".lock", ".safetensors"]


def test_without_a_cache_each_process_counts(
    cache: Path,
    reader: ShardReader,
    words: Vocabulary,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = Rewards.of_split([reader], words, ALL)(*own_captions(reader, words))
    file = cache.parent / "file"
    file.touch()
    for folder in (file, cache.parent / "full"):
        if folder is not file:
            folder.mkdir()
            monkeypatch.setattr("imgcap.files.durable.rename", no_room)
        monkeypatch.setenv("IMGCAP_CACHE", str(folder))
        rewards = Rewards.of_split([reader], words, ALL)
        assert (rewards(*own_captions(reader, words)) == expected).all()
        assert "set IMGCAP_CACHE to a folder with room" in capsys.readouterr().err
    assert [left.suffix for left in (cache.parent / "full" / "rewards").iterdir()] == [".lock"]


def no_room(*_: object, **__: object) -> None:
    raise OSError(28, os.strerror(28))


def test_only_the_newest_files_are_kept(
    cache: Path, reader: ShardReader, words: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reward, "KEPT", 2)
    asked = own_captions(reader, words)
    first = Rewards.of_split([reader], words, ALL)
    expected = first(*asked)
    for size in range(1, 4):
        Rewards.of_split([reader], Vocabulary(words.words[:-size]), ALL)
    assert len(list(cache.glob("*.safetensors"))) == 2
    assert (first(*asked) == expected).all()  # its file is gone, what it maps isn't


def test_splits_that_give_no_reward(cache: Path, reader: ShardReader, shards: Path) -> None:
    spelled = Vocabulary.build(TokenCounts.load(shards).counts, oov="characters")
    with pytest.raises(UserError, match=r"set vocab\.oov=unk"):
        Rewards.of_split([reader], spelled, ALL)
    words = Vocabulary.build(TokenCounts.load(shards).counts)
    with pytest.raises(UserError, match=r"two images of .* have the id \d+"):
        Rewards.of_split([reader, reader], words, ALL)
