"""Building a shard set beside what no build can do without: decoding each image and tokenising each caption once."""

import argparse
import io
import multiprocessing
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

from PIL import Image

from imgcap.bench.timing import Row, alternate, row
from imgcap.shards import Source, build
from imgcap.shards.source import image_id_of
from imgcap.shards.sources import SourceOptions, read_source
from imgcap.text import Tokeniser
from imgcap.types import Record


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", type=Path, help="the photos of Flickr8k")
    parser.add_argument("captions", type=Path, help="its captions; the lists of splits lie beside them")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--large", type=int, default=120_000, help="images of five captions, to measure memory with")


def bench_build(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a build without --resize and of bare processes, and the memory of a large build."""
    options = SourceOptions(images=arguments.images, captions=(arguments.captions,), splits=arguments.captions.parent)
    source = read_source("flickr8k", options)
    records = [record for split in source.splits.values() for record in split]
    runs: dict[str, Callable[[], float]] = {
        "bare decoding and tokenising": lambda: _bare(records, arguments.processes),
        "build": lambda: _built(source, arguments.processes),
    }
    seconds = alternate(runs, arguments.repeats)
    rows: list[Row] = [row(name, values, len(records), "images") for name, values in seconds.items()]
    bare, built = (statistics.median(values) for values in seconds.values())
    large = _large(records, arguments.large)
    return {"rows": rows, "ratio": round(built / bare, 3), **_memory(large, arguments.processes)}


def _bare(records: list[Record], processes: int) -> float:
    """Timed once the processes are there and have loaded what they need."""
    with multiprocessing.get_context("fork").Pool(processes, _load) as pool:
        pool.map(_ready, range(processes), chunksize=1)
        began = time.perf_counter()
        pool.map(_decode_and_tokenise, records, chunksize=64)
        return time.perf_counter() - began


_tokenise: Callable[[str], list[str]]


def _load() -> None:
    global _tokenise
    _tokenise = Tokeniser("en")


def _ready(_: int) -> None:
    time.sleep(0.5)


def _decode_and_tokenise(record: Record) -> int:
    Image.open(io.BytesIO(record.path.read_bytes())).convert("RGB")
    return sum(len(_tokenise(caption)) for caption in record.captions)


def _built(source: Source, processes: int) -> float:
    with TemporaryDirectory() as folder:
        began = time.perf_counter()
        build(source, Path(folder) / "set", Tokeniser("en"), workers=processes)
        return time.perf_counter() - began


def _large(records: list[Record], images: int) -> Source:
    """A source of so many images, which are those of `records` over and over under other names."""
    many = []
    for number in range(images):
        record = records[number % len(records)]
        name = f"{number:012d}.jpg"
        captions = tuple(f"{caption} {number}" for caption in record.captions)
        many.append(Record(image_id_of(name), name, record.path, captions))
    return Source("large", {"train": many}, [])


def _memory(source: Source, processes: int) -> dict[str, int]:
    """MiB of the process that writes, before and at most, and of one that encodes."""
    import psutil

    me, over = psutil.Process(), Event()
    before = me.memory_info().rss
    peaks = {"writer": before, "encoder": 0}

    def watch() -> None:
        while not over.wait(0.5):
            peaks["writer"] = max(peaks["writer"], me.memory_info().rss)
            with suppress(psutil.NoSuchProcess):
                peaks["encoder"] = max([peaks["encoder"], *(child.memory_info().rss for child in me.children())])

    watching = Thread(target=watch, daemon=True)
    watching.start()
    _built(source, processes)
    over.set()
    watching.join()
    return {
        "images_of_the_large_build": sum(map(len, source.splits.values())),
        "writer_mib_before": before // 2**20,
        "writer_mib_at_most": peaks["writer"] // 2**20,
        "encoder_mib_at_most": peaks["encoder"] // 2**20,
    }
