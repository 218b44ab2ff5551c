"""How varied captions are: different words and pairs of words, lengths, and captions that training never showed.

Words are the tokens that the model reads and writes, without punctuation.
"""

from collections.abc import Collection, Iterable, Iterator
from hashlib import blake2b
from itertools import pairwise

import numpy as np

from imgcap.errors import UserError
from imgcap.evaluation.metrics.endings import ends_badly, knows_endings
from imgcap.evaluation.metrics.languages import without_punctuation
from imgcap.files.kept import cached, content_hash
from imgcap.shards.reader import ShardReader


def diversity(captions: Collection[list[str]], language: str, train: "TrainCaptions | None" = None) -> dict[str, float]:
    """Measure how varied captions, as tokens, are.

    `distinct-1` and `distinct-2` (Li et al. 2016) are the different n-grams as a share of all, `words` those that are
    used, `length` in words on average, `bad-endings` the share that ends in the middle of a phrase (in a language whose
    function words are known), and `novel` the share that no caption of `train` equals.
    """
    worded = [without_punctuation(tokens) for tokens in captions]
    pairs = [pair for words in worded for pair in pairwise(words)]
    single = [word for words in worded for word in words]
    found = {
        "distinct-1": len(set(single)) / max(len(single), 1),
        "distinct-2": len(set(pairs)) / max(len(pairs), 1),
        "words": len(set(single)),
        "length": len(single) / max(len(worded), 1),
    }
    if knows_endings(language):
        found["bad-endings"] = sum(ends_badly(words, language) for words in worded) / max(len(worded), 1)
    return found | ({"novel": train.novelty(worded)} if train is not None else {})


class TrainCaptions:
    """The captions of a train split, as hashes of 8 bytes each: made once for a shard set, and then kept on disk.

    Those of a split with damaged samples aren't kept: mended, it has the same manifest.
    """

    def __init__(self, reader: ShardReader):
        self._reader = reader

    def novelty(self, captions: Collection[list[str]]) -> float:
        """Share of captions, as words, that training never showed."""
        name = f"captions-{content_hash(b'2', self._reader.manifest_sha256.encode(), self._reader.split.encode())}.bin"
        damaged: list[int] = []
        known = np.frombuffer(cached(name, lambda: self._hashes(damaged), is_whole=lambda: not damaged), np.uint64)
        return 1 - float(np.isin(_hashes(captions), known).mean()) if captions else 0.0

    def _hashes(self, damaged: list[int]) -> bytes:
        return np.unique(_hashes(without_punctuation(tokens) for tokens in self._captions(damaged))).tobytes()

    def _captions(self, damaged: list[int]) -> Iterator[list[str]]:
        """Read the captions; the places of samples that can't be read, which training left out too, go to `damaged`."""
        for i in range(len(self._reader)):
            try:
                tokens = self._reader.read_text(i).tokens
            except UserError:
                damaged.append(i)
            else:
                yield from tokens


def train_split(reader: ShardReader) -> ShardReader | None:
    """The train split of the same set, None unless it lies whole on this machine."""
    try:
        train = ShardReader(reader.place, "train")
    except UserError:
        return None
    return None if train.is_remote else train


def _hashes(captions: Iterable[list[str]]) -> np.ndarray:
    digests = (blake2b(" ".join(words).encode(), digest_size=8).digest() for words in captions)
    return np.fromiter((int.from_bytes(digest, "little") for digest in digests), np.uint64)
