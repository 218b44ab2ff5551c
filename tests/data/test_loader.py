"""The loader: damage never shifts a sample, captions are chosen by key, workers end with their reader."""

import io
import os
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from imgcap.config.data import DataConfig
from imgcap.data.batch import NO_IMAGE
from imgcap.data.dataset import TrainDataset
from imgcap.data.loader import READ_AHEAD, PlanSampler, TrainLoader, reading
from imgcap.data.plan import Accumulation, MicroBatch, Plan
from imgcap.text.vocabulary import Vocabulary
from imgcap.types import Batch, Sample

WORDS = [f"w{i}" for i in range(9)]
VOCABULARY = Vocabulary.build(dict.fromkeys(WORDS, 1), None, 1, "unk")
DATA = DataConfig(image_size=8, captions_per_image=3, max_tokens=4, augment="light")


class Reader:
    """Twelve images with seven captions each, kept in memory; number 5 is damaged."""

    place, manifest = "memory", SimpleNamespace(features=None)

    def __init__(self):
        buffer = io.BytesIO()
        Image.linear_gradient("L").convert("RGB").save(buffer, "JPEG")
        self.jpeg = buffer.getvalue()

    def __len__(self):
        return 12

    def name(self, index):
        return f"{index}.jpg (sample {index} of memory)"

    def read(self, index):
        tokens = [[WORDS[k]] for k in range(7)]
        return Sample(100 + index, f"{index}.jpg", [], tokens, self.jpeg[:300] if index == 5 else self.jpeg)


