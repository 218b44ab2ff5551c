"""A shard set with the frozen encoder's features beside its pictures, so that training no longer runs the encoder.

Shard for shard and sample for sample it is the set that it was made from, so the order of training is the same.
"""

import dataclasses
import json
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path

import torch
from PIL import Image

from imgcap.config.run import Config
from imgcap.data.augmentation import eval_image
from imgcap.data.dataset import place_of
from imgcap.errors import UserError
from imgcap.files.durable import sha256_of_bytes, write_hashed
from imgcap.files.locks import alone_in
from imgcap.models.encoders.base import Encoder
from imgcap.models.encoders.weights import load_pretrained
from imgcap.models.precision import autocast, set_float32_matmul
from imgcap.models.trained import load_captioner
from imgcap.pictures.opening import decode
from imgcap.ranks.collectives import gather_objects, on_main
from imgcap.ranks.progress import Progress
from imgcap.ranks.world import World
from imgcap.shards.manifest import MANIFEST_NAME, TOKEN_COUNTS_NAME, Features, Manifest
from imgcap.shards.reader import ShardReader
from imgcap.shards.sample import EncodedSample
from imgcap.shards.writer import FinishedShard, ShardWriter, save_split
from imgcap.types import Sample

RECORDS = ".caching"  # of the shards that are finished; a later call goes on behind them
Finished = dict[tuple[str, int], FinishedShard]  # by split and number


def encoder_of(config: Config, device: torch.device) -> Encoder:
    """The encoder with which a run of this configuration begins."""
    if config.init_from is not None:
        return load_captioner(config.init_from, device).model.encoder
    torch.manual_seed(config.seed)
    encoder = Encoder(config.model.encoder)
    load_pretrained(encoder, config.model.encoder.weights)
    return encoder.to(device).eval()


def describe(encoder: Encoder, image_size: int, interpolation: str) -> Features:
    shape = encoder.cells(image_size), encoder.width
    return Features(shape, encoder.made_by, encoder.sha256(), image_size, interpolation)


def check_features(features: Features, encoder: Encoder | None, config: Config) -> None:
    """Refuse features that are not those that this encoder (none: not known yet) would give in training."""
    where = f"the features in {config.data.shards}"
    otherwise = "or set data.features=false to read the pictures"
    if config.model.encoder.train != "none" or config.train.unfreeze:
        raise UserError(
            f"{where} are of a frozen encoder; set model.encoder.train=none and train.unfreeze={{}}, {otherwise}"
        )
    if config.data.augment != "off":
        raise UserError(f"{where} are of pictures as they are; set data.augment=off, {otherwise}")
    if encoder is not None and features.encoder_sha256 != encoder.sha256():
        raise UserError(
            f"{where} are of another encoder ({features.encoder}, other weights): make them again with "
            f"imgcap cache-features, {otherwise}"
        )


def cache_features(config: Config, out: Path, world: World, batch: int = 64) -> Manifest | None:
    """Write the set of `config.data.shards` into the folder `out`, with features; the manifest on rank 0.

    Each rank makes some of the shards. A call that was stopped goes on behind the shards that are finished.
    """
    with ExitStack() as held:
        on_main(lambda: _begin(out, held))
        return _cache_features(config, out, world, batch)


def _begin(out: Path, held: ExitStack) -> None:
    """Take a folder that holds nothing, or what an earlier call has begun; `UserError` for any other."""
    if (out / MANIFEST_NAME).exists():
        raise UserError(f"{out} holds a shard set already; choose another --out, or remove it first")
    if not (out / RECORDS).exists() and (tar := next(out.glob("*.tar"), None)):
        raise UserError(f"{out} holds {tar.name}, which is not of a set of features; choose another --out")
    (out / RECORDS).mkdir(parents=True, exist_ok=True)
    held.enter_context(alone_in(out, "cache-features"))


