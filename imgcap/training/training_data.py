"""What a run trains on: one shard set, several, or a stream of tars."""

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from imgcap.config.data import DataConfig, VocabConfig
from imgcap.data.dataset import TrainDataset, place_of
from imgcap.data.loader import PlanSampler, TrainLoader
from imgcap.data.mirror_words import MIRROR_WORDS, knows_directions
from imgcap.data.mixture import MixedReader, Share, mixture_sha256, refuse_other_features
from imgcap.data.plan import Accumulation, Plan
from imgcap.data.prefetch import block_of_cache, prefetching
from imgcap.data.stream import NOT_EXACT, PIPE, StreamLoader, StreamPlan, check_tars
from imgcap.errors import UserError, needs
from imgcap.ranks.world import World
from imgcap.shards.foreign import expand
from imgcap.shards.reader import ShardReader
from imgcap.shards.token_counts import TokenCounts
from imgcap.text.vocabulary import Vocabulary
from imgcap.types import SPECIAL_TOKENS, Batch

_MUCH_UNKNOWN = 0.05  # of the words as they stand in the captions


@dataclass(frozen=True)
class TrainingData:
    """The plan of a run's samples, and the words in them. `first` is the set that the run is evaluated on."""

    first: ShardReader
    counts: TokenCounts
    plan: Plan | StreamPlan
    load: Callable[[Vocabulary, Accumulation, int, int], Iterable[Batch]]  # from one step to another
    readers: Sequence[ShardReader] = ()  # of the images trained on; none of a stream

    def file_names(self, image_ids: Sequence[int]) -> list[str]:
        """Name images by their files, for people; by their numbers where no set has them. It reads all captions."""
        names = dict.fromkeys(image_ids, "")
        for reader in self.readers if names else ():
            with suppress(UserError):  # a damaged sample
                for sample in map(reader.read_text, range(len(reader))):
                    if sample.image_id in names:
                        names[sample.image_id] = sample.file_name
        return [name or f"image {image_id}" for image_id, name in names.items()]


def open_training_data(data: DataConfig, global_batch: int, seed: int, world: World, watched: str) -> TrainingData:
    """Open all that `data` names; `watched` is the split that is evaluated. UserError for what lacks or doesn't fit."""
    first = open_shards(data, data.shards, "train")
    _refuse_unwatched(first, watched)
    _tell_of_mirrors(data, world)
    if data.mode == "stream":
        return _stream(data, global_batch, seed, first, world)
    others = [open_shards(data, address, "train") for address in data.also]
    readers = [first, *others]
    if data.features:
        refuse_other_features(readers)
    counts = TokenCounts()
    for reader in readers:
        counts.update(TokenCounts.load(reader.place))
    remote = max(sum(reader.is_remote for reader in readers), 1)
    block, *other_blocks = (data.block or block_of_cache(reader, remote) for reader in readers)
    weights = list(data.also.values())
    shares = tuple(
        Share(tuple(reader.shard_counts), max(round(weight * len(reader)), 1), other_block)
        for reader, weight, other_block in zip(others, weights, other_blocks, strict=True)
    )
    identity = mixture_sha256(
        first.manifest_sha256, {reader.manifest_sha256: weight for reader, weight in zip(others, weights, strict=True)}
    )
    plan = Plan(seed, first.shard_counts, global_batch, identity, block, shares)
    source = MixedReader(readers) if others else first

    def load(vocabulary: Vocabulary, accumulation: Accumulation, start: int, stop: int) -> Iterable[Batch]:
        dataset = TrainDataset(source, vocabulary, data, seed)
        prefetch = prefetching(readers, plan, world.local_rank)
        sampler = PlanSampler(plan, world.rank, world.world_size, accumulation, start, stop)
        return TrainLoader(dataset, sampler, data.workers, world.device.type == "cuda", prefetch)

    return TrainingData(first, counts, plan, load, readers)


def _stream(data: DataConfig, global_batch: int, seed: int, first: ShardReader, world: World) -> TrainingData:
    assert data.stream is not None, "the schema sees to it"
    needs("data.mode=stream", "webdataset")
    tars = check_tars(expand([data.stream], others=(PIPE,)), data.pipes)
    plan = StreamPlan(seed, tars, data.stream_epoch, global_batch)
    if world.is_main:
        print(f"{len(tars)} tars: {NOT_EXACT}", file=sys.stderr, flush=True)

    def load(vocabulary: Vocabulary, accumulation: Accumulation, start: int, stop: int) -> Iterable[Batch]:
        return StreamLoader(plan, data, vocabulary, accumulation, world.rank, start, world.device.type == "cuda")

    return TrainingData(first, TokenCounts.load(first.place), plan, load)


def _refuse_unwatched(first: ShardReader, split: str) -> None:
    """Raise `UserError` for a set without the split that training is evaluated on."""
    splits = first.manifest.splits
    if split not in splits:
        raise UserError(
            f"{first.place} has no split {split!r}, which training is evaluated on; build it again with imgcap build "
            f"... --{split if split in ('val', 'test') else 'val'} 0.1 --force, or set eval.split to one that it has "
            f"({', '.join(splits)})"
        )


def _tell_of_mirrors(data: DataConfig, world: World) -> None:
    """Say on stderr where no picture is mirrored, as nobody knows how the captions' language says left and right."""
    if world.is_main and data.augment == "safe" and not knows_directions(data.language):
        print(
            f"data.augment=safe mirrors no picture: there are words for left and right in {', '.join(MIRROR_WORDS)} "
            f"only, and data.language is {data.language!r}",
            file=sys.stderr,
            flush=True,
        )


def warn_of_unknown(vocabulary: Vocabulary, counts: TokenCounts, config: VocabConfig, world: World) -> None:
    """Say on stderr where the vocabulary leaves many of the train split's words out."""
    share, words = vocabulary.unknown_share(counts.counts), len(vocabulary) - len(SPECIAL_TOKENS)
    if world.is_main and share > _MUCH_UNKNOWN and vocabulary.oov == "unk":
        limits = f"vocab.min_count={config.min_count}"
        limits += f", vocab.size={config.size} make" if config.size else " makes"
        mend = f"lower vocab.min_count (1 keeps all){' or raise vocab.size' if config.size else ''}"
        print(
            f"warning: {limits} {share:.1%} of the words in train <unk>, {words:,} of {len(counts.counts):,} "
            f"different ones are left; {mend}",
            file=sys.stderr,
            flush=True,
        )


def open_shards(data: DataConfig, address: str, split: str) -> ShardReader:
    """Open a split of one of a configuration's sets; UserError where it is of another language, or empty."""
    reader = ShardReader(place_of(data, address), split)
    built_for, asked = reader.manifest.settings.language, data.language
    if built_for != asked:
        raise UserError(
            f"{address} was tokenised as language {built_for!r}, and data.language is {asked!r}; "
            "set data.language, or build the shards with --language"
        )
    if not len(reader):
        raise UserError(f"split {split} of {address} has no samples; build it from more images")
    return reader
