"""Drawing what a shard set holds for people: samples, lengths and words of captions, and images that come twice.

Dimensions: N images of a split.
"""

import io
from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, StrMethodFormatter
from PIL import Image, ImageDraw

from imgcap.errors import UserError
from imgcap.files.durable import sha256_of_bytes
from imgcap.files.fetch import Unreachable
from imgcap.pictures.lettering import font, wrap, write
from imgcap.pictures.normalise import within
from imgcap.pictures.opening import decode
from imgcap.pictures.sheet import draw_sheet
from imgcap.ranks.progress import Progress
from imgcap.shards.manifest import Manifest
from imgcap.shards.place import Place
from imgcap.shards.reader import ShardReader

MIN_COUNTS = (1, 2, 3, 5)  # of a word, to be in the vocabulary
NEAR = 6  # bits of 128 at most in which the perceptual hashes of one picture differ
SHOWN = 12  # samples of a sheet, and pairs
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # of splits; apart for every sort of eye (Okabe and Ito)
_CHUNK = 2048  # images compared at once


@dataclass
class SplitFacts:
    """Counts over a split; `places_N` are its sound samples, and `hash_N2` their perceptual hashes, uint64."""

    images: int = 0
    lengths: Counter[int] = field(default_factory=Counter)  # words of a caption -> captions
    words: Counter[str] = field(default_factory=Counter)
    bytes_sha256: list[str] = field(default_factory=list)
    hash_N2: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.uint64))
    places_N: list[int] = field(default_factory=list)
    damaged: int = 0


@dataclass(frozen=True)
class DuplicatePair:
    """Samples of two splits that look alike; `bits` of their hashes differ, and `exact` ones have the same bytes."""

    split: str
    place: int
    other_split: str
    other_place: int
    bits: int
    exact: bool


def inspect(place: Place, out: Path, seed: int = 0, limit: int | None = None) -> dict[str, Any]:
    """Draw sheets and plots of a set into the folder `out`, and return the numbers; `limit` is of images a split."""
    manifest = Manifest.load(place)
    readers = {split: ShardReader(place, split) for split in manifest.splits}
    facts = {split: _look_at(reader, limit) for split, reader in readers.items()}
    out.mkdir(parents=True, exist_ok=True)
    for split, reader in readers.items():
        if facts[split].images:
            _draw_samples(reader, facts[split].places_N, seed).save(out / f"samples-{split}.png")
    _draw_plots(next(iter(readers.values())).manifest.name, facts).save(out / "captions.png")
    pairs = _duplicates(facts)
    if pairs:
        _draw_pairs(readers, pairs[:SHOWN]).save(out / "twice.png")
    return {
        "skipped": manifest.skipped_json(),
        "splits": {split: _numbers(found) for split, found in facts.items()},
        "unknown_words": _unknown(facts),
        "twice": {
            "exact": sum(pair.exact for pair in pairs),
            "alike": sum(not pair.exact for pair in pairs),
            "pairs": [vars(pair) for pair in pairs[:SHOWN]],
        },
    }


