"""Building a shard set beside what no build can do without: decoding each image and tokenising each caption once."""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

from imgcap.errors import UserError
from imgcap.shards.builder import build
from imgcap.shards.source import Source, image_id_of
from imgcap.shards.sources.registry import SourceOptions, read_source
from imgcap.text.tokeniser import Tokeniser
from imgcap.types import Record
from tools.bench.timing import Row, alternate, row

OPTIONS = {"processes": 2, "large": (120_000, "images of five captions, to measure memory with")}
# What no build can do without, as anyone would write it: one of several such processes.
BARE = """
import io, json, sys
import spacy
from PIL import Image
nlp = spacy.blank("en")
for path, captions in json.load(open(sys.argv[1]))[int(sys.argv[2]) :: int(sys.argv[3])]:
    Image.open(io.BytesIO(open(path, "rb").read())).convert("RGB")
    for caption in captions:
        [token.text.lower() for token in nlp(caption)]
"""
TOOL = Path(__file__).parents[2] / "tools" / "build_shards.py"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", type=Path, help="the photos of Flickr8k")
    parser.add_argument("captions", type=Path, help="its captions; the lists of splits lie beside them")


def bench_build(arguments: argparse.Namespace) -> dict[str, Any]:
    """Building shards of Flickr8k, against bare decoding and tokenising, and the memory of a large build.

    Seconds are those from the start of the processes; the build is one without --resize.
    """
    options = SourceOptions(images=arguments.images, captions=(arguments.captions,), splits=arguments.captions.parent)
    source = read_source("flickr8k", options)
    records = [record for split in source.splits.values() for record in split]
    with TemporaryDirectory() as folder:
        listed = Path(folder) / "records.json"
        listed.write_text(json.dumps([(str(record.path), record.captions) for record in records]))
        count = arguments.processes
        bare = [[sys.executable, "-c", BARE, listed, number, count] for number in range(count)]
        build = [sys.executable, TOOL, "flickr8k", "--images", arguments.images, "--captions", arguments.captions]
        build += ["--splits", arguments.captions.parent, "--out", Path(folder) / "set", "--workers", count, "--force"]
        runs = {"bare decoding and tokenising": partial(_run, bare), "build": partial(_run, [build])}
        seconds = alternate(runs, arguments.repeats)
    rows: list[Row] = [row(name, values, len(records), "images") for name, values in seconds.items()]
    bare_s, built_s = (statistics.median(values) for values in seconds.values())
    memory = _memory(_large(records, arguments.large), count)
    return {"rows": rows, "ratio": round(built_s / bare_s, 3), **memory}


def _run(commands: list[list[Any]]) -> float:
    """Seconds until the last of some commands, begun together, is done."""
    began = time.perf_counter()
    processes = [
        subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for command in commands
    ]
    for process in processes:
        _, errors = process.communicate()
        if process.returncode:
            raise UserError(f"a command that is measured has failed: {errors.decode(errors='replace')[-300:]}")
    return time.perf_counter() - began


def _large(records: list[Record], images: int) -> Source:
    """A source of so many images, which are those of `records` over and over under other names."""
    many = []
    for number, record in zip(range(images), itertools.cycle(records), strict=False):
        name, captions = f"{number:012d}.jpg", tuple(f"{caption} {number}" for caption in record.captions)
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
    with TemporaryDirectory() as folder:
        build(source, Path(folder) / "set", Tokeniser("en"), workers=processes)
    over.set()
    watching.join()
    return {
        "images_of_the_large_build": sum(map(len, source.splits.values())),
        "writer_mib_before": before // 2**20,
        "writer_mib_at_most": peaks["writer"] // 2**20,
        "encoder_mib_at_most": peaks["encoder"] // 2**20,
    }