def batches(workers, start=0, stop=6, data=DATA, rank=0, ranks=1):
    plan = Plan(3, [12], 4, "sha")
    sampler = PlanSampler(plan, rank, ranks, Accumulation(2, 2 // ranks), start, stop)
    return TrainLoader(TrainDataset(Reader(), VOCABULARY, data, 3), sampler, workers, pin_memory=False)


def kept(loader):
    """All batches of a loader, each in memory of its own."""
    return [Batch(*(tensor.clone() for tensor in batch)) for batch in loader]


def test_a_damaged_image_has_no_captions_and_shifts_nobody(capfd):
    sound = {int(i) for batch in batches(0, stop=3) for i in batch.image_ids}
    assert sound == {100 + i for i in range(12) if i != 5} | {NO_IMAGE}
    for batch in batches(0, stop=3):
        for image_id, tokens in zip(batch.image_ids, batch.tokens_BKT, strict=True):
            assert (image_id == NO_IMAGE) == bool((tokens == 0).all())
    assert "skipped: 5.jpg (sample 5 of memory)" in capfd.readouterr().err


@pytest.mark.parametrize(("workers", "augment"), [(1, "light"), (2, "light"), (2, "safe")])
def test_workers_change_nothing(workers, augment):
    data = DATA.model_copy(update={"augment": augment})
    for found, expected in zip(batches(workers, data=data), batches(0, data=data), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("augment", ["light", "strong", "safe"])
def test_ranks_change_no_picture(augment):
    data = DATA.model_copy(update={"augment": augment})

    def pictures(ranks):
        found = set()
        for rank in range(ranks):
            for number, batch in enumerate(batches(0, data=data, rank=rank, ranks=ranks)):
                for image_id, image_CHW in zip(batch.image_ids, batch.images_BCHW, strict=True):
                    if image_id > 0:  # a damaged one's place is taken by one of its own micro-batch
                        found.add((number * ranks // 2, int(image_id), image_CHW.numpy().tobytes()))
        return found

    alone = pictures(1)
    assert alone == pictures(2) and len(alone) == 22


def test_a_resumed_loader_goes_on_where_the_first_would_be():
    for found, expected in zip(batches(0, start=2), kept(batches(0))[4:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_each_epoch_chooses_among_the_captions_anew():
    dataset = TrainDataset(Reader(), VOCABULARY, DATA, 3)

    def captions(epoch):
        (batch,) = dataset.shape(1).allocate(1)
        dataset.write(MicroBatch(np.array([epoch]), np.array([2]), np.array([False])), batch)
        return tuple(batch.tokens_BKT[0, :, 1].tolist())

    chosen = {epoch: captions(epoch) for epoch in range(40)}
    assert all(len(set(rows)) == 3 and list(rows) == sorted(rows) for rows in chosen.values())
    assert len({row for rows in chosen.values() for row in rows}) == 7
    assert chosen[3] == captions(3)


class Directions(Reader):
    """Pictures that are darkest on their left, where one caption of seven says so of the even ones."""

    def read(self, index):
        data = io.BytesIO()
        Image.linear_gradient("L").rotate(90).convert("RGB").save(data, "JPEG")
        tokens = [[WORDS[k]] for k in range(6)] + [["left" if index % 2 == 0 else "top"]]
        return Sample(100 + index, f"{index}.jpg", [], tokens, data.getvalue())


def test_all_captions_of_a_picture_say_whether_safe_mirrors_it_not_only_those_drawn():
    data = DATA.model_copy(update={"augment": "safe", "captions_per_image": 1})
    dataset = TrainDataset(Directions(), VOCABULARY, data, 3)
    (batch,) = dataset.shape(12).allocate(1)
    mirrored = np.zeros(12, int)
    for epoch in range(12):
        dataset.write(MicroBatch(np.full(12, epoch), np.arange(12), np.zeros(12, bool)), batch)
        mirrored += (batch.images_BCHW[:, 0, 4, 1] > batch.images_BCHW[:, 0, 4, -2]).numpy()
    assert (mirrored[::2] == 0).all() and (mirrored[1::2] > 0).all()


def test_workers_end_with_a_reader_that_raises(tmp_path):
    """They ignore SIGTERM, so without care Python would wait for them at exit for ever."""
    script = tmp_path / "raises.py"
    script.write_text(
        textwrap.dedent("""
        import sys
        sys.path.insert(0, sys.argv[1])
        from test_loader import batches, reading
        with reading(batches(2, stop=1000)) as iterator:
            next(iterator)
            raise SystemExit(7)
        """)
    )
    started = time.monotonic()
    folder = str(Path(__file__).parent)
    assert subprocess.run([sys.executable, script, folder], timeout=60).returncode == 7
    assert time.monotonic() - started < 45


def test_reading_needs_no_workers():
    with reading(batches(0)) as iterator:
        assert len(list(iterator)) == 12


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_batch_lives_until_two_steps_more_have_been_taken(workers):
    expected = kept(batches(0, stop=12))
    held = []
    for found, batch in zip(batches(workers, stop=12), expected, strict=True):
        held = [*held[-4:], (found, batch)]  # a step here has two micro-batches
        time.sleep(0.03)  # now the workers are as far ahead as they can be
        assert all(torch.equal(a, b) for pair in held for a, b in zip(*pair, strict=True))


def test_more_workers_than_cores_are_no_warning_of_torchs():
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        batches(len(os.sched_getaffinity(0)) + 1)
    assert not warned


def test_steps_are_told_to_the_prefetch_before_they_are_read():
    for workers, ahead in ((0, 0), (1, READ_AHEAD // 2)):
        told, loader = [], batches(workers)
        loader.prefetch = told.append
        for number, _ in enumerate(loader):
            assert told[-1] == min(number // 2 + ahead, 5)


SMALL_SHARED_MEMORY = """
import sys
from imgcap.data.batch import BatchShape
from imgcap.data.loader import read_ahead, reading
from imgcap.errors import UserError
import torch

try:
    if sys.argv[1] == "ring":
        BatchShape(images=8, image_size=512, captions=5, length=22).allocate(4, shared=True)
    else:
        with reading(read_ahead(lambda key: {"image": torch.zeros(4 << 20), "key": key}, range(3), 1)) as items:
            print(sum(1 for _ in items))
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize(("what", "needed"), [("ring", 24), ("worker", 16)])
def test_shared_memory_that_is_too_small_is_a_line_and_no_hang(what, needed):
    """Docker's default are 64 MB; a worker's batch that didn't fit was once waited for for ever."""
    mount = 'mount -t tmpfs -o size=SIZE tmpfs /dev/shm && exec "$@"'
    program = [sys.executable, "-c", SMALL_SHARED_MEMORY, what]
    if subprocess.run(["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /dev/shm"], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs isn't permitted here")

    def run(size):
        command = ["unshare", "-m", "sh", "-c", mount.replace("SIZE", size), "sh", *program]
        return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120)

    small = run("1m")
    said = f"/dev/shm has 1 MiB free, and the loader's workers need {needed if what == 'worker' else 25} MiB at once"
    assert small.stdout.startswith(said) and "--shm-size=1g" in small.stdout, small
    large = run("256m")
    assert large.stdout == ("" if what == "ring" else "3\n"), large
