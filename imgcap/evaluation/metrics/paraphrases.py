"""The part of METEOR's paraphrase table that some references can match.

METEOR's Java reads its whole table of five million pairs at each start: five seconds, where scoring 5,000 captions
takes three. A pair matters only where one of its two phrases stands in a reference; the others are left out, in the
table's own order, so that METEOR finds the same matches in the same order.

METEOR separates words from punctuation, and some scripts letter by letter, but neither changes nor moves an ASCII
letter or digit. Phrases are therefore compared by those alone, spaces left out too, which can only keep too many.

Run as a file it is a process of its own, beside which the other metrics go on: captions as lines on stdin, the table
as its argument, the filtered one on stdout. It imports nothing of imgcap, so that it starts at once.
"""

import gzip
import io
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

LONGEST = 48  # letters; longer phrases are kept unseen
CHUNK = 1 << 25  # bytes
_LOWER = bytes(range(256)).lower()  # of ASCII letters
_OTHER = bytes(code for code in range(256) if not (code < 128 and chr(code).isalnum()))
_RUNS = bytes(32 if code in _OTHER else _LOWER[code] for code in range(256))
_ESCAPES = ((b"&quot;", b'"'), (b"&apos;", b"'"), (b"&lt;", b"<"), (b"&gt;", b">"), (b"&amp;", b"&"))


def filter_aside(table: Path, captions: Iterable[str]) -> bytes:
    """Run `filter_table` in a process of its own, at which a thread may wait. The captions are single lines."""
    command = [sys.executable, __file__, str(table)]
    return subprocess.run(command, input="\n".join(captions).encode(), stdout=subprocess.PIPE, check=True).stdout


def filter_table(table: Path, captions: Iterable[str]) -> bytes:
    """Filter a gzipped table to the pairs of which a phrase may stand in one of the captions; gzipped again."""
    present = _sequences(captions)
    kept = io.BytesIO()
    with gzip.open(table) as whole, gzip.GzipFile(fileobj=kept, mode="wb", compresslevel=1, mtime=0) as part:
        for text in _chunks(whole):
            lines = text.split(b"\n")
            letters = text.translate(_LOWER, _OTHER.replace(b"\n", b"")).split(b"\n")
            found = [
                b"%b\n%b\n%b\n" % (probability, first, second)
                for probability, first, second, one, other in zip(
                    lines[0::3], lines[1::3], lines[2::3], letters[1::3], letters[2::3], strict=False
                )
                if one in present or other in present or len(one) > LONGEST or len(other) > LONGEST
            ]
            part.write(b"".join(found))
    return kept.getvalue()


def _chunks(table: gzip.GzipFile) -> Iterator[bytes]:
    """Pieces of a table that hold whole entries: three lines each, a probability and two phrases."""
    rest = b""
    while chunk := table.read(CHUNK):
        rest += chunk
        end = rest.rfind(b"\n") + 1
        for _ in range(rest.count(b"\n", 0, end) % 3):
            end = rest.rfind(b"\n", 0, end - 1) + 1
        yield rest[:end]
        rest = rest[end:]
    assert not rest, "a paraphrase table ends with an entry's third line"


def _sequences(captions: Iterable[str]) -> set[bytes]:
    """Letters of every sequence of words in the captions, up to LONGEST; the empty one too."""
    present = {b""}
    for caption in captions:
        raw = caption.encode()
        texts = {raw}
        if b"&" in raw:
            for escape, character in _ESCAPES:
                raw = raw.replace(escape, character)
            texts.add(raw)
        for text in texts:
            runs = text.translate(_RUNS).split()
            for first in range(len(runs)):
                letters = b""
                for run in runs[first:]:
                    letters += run
                    if len(letters) > LONGEST:
                        break
                    present.add(letters)
    return present


if __name__ == "__main__":
    sys.stdout.buffer.write(filter_table(Path(sys.argv[1]), sys.stdin.buffer.read().decode().split("\n")))