def _look_at(reader: ShardReader, limit: int | None) -> SplitFacts:
    facts, hashes = SplitFacts(), []
    count = min(len(reader), limit or len(reader))
    with Progress(count, f"looking at {reader.split}") as progress:
        for i in range(count):
            progress.advance()
            try:
                sample = reader.read(i)
                hashes.append(perceptual_hash(sample.jpeg))
            except Unreachable:
                raise
            except (UserError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                progress.say(f"sample {i} of {reader.split} is damaged: {error}")
                facts.damaged += 1
                continue
            facts.images += 1
            facts.places_N.append(i)
            facts.bytes_sha256.append(sha256_of_bytes(sample.jpeg))
            for tokens in sample.tokens:
                facts.lengths[len(tokens)] += 1
                facts.words.update(tokens)
    facts.hash_N2 = np.array(hashes, np.uint64).reshape(-1, 2)
    return facts


def perceptual_hash(data: bytes) -> tuple[int, int]:
    """Hash a picture to twice 64 bits: where it gets brighter from left to right, and downwards (difference hash)."""
    small = np.asarray(decode(data).convert("L").resize((9, 9), Image.Resampling.BILINEAR), np.int16)
    across, down = np.diff(small[:8], axis=1) > 0, np.diff(small[:, :8], axis=0) > 0
    return _as_number(across), _as_number(down)


def _as_number(bits: np.ndarray) -> int:
    return int.from_bytes(np.packbits(bits.ravel()).tobytes(), "big")


def _duplicates(facts: dict[str, SplitFacts]) -> list[DuplicatePair]:
    """Find pairs of samples in different splits, the most alike first."""
    pairs = []
    for (split, mine), (other, theirs) in combinations(facts.items(), 2):
        for start in range(0, len(mine.hash_N2), _CHUNK):
            some_N2 = mine.hash_N2[start : start + _CHUNK]
            bits_NM = sum(np.bitwise_count(some_N2[:, None, half] ^ theirs.hash_N2[:, half]) for half in (0, 1))
            for row, column in np.argwhere(bits_NM <= NEAR):
                exact = mine.bytes_sha256[start + row] == theirs.bytes_sha256[column]
                mine_at, theirs_at = mine.places_N[start + row], theirs.places_N[column]
                pairs.append(DuplicatePair(split, mine_at, other, theirs_at, int(bits_NM[row, column]), exact))
    return sorted(pairs, key=lambda pair: (not pair.exact, pair.bits))


def _unknown(facts: dict[str, SplitFacts]) -> dict[str, dict[str, float]]:
    """Compute which share of each other split's words a vocabulary made of train lacks, by its `min_count`."""
    if "train" not in facts:
        return {}
    known = facts["train"].words

    def share(words: Counter[str], least: int) -> float:
        return sum(count for word, count in words.items() if known[word] < least) / max(words.total(), 1)

    others = {split: found.words for split, found in facts.items() if split != "train"}
    return {split: {str(n): round(share(words, n), 5) for n in MIN_COUNTS} for split, words in others.items()}


def _numbers(facts: SplitFacts) -> dict[str, Any]:
    captions = facts.lengths.total()
    lengths = sorted(facts.lengths.elements())
    return {
        "images": facts.images,
        "damaged": facts.damaged,
        "captions": captions,
        "words": facts.words.total(),
        "different_words": len(facts.words),
        "median_length": lengths[captions // 2] if lengths else 0,
        "longest": lengths[-1] if lengths else 0,
    }


def _draw_samples(reader: ShardReader, places: list[int], seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    cards = []
    for i in sorted(random.permutation(places)[:SHOWN].tolist()):
        sample = reader.read(i)
        cards.append((decode(sample.jpeg), sample.file_name, sample.captions))
    about = "Bold: the file's name; below it, what people wrote."
    return draw_sheet(
        cards, f"{reader.manifest.name}, split {reader.split}: {len(cards)} of {len(places):,} images", about
    )


def _draw_pairs(readers: dict[str, ShardReader], pairs: list[DuplicatePair]) -> Image.Image:
    cards = []
    for pair in pairs:
        first, second = readers[pair.split].read(pair.place), readers[pair.other_split].read(pair.other_place)
        joined = Image.new("RGB", (524, 260), "white")
        for column, sample in enumerate((first, second)):
            shown = within(decode(sample.jpeg), 260)
            joined.paste(shown, (264 * column + (260 - shown.width) // 2, (260 - shown.height) // 2))
        names = [f"{pair.split}: {first.file_name}", f"{pair.other_split}: {second.file_name}"]
        cards.append((joined, "the same bytes" if pair.exact else f"{pair.bits} bits of 128 differ", names))
    about = "Each pair stands side by side; a model that has learned from one of them knows the other."
    return draw_sheet(cards, f"{len(cards)} images that are in two splits", about)


def shares_by_length(lengths: Counter[int]) -> tuple[list[int], list[float]]:
    """The lengths from the least to the greatest, each with its share of all captions, also where that is 0."""
    every = list(range(min(lengths), max(lengths) + 1)) if lengths else []
    return every, [lengths[length] / lengths.total() for length in every]


def _draw_plots(name: str, facts: dict[str, SplitFacts]) -> Image.Image:
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(11, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.set_prop_cycle(color=COLOURS)
        right.set_prop_cycle(color=COLOURS)
        for split, found in facts.items():
            left.plot(*shares_by_length(found.lengths), label=split)
            ranked = sorted(found.words.values(), reverse=True)
            right.loglog(range(1, len(ranked) + 1), ranked, label=split)
        figure.suptitle(f"{name}: captions of {', '.join(facts)}", x=0.01, ha="left", fontsize=13, fontweight="bold")
        left.set(title="How long captions are", xlabel="words of a caption", ylabel="share of the split's captions")
        left.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        right.set(title="How often words occur", xlabel="words, the most frequent first", ylabel="times in the split")
        left.legend()
        for axes in (left, right):
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        for axis in (right.xaxis, right.yaxis):
            axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        drawn = io.BytesIO()
        figure.savefig(drawn, dpi=110)
    split, found = next(iter(facts.items()))
    commonest = ", ".join(word for word, _ in found.words.most_common(12))
    return _with_line(decode(drawn.getvalue()), f"The most frequent of {split}: {commonest}")


def _with_line(plots: Image.Image, text: str) -> Image.Image:
    """Write a text below the plots; older versions of matplotlib would draw Arabic in single letters."""
    lettering, margin = font(13), 16
    sheet = Image.new("RGB", (plots.width, plots.height + 2 * margin), "white")
    sheet.paste(plots, (0, 0))
    line = wrap(text, lettering, plots.width - 2 * margin)[0]
    write(ImageDraw.Draw(sheet), (margin, plots.height), plots.width, line, lettering, "black")
    return sheet
