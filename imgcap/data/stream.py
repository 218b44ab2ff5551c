"""Training on tars without an index, drawn with replacement for ever: for sets too large to index; in no exact order.

webdataset draws the tars and mixes their samples; what a sample is and becomes is as everywhere else.
"""

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np
from torch.utils.data import get_worker_info

from imgcap.config.data import DataConfig
from imgcap.data.augmentation import training_image
from imgcap.data.batch import BatchShape
from imgcap.data.dataset import DAMAGED, CaptionRows, chosen_captions
from imgcap.data.drawn_tars import PIPE, DrawnTars
from imgcap.data.keyed_random import generator
from imgcap.data.loader import read_ahead, reading
from imgcap.data.plan import Accumulation
from imgcap.errors import UserError
from imgcap.pictures.opening import UnreadableImage, decode
from imgcap.shards.sample import tokenised
from imgcap.shards.source import Skipped, image_id_of
from imgcap.shards.tar_samples import TarSample
from imgcap.text.tokeniser import Tokeniser
from imgcap.text.vocabulary import Vocabulary
from imgcap.types import PAD, Batch

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
        import webdataset  # most runs have no stream

        random = generator(*key)
        drawn = webdataset.ResampledShards(
            list(self.plan.tars), deterministic=True, worker_seed=lambda: int(random.integers(1 << 62))
        )
        shuffle = webdataset.shuffle(self.data.stream_buffer, seed=int(random.integers(1 << 62)))
        tars = DrawnTars(len(self.plan.tars))
        samples = enumerate(shuffle(tars.samples(tar["url"] for tar in drawn)))
        while True:
            (batch,) = self.shape.allocate(1)
            images_BHWC, tokens_BKT = batch.images_BCHW.permute(0, 2, 3, 1).numpy(), batch.tokens_BKT.numpy()
            batch.tokens_BKT.fill_(PAD)
            place = 0
            while place < self.shape.images:
                number, (tar, sample) = next(samples)
                try:
                    self._write(sample, (*key, number), images_BHWC[place], tokens_BKT[place])
                except (*DAMAGED, UnreadableImage) as error:
                    tars.leave_out(tar, sample.key, str(error))
                    continue
                batch.image_ids[place] = image_id_of(f"{tar}/{sample.key}")
                place += 1
            yield batch

    def _write(self, sample: TarSample, key: tuple[int, ...], image_HWC: np.ndarray, tokens_KT: np.ndarray) -> None:
        skipped: list[Skipped] = []
        _, tokens = tokenised(sample.captions, sample.key, self.tokenise, skipped)
        if not tokens:
            raise ValueError(skipped[0].reason)
        training_image(decode(sample.data, self.data.image_size), self.data, tokens, key, image_HWC)
        self.rows.write(tokens, tokens_KT, chosen_captions(len(tokens), self.rows.captions, key))


def check_tars(tars: list[str], pipes: bool) -> tuple[str, ...]:
    """Raise `UserError` for a `pipe:`, which runs a command of the shell, unless `pipes` allows it."""
    piped = next((tar for tar in tars if tar.startswith(PIPE)), None)
    if piped and not pipes:
        raise UserError(f"{piped!r} would run a command; if that is meant, set data.pipes=true")
    return tuple(tars)
