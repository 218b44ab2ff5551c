"""The rewards of captions that a model draws for images of its train split, over word ids.

CIDEr-D and BLEU of each caption against its image's references, as pycocoevalcap computes them of the same tokens.
With <eos> among these, as a word of its own: without it a caption is best cut behind "with a" (Rennie et al. 2017).

Dimensions: N captions, L their longest length, I images.
"""

import contextlib
import json
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from imgcap.config.training import BLEU, REWARDED
from imgcap.data.batch import counts
from imgcap.data.dataset import DAMAGED
from imgcap.errors import UserError, is_main_process
from imgcap.evaluation.metrics.bleu import bleu_of_counts, compared_counts
from imgcap.evaluation.metrics.cider import cider_d
from imgcap.evaluation.metrics.known_references import KnownReferences, frequencies_hash, known_arrays
from imgcap.evaluation.metrics.ngrams import Texts
from imgcap.files.arrays import map_arrays, write_arrays
from imgcap.files.cache import cache_root
from imgcap.files.fetch import Unreachable
from imgcap.files.kept import content_hash
from imgcap.files.locks import Lock
from imgcap.ranks.progress import say, telling
from imgcap.shards.reader import ShardReader
from imgcap.text.vocabulary import Vocabulary
from imgcap.types import EOS, PAD

FORMAT = b"rewards 1"  # of what is kept on disk; part of its name
KEPT = 4  # files; the ones made longest ago go first

Captions = Sequence[Sequence[int]]  # the word ids of each


class Rewards:
    """The rewards of captions of known images. Any number of threads may ask at once."""

    def __init__(self, arrays: Mapping[str, np.ndarray], weights: Mapping[str, float], end_token: bool):
        """Take arrays of `count_references`; the other arguments are those of `of_references`."""
        self.weights = {name: float(weights[name]) for name in REWARDED if weights.get(name)}
        assert self.weights and weights.keys() <= set(REWARDED), f"no reward by {weights}"
        self.end_token = end_token
        self._known = KnownReferences(arrays)
        self._order_I = np.argsort(arrays["image_ids"])
        self._ids_I = arrays["image_ids"][self._order_I]
        self.digest = content_hash(FORMAT, arrays["frequencies_hash"].tobytes())  # of the document frequencies alone

    @classmethod
    def of_references(
        cls,
        references: Iterable[Captions],
        weights: Mapping[str, float],
        end_token: bool = True,
        image_ids: Sequence[int] | None = None,
    ) -> "Rewards":
        """Take the captions of each image as word ids, without special tokens but <unk>.

        `weights` are those of REWARDED that a reward is the sum of. With `end_token` <eos> is a word behind each
        caption, also in document frequencies. Images go by their place where they have no ids.
        """
        references = list(references)
        return cls(
            count_references(zip(image_ids or range(len(references)), references, strict=True), end_token),
            weights,
            end_token,
        )

    @classmethod
    def of_split(
        cls,
        readers: Sequence[ShardReader],
        vocabulary: Vocabulary,
        weights: Mapping[str, float],
        end_token: bool = True,
    ) -> "Rewards":
        """Take the references of shard sets' splits, and go by their images' ids; see `of_references`.

        What is counted lies in the folder `rewards` of imgcap's cache, in a file named by the hash of the sets'
        manifests and the words: made by the first process that asks, mapped by all of its machine. Samples whose
        captions are damaged, which training skips, have none; what is counted without them isn't kept. Raises UserError
        for a vocabulary that spells, and for an id that two images have.
        """
        if vocabulary.oov != "unk":
            raise UserError(
                "a reward counts whole words, and the vocabulary spells those that it lacks; set vocab.oov=unk"
            )

        words = json.dumps(vocabulary.words).encode()
        sets = [f"{reader.manifest_sha256} {reader.split}".encode() for reader in readers]
        name = content_hash(FORMAT, words, b"%d" % end_token, *sets)
        path = cache_root() / "rewards" / f"{name}.safetensors"
        damaged: list[str] = []
        images = _images(readers, vocabulary, damaged)
        arrays = _shared(path, lambda: count_references(images, end_token), is_whole=lambda: not damaged)
        if damaged and is_main_process():
            say(
                f"warning: {len(damaged):,} of the train split's samples are damaged and give no references, which "
                f"moves all rewards a little (the first: {damaged[0]}); imgcap verify names them"
            )
        return cls(arrays, weights, end_token)

    def __call__(self, images_N: np.ndarray, captions_NL: np.ndarray) -> np.ndarray:
        """Reward captions of images, by the images' ids: float64, shape (N,); 0 of what is no image.

        A caption is word ids up to the first <eos> or <pad>. One without <eos>, cut at its greatest length, has none.
        """
        scores = self.scores(images_N, captions_NL)
        return sum((weight * scores[name] for name, weight in self.weights.items()), np.zeros(len(images_N)))

    def scores(self, images_N: np.ndarray, captions_NL: np.ndarray) -> dict[str, np.ndarray]:
        """Score captions by each metric that has a weight; see `__call__`."""
        scores = {name: np.zeros(len(images_N)) for name in self.weights}
        counting = np.flatnonzero(counts(images_N))
        places = self._places(images_N[counting])
        for some, compared in self._known.comparisons(places, self._texts(captions_NL[counting])):
            if "CIDEr" in scores:
                scores["CIDEr"][counting[some]] = cider_d(self._known, compared)
            if scores.keys() - {"CIDEr"}:
                bleu_NO = bleu_of_counts(compared_counts(self._known, compared))
                for order, name in enumerate(BLEU):
                    if name in scores:
                        scores[name][counting[some]] = bleu_NO[:, order]
        return scores

    def _places(self, images_N: np.ndarray) -> np.ndarray:
        found = np.minimum(np.searchsorted(self._ids_I, images_N), len(self._ids_I) - 1)
        assert (self._ids_I[found] == images_N).all(), "captions are of images without references"
        return self._order_I[found]

    def _texts(self, captions_NL: np.ndarray) -> Texts:
        ends = (captions_NL == EOS) | (captions_NL == PAD)
        lengths_N = np.where(ends.any(axis=1), ends.argmax(axis=1), captions_NL.shape[1])
        if self.end_token:
            lengths_N += (captions_NL == EOS)[np.arange(len(ends)), np.minimum(lengths_N, captions_NL.shape[1] - 1)]
        return Texts(captions_NL[np.arange(captions_NL.shape[1]) < lengths_N[:, None]], lengths_N)


