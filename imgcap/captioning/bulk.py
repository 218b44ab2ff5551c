"""Caption all of an input on any number of ranks, behind what earlier calls have done.

Batches are composed by the order of the input alone. A rank takes the next one that nobody has taken, so no rank
waits for another before the end, and a caption is computed in the same company by whomever.
"""

import hashlib
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from imgcap.captioning.batch import caption_pictures, say_empty
from imgcap.captioning.inputs import Inputs, Item
from imgcap.captioning.journal import Journal, Row
from imgcap.config.data import DataConfig
from imgcap.config.decoding import SHARED, DecodeOptions
from imgcap.data.augmentation import eval_image
from imgcap.data.loader import read_ahead, reading
from imgcap.decoding.generate import check_room
from imgcap.errors import UserError
from imgcap.models.trained import LoadedCaptioner
from imgcap.pictures.opening import on_one_line
from imgcap.ranks.collectives import SharedCounter, from_main, gather_objects
from imgcap.ranks.progress import Progress
from imgcap.ranks.watchdog import doing
from imgcap.ranks.world import World, say_without_gpu

SCORE_DIGITS = 4  # the last bits depend on how many threads shared a product


@dataclass(frozen=True)
class Summary:
    """How a captioning call ended: `captioned` and `skipped` of the whole input, `images_per_s` of this call."""

    images: int
    captioned: int
    skipped: int
    images_per_s: float


class _Work(NamedTuple):
    """Work as rank 0 tells it to the others: the number of this start, and what is left, in batches of places."""

    start: int
    pending: list[list[int]]

    @property
    def images(self) -> int:
        return sum(map(len, self.pending))


def caption_all(
    loaded: LoadedCaptioner, inputs: Inputs, out: Path, world: World, capital: bool = False
) -> Summary | None:
    """Write a row for each picture of `inputs` into `out` (.jsonl or .csv), in their order; every rank calls it.

    Beam, batch, precision and loader are those of the captioner's configuration; with `capital` captions begin with
    one. A picture that can't be read is named on stderr and in `OUT.summary.json`, and has no row; a later call tries
    it again. Returns None where `out` is finished already. Raises `UserError` where the configuration leaves no
    caption, where `out` was begun with other settings, and where no picture could be read.
    """
    config = loaded.config
    check_room(DecodeOptions.like_evaluation(config.eval), loaded.vocabulary, config.data.max_tokens)
    journal = Journal(out)
    settings = {**inputs.identity, **_settings(loaded), "capital": capital}
    work = from_main(lambda: _prepare(journal, inputs, settings, config.eval.batch))
    if work is None:
        return None
    say_without_gpu(world, "captioning")
    journal.open(work.start, world.rank)
    began = time.perf_counter()
    _caption(loaded, inputs, work, journal, world, capital)
    gather_objects(None)  # all ranks are done
    images_per_s = work.images / max(time.perf_counter() - began, 1e-9)
    return from_main(lambda: _finish(journal, inputs, settings, images_per_s))


def _settings(loaded: LoadedCaptioner) -> dict[str, Any]:
    """All settings that decide a caption, apart from the picture."""
    digest = hashlib.sha256(" ".join(loaded.vocabulary.words).encode())
    for name, tensor in sorted(loaded.model.state_dict().items()):
        digest.update(name.encode() + tensor.float().cpu().contiguous().numpy().tobytes())
    config = loaded.config
    return {
        "weights": digest.hexdigest()[:16],
        **{name: getattr(config.eval, name) for name in SHARED},
        "unk": bool(config.eval.unk),
        "max_tokens": config.data.max_tokens,
        "image_size": config.data.image_size,
        "interpolation": config.data.interpolation,
        "batch": config.eval.batch,
        "precision": config.train.precision,
    }


def _prepare(journal: Journal, inputs: Inputs, settings: dict[str, Any], batch: int) -> _Work | None:
    if not journal.begin(settings, len(inputs)):
        return None
    # One that was skipped may have been mended since.
    done = {key for key, row in journal.read().items() if "caption" in row}
    places = range(len(inputs))
    batches = [places[start : start + batch] for start in places[::batch]]
    left = [[i for i in batch if inputs.key(i) not in done] for batch in batches]
    work = _Work(journal.next_start(), [batch for batch in left if batch])
    if work.start:
        finished = len(inputs) - work.images
        print(f"{journal.out}: {finished} of {len(inputs)} images are done already", file=sys.stderr, flush=True)
    return work


def _caption(
    loaded: LoadedCaptioner, inputs: Inputs, work: _Work, journal: Journal, world: World, capital: bool
) -> None:
    """Caption this rank's share of the work, batch by batch as it comes."""
    data, label = loaded.config.data, f"{journal.folder}/{work.start}"
    claims = _claims(work.pending, SharedCounter(f"{label} claimed"))
    loader = read_ahead(partial(_read, inputs, data), claims, min(data.workers, len(work.pending)))
    everywhere, told = SharedCounter(f"{label} done"), 0
    bar = Progress(work.images, "captioning", enabled=world.is_main)
    with reading(loader) as batches, bar as progress:
        for items in batches:
            doing("captioning")
            journal.append(_captioned(loaded, items, capital))
            done = everywhere.add(len(items))
            progress.advance(done - told)
            told = done


def _captioned(loaded: LoadedCaptioner, items: dict[str, Item], capital: bool) -> dict[str, Row]:
    """Caption a batch and return its rows. The one place that decodes."""
    sound = [item.picture for item in items.values() if item.picture is not None]
    options = DecodeOptions.like_evaluation(loaded.config.eval)
    found = iter(caption_pictures(loaded, sound, options, capital=capital) if sound else ())
    rows: dict[str, Row] = {}
    for key, item in items.items():
        if item.picture is None:
            rows[key] = item.columns | {"skipped": item.reason}
        else:
            captioned = next(found)
            rows[key] = item.columns | {"caption": captioned.caption, "score": round(captioned.score, SCORE_DIGITS)}
    return rows


def _finish(journal: Journal, inputs: Inputs, settings: dict[str, Any], images_per_s: float) -> Summary:
    found = journal.read()
    rows = [found[inputs.key(i)] for i in range(len(inputs))]
    captioned = [row for row in rows if "caption" in row]
    skipped = {row["image"]: row["skipped"] for row in rows if "skipped" in row}
    for name, reason in skipped.items():
        print(f"skipped: {on_one_line(name)}: {reason}", file=sys.stderr, flush=True)
    if not captioned:
        raise UserError("no image could be read; see the reasons above")
    say_empty([str(row["caption"]) for row in captioned])
    summary = Summary(len(rows), len(captioned), len(skipped), round(images_per_s, 1))
    journal.finish(captioned, {**asdict(summary), "skipped": skipped, **settings})
    return summary


def _claims(pending: list[list[int]], claimed: SharedCounter) -> Iterator[list[int]]:
    """Pending batches that this rank is the first to claim."""
    while (number := claimed.add(1) - 1) < len(pending):
        yield pending[number]


def _read(inputs: Inputs, data: DataConfig, places: list[int]) -> dict[str, Item]:
    """Read the items of a batch, by their keys, squeezed to what the model reads."""
    return {inputs.key(i): _squeezed(inputs.read(i, data.image_size), data) for i in places}


def _squeezed(item: Item, data: DataConfig) -> Item:
    if item.picture is None:
        return item
    pixels_HWC = eval_image(item.picture, data.image_size, data.interpolation).permute(1, 2, 0).numpy()
    return item._replace(picture=Image.fromarray(pixels_HWC))
