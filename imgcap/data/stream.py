"""Training on tars without an index, drawn with replacement for ever: for sets too large to index; in no exact order.

webdataset draws the tars, takes them apart and mixes their samples; what a sample becomes is as everywhere else.
"""

import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory
from threading import Thread
from typing import IO, Any

import numpy as np
from torch.utils.data import get_worker_info

from imgcap.config.data import DataConfig
from imgcap.data.augmentation import training_image
from imgcap.data.batch import BatchShape
from imgcap.data.dataset import DAMAGED, CaptionRows, chosen_captions
from imgcap.data.keyed_random import generator
from imgcap.data.loader import read_ahead, reading
from imgcap.data.plan import Accumulation
from imgcap.errors import UserError
from imgcap.files.fetch import fetch, is_address
from imgcap.pictures.opening import UnreadableImage, check_header, decode
from imgcap.shards.foreign import captions_of, image_and_captions
from imgcap.shards.source import image_id_of
from imgcap.text.tokeniser import Tokeniser
from imgcap.text.vocabulary import Vocabulary
from imgcap.types import PAD, Batch

PIPE = "pipe:"
UNREADABLE = (OSError, EOFError, ValueError, tarfile.TarError)  # what a tar that is none, or is cut, raises
LOST = 10  # tars in a row that can't be had or read before the stream gives up
NOT_EXACT = (
    "the order of a stream is not exact: samples are drawn with replacement, and other ranks, other workers or a "
    "resume draw others"
)


@dataclass(frozen=True)
class StreamPlan:
    """The plan of a stream, whose samples nobody knows beforehand; an epoch is as many images as the config states."""

    seed: int
    tars: tuple[str, ...]
    samples: int  # of what is called an epoch
    global_batch: int

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.samples // self.global_batch)

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint says of the stream that it was trained on."""
        place = {"seed": self.seed, "epoch": step // self.steps_per_epoch, "step": step}
        return {"mode": "stream", "exact": False, **place, "global_batch": self.global_batch}

    def check_state(self, state: dict[str, Any]) -> None:
        """Raise `UserError` for the checkpoint of a run whose order was exact, or of another batch size."""
        if state.get("mode") != "stream" or state["global_batch"] != self.global_batch:
            raise UserError(
                "the checkpoint was made with data.mode=index or another train.global_batch; "
                "resume with the same ones, or begin anew with --resume no"
            )


class StreamLoader:
    """Yields the micro-batches of a rank, from step `start` on; each worker draws for itself."""

    def __init__(
        self,
        plan: StreamPlan,
        data: DataConfig,
        vocabulary: Vocabulary,
        accumulation: Accumulation,
        rank: int,
        start: int,
        pin_memory: bool,
    ):
        self.plan, self.data, self.key, self.pin_memory = plan, data, (plan.seed, start, rank), pin_memory
        self.rows = CaptionRows(vocabulary, data)
        self.shape = BatchShape(accumulation.micro_batch, data.image_size, self.rows.captions, self.rows.length)
        self.tokenise = Tokeniser(data.language)

    def __iter__(self) -> Iterator[Batch]:
        stream = copy(self)  # it has drawn nothing yet
        with reading(read_ahead(stream._draw, count(), self.data.workers, self.pin_memory)) as batches:
            yield from batches

    def _draw(self, number: int) -> Batch:
        """Draw the next micro-batch, whatever its number, in a worker or the only process."""
        return next(self._batches)

    @cached_property
    def _batches(self) -> Iterator[Batch]:
        worker = get_worker_info()
        return self._drawn((*self.key, worker.id if worker else 0))

    def _drawn(self, key: tuple[int, ...]) -> Iterator[Batch]:
        import webdataset  # here and below: most runs have no stream

        random = generator(*key)
        drawn = webdataset.ResampledShards(
            list(self.plan.tars), deterministic=True, worker_seed=lambda: int(random.integers(1 << 62))
        )
        shuffle = webdataset.shuffle(self.data.stream_buffer, seed=int(random.integers(1 << 62)))
        samples = enumerate(shuffle(_samples(tar["url"] for tar in drawn)))
        while True:
            (batch,) = self.shape.allocate(1)
            images_BHWC, tokens_BKT = batch.images_BCHW.permute(0, 2, 3, 1).numpy(), batch.tokens_BKT.numpy()
            batch.tokens_BKT.fill_(PAD)
            place = 0
            while place < self.shape.images:
                number, sample = next(samples)
                try:
                    self._write(sample, (*key, number), images_BHWC[place], tokens_BKT[place])
                except (*DAMAGED, UnreadableImage) as error:
                    _tell(f"sample {sample['__key__']} of {sample['__url__']}: {error}")
                    continue
                batch.image_ids[place] = image_id_of(f"{sample['__url__']}/{sample['__key__']}")
                place += 1
            yield batch

    def _write(
        self, members: dict[str, Any], key: tuple[int, ...], image_HWC: np.ndarray, tokens_KT: np.ndarray
    ) -> None:
        image, described = image_and_captions(members)
        check_header(members[image])
        tokens = [words for words in map(self.tokenise, captions_of(members[described], described)) if words]
        if not tokens:
            raise ValueError("image without captions")
        picture = decode(members[image], self.data.image_size)
        training_image(picture, self.data, tokens, key, image_HWC)
        self.rows.write(tokens, tokens_KT, chosen_captions(len(tokens), self.rows.captions, key))


def check_tars(tars: list[str], pipes: bool) -> tuple[str, ...]:
    """Raise `UserError` for a `pipe:`, which runs a command of the shell, unless `pipes` allows it."""
    piped = next((tar for tar in tars if tar.startswith(PIPE)), None)
    if piped and not pipes:
        raise UserError(f"{piped!r} would run a command; if that is meant, set data.pipes=true")
    return tuple(tars)


def _samples(tars: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Yield the samples of tar after tar; what can't be had or read is named on stderr and left out."""
    from webdataset import tariterators

    lost = 0
    with TemporaryDirectory() as folder:
        for tar, path, failure in _ahead(tars, Path(folder)):
            try:
                if failure:
                    raise failure
                with _opened(tar, path) as file:
                    opened = tariterators.tar_file_expander(iter([{"url": tar, "stream": file}]))
                    yield from tariterators.group_by_keys(opened)
                lost = 0
            except (UserError, *UNREADABLE) as error:
                lost += 1
                reason = error.args[0] if error.args else error  # webdataset adds more behind it
                _tell(f"{tar}, or what is left of it: {reason}")
                if lost >= LOST:
                    raise UserError(f"{lost} tars in a row could not be read, the last was {tar}: {reason}") from None