def count_references(images: Iterable[tuple[int, Captions]], end_token: bool) -> dict[str, np.ndarray]:
    """Count the captions of images, each with its id."""
    words, lengths, captions, ids = array("q"), array("q"), array("q"), array("q")
    for image_id, group in images:
        ids.append(image_id)
        captions.append(len(group))
        for caption in group:
            words.extend(caption)
            if end_token:
                words.append(EOS)
            lengths.append(len(caption) + end_token)
    texts = Texts(np.frombuffer(words, np.int64), np.frombuffer(lengths, np.int64))
    arrays = known_arrays(texts, np.frombuffer(captions, np.int64)) | {"image_ids": np.array(ids, np.int64)}
    return arrays | {"frequencies_hash": np.frombuffer(frequencies_hash(arrays).encode(), np.uint8)}


def _images(
    readers: Sequence[ShardReader], vocabulary: Vocabulary, damaged: list[str]
) -> Iterator[tuple[int, Captions]]:
    """Read the captions of images with their ids; what `damaged` ones are called goes there."""
    seen: set[int] = set()
    for reader in readers:
        for number in range(len(reader)):
            try:
                sample = reader.read_text(number)
            except Unreachable:
                raise
            except DAMAGED as error:
                damaged.append(str(error))
                continue
            if sample.image_id in seen:
                raise UserError(
                    f"two images of {' and '.join(str(reader.place) for reader in readers)} have the id "
                    f"{sample.image_id} ({sample.file_name} is the second), so that captions of one would be rewarded "
                    "for the other's; build the set again with ids of its own, or leave it out of data.also"
                )
            seen.add(sample.image_id)
            yield sample.image_id, [vocabulary.encode(caption) for caption in sample.tokens]


def _shared(
    path: Path, count: Callable[[], dict[str, np.ndarray]], is_whole: Callable[[], bool]
) -> dict[str, np.ndarray]:
    """Map the arrays kept in a file, or count them and keep them there.

    In memory of one's own where that fails, or where what was counted isn't whole.
    """
    if (kept := map_arrays(path)) is not None:
        return kept
    with contextlib.ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(Lock(path.with_suffix(".lock")))
        except OSError as error:
            _tell_of_own_memory(path.parent, error)
            return count()
        if (kept := map_arrays(path)) is not None:  # another process has just counted
            return kept
        for left in path.parent.glob(f"{path.name}.*.tmp"):  # by one that was killed
            left.unlink(missing_ok=True)
        with telling("counting the n-grams of the references"):
            counted = count()
        if not is_whole():
            return counted
        try:
            write_arrays(path, counted)
            _keep_newest(path.parent)
        except OSError as error:
            _tell_of_own_memory(path.parent, error)
            return counted
    return map_arrays(path) or counted


def _tell_of_own_memory(folder: Path, error: OSError) -> None:
    print(
        f"warning: what rewards are computed from can't be kept in {folder} ({error.strerror or error}), and each "
        "process has it in its own memory; set IMGCAP_CACHE to a folder with room",
        file=sys.stderr,
        flush=True,
    )


def _keep_newest(folder: Path) -> None:
    """Remove the files made longest ago; who has one mapped keeps it."""
    made = sorted(folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime, reverse=True)
    for old in made[KEPT:]:
        old.unlink(missing_ok=True)