def _cache_features(config: Config, out: Path, world: World, batch: int) -> Manifest | None:
    set_float32_matmul(config.train.precision)
    encoder = encoder_of(config, world.device)
    features = describe(encoder, config.data.image_size, config.data.interpolation)
    source = ShardReader(place_of(config.data), "train").manifest
    splits = {split: ShardReader(place_of(config.data), split) for split in source.splits}
    tasks = [(split, number) for split, reader in splits.items() for number in range(len(reader.shards))]
    mine = tasks[world.rank :: world.world_size]
    finished: Finished = {}
    images = sum(splits[split].shard_counts[number] for split, number in mine)
    share = f" (rank 0's share of {world.world_size})" if world.world_size > 1 else ""
    with Progress(images, f"encoding into {out}{share}", enabled=world.is_main) as progress:
        for split, number in mine:
            task = _Task(config, encoder, features, splits[split], out, world.device, batch, progress)
            finished[split, number] = task.shard(number)
    everyone = gather_objects(finished)
    if everyone is None:
        return None
    return _finish(out, source, splits, {name: shard for part in everyone for name, shard in part.items()}, features)


@dataclasses.dataclass(frozen=True)
class _Task:
    config: Config
    encoder: Encoder
    features: Features
    reader: ShardReader
    out: Path
    device: torch.device
    batch: int
    progress: Progress

    def shard(self, number: int) -> FinishedShard:
        """Write one shard, or take over the one that an earlier call wrote with the same encoder."""
        name = f"{self.reader.split}-{number:05d}.tar"
        record = self.out / RECORDS / f"{name}.{self._made_from()}.json"
        kept = FinishedShard.load(record, self.out)
        if kept is not None:
            self.progress.advance(self.reader.shard_counts[number])
            return kept
        first = sum(self.reader.shard_counts[:number])
        writer = ShardWriter(self.out, name, number, first)
        try:
            end = first + self.reader.shard_counts[number]
            for start in range(first, end, self.batch):
                places = range(start, min(start + self.batch, end))
                self._write([self.reader.read(i) for i in places], places, writer)
                self.progress.advance(len(places))
        except BaseException:
            writer.discard()
            raise
        shard = writer.finish(first + writer.samples)
        shard.save(record)
        return shard

    def _decoded(self, sample: Sample) -> Image.Image:
        try:
            return decode(sample.jpeg, self.features.image_size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(
                f"the image of {sample.file_name} in {self.reader.place} can't be decoded ({error}); take it out "
                "of the raw data and build the shards again"
            ) from None

    def _made_from(self) -> str:
        """A hash of all that decides the bytes of a shard."""
        features, precision = self.features, self.config.train.precision
        decided = f"{self.reader.manifest_sha256} {features.encoder_sha256} {features.image_size} {precision}"
        decided += "" if features.interpolation == "bilinear" else f" {features.interpolation}"
        return sha256_of_bytes(decided.encode())[:32]

    @torch.no_grad()
    def _write(self, samples: list[Sample], places: range, writer: ShardWriter) -> None:
        features = self.features
        images = torch.stack(
            [eval_image(self._decoded(sample), features.image_size, features.interpolation) for sample in samples]
        )
        with autocast(self.device, self.config.train.precision):
            features_BPE = self.encoder(images.to(self.device)).half().cpu()
        for sample, place, features_PE in zip(samples, places, features_BPE, strict=True):
            described = {name: getattr(sample, name) for name in ("image_id", "file_name", "captions", "tokens")}
            document = json.dumps(described, separators=(",", ":")).encode()
            fp16 = features_PE.contiguous().numpy().tobytes()
            writer.write(place, EncodedSample(sample.jpeg, document, sample.tokens, fp16=fp16))


def _finish(
    out: Path, source: Manifest, splits: dict[str, ShardReader], finished: Finished, features: Features
) -> Manifest:
    infos = {}
    for split, reader in splits.items():
        infos[split] = save_split(out, split, [finished[split, number] for number in range(len(reader.shards))])
    counts_sha256 = None
    with suppress(FileNotFoundError):
        counts = next(iter(splits.values())).place.read(TOKEN_COUNTS_NAME)
        counts_sha256 = write_hashed(out / TOKEN_COUNTS_NAME, counts)
    manifest = dataclasses.replace(source, splits=infos, token_counts_sha256=counts_sha256, features=features)
    manifest.save(out)
    shutil.rmtree(out / RECORDS, ignore_errors=True)
    return manifest