def _ahead(tars: Iterator[str], folder: Path) -> Iterator[tuple[str, Path | None, UserError | None]]:
    """Yield each tar with its path or why it is not there; the next one is fetched while one is read.

    The thread is one that nobody waits for: a process that ends leaves a fetch unfinished.
    """
    fetched: Queue[tuple[str, Path | None, UserError | None]] = Queue(maxsize=1)

    def fetch_all() -> None:
        for number, tar in enumerate(tars):
            try:
                fetched.put((tar, _fetched(tar, folder / str(number)), None))
            except UserError as error:
                fetched.put((tar, None, error))
            except OSError:  # the folder is no more: the reader has left
                return

    Thread(target=fetch_all, name="tars ahead", daemon=True).start()
    while True:
        yield fetched.get()


def _fetched(tar: str, path: Path) -> Path | None:
    """Bring a tar to this machine and return its path; None for one that comes out of a pipe."""
    if tar.startswith(PIPE):
        return None
    if is_address(tar):
        fetch(tar, path)
        return path
    return Path(tar)


@contextmanager
def _opened(tar: str, path: Path | None) -> Iterator[IO[bytes]]:
    if path is None:
        command = tar.removeprefix(PIPE)
        with subprocess.Popen(command, shell=True, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                yield process.stdout
            except UNREADABLE:
                if not process.wait():
                    raise
        if process.returncode:
            raise UserError(f"it ended with exit code {process.returncode}")
        return
    try:
        with path.open("rb") as file:
            yield file
    finally:
        if is_address(tar):
            path.unlink(missing_ok=True)


def _tell(what: str) -> None:
    print(f"skipped: {what}", file=sys.stderr, flush=True)
